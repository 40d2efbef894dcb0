"""Who may push what from a sandbox, and what was pushed."""
