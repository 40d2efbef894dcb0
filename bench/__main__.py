"""Run every measurement that `make bench` is about, one after the other; under five minutes."""

import sys

from bench import create, echo, events, output, server

if __name__ == "__main__":
    for script in (server, create, echo, output, events):
        script.main(sys.argv[1:])
