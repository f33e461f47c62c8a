"""The commands, one file each, and their options, help and errors."""
