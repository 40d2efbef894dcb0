"""Agents: users' profiles of coding agents, with their credentials, and the types that exist."""
