"""Run every measurement that `make bench` is about, one after the other; under seven minutes."""

import sys

from bench import create, echo, events, many, output, server, stalled

if __name__ == "__main__":
    for script in (server, create, echo, output, many, stalled, events):
        script.main(sys.argv[1:])
