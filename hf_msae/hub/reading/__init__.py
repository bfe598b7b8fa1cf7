"""Finding and opening models: by name, in folders, and on the Hub."""
