"""A connected GitHub account: the device flow, its tokens, its repositories."""
