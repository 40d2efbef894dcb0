"""Secrets at rest: encrypted with authentication, bound to the row that they belong to."""
