"""Mail: handed to a mail server in the background, or left in files for the operator."""
