"""What environments use of the disk, and what of it can be had back without losing work."""
