"""Variables and secrets of a user and of an environment, for the shells in it."""
