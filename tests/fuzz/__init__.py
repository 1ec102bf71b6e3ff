"""A fuzz of every command's options and of every file it reads."""
