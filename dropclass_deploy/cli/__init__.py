"""Floor 4: the command line; one small module a command, and nobody imports them."""
