"""Which credential belongs to which upstream of git."""
