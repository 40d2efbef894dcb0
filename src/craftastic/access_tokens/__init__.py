"""Personal access tokens: what programs use in a user's name."""
