"""The commands: one file each, with a typed function that ``flowers.__main__`` turns into a command."""
