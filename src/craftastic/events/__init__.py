"""What changed, told to its owner's open pages as it happens."""
