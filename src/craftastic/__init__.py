"""Craftastic: a self-hosted orchestrator of development environments."""

__version__ = "0.1.0"
