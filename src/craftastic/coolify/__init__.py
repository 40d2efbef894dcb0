"""Coolify: its API, and whose connection to it is used."""
