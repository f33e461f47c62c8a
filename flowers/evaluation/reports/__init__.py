"""Render pages, with one renderer and one template for all reports."""
