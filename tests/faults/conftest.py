"""What the tests of faults stand on: the end-to-end tests' server, with failpoints where asked."""

from tests.e2e.conftest import data_dir, own_history, runtime, second, server

__all__ = ["data_dir", "own_history", "runtime", "second", "server"]
