"""Broken files, duplicates and conflicting labels."""
