"""What operators do: accounts of others, and invitations."""
