"""Deployments: runs of Coolify, asked for once, followed to their end, by any server process."""
