"""Every reader and writer of a prompt file, once."""
