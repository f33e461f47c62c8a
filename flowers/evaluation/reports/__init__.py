"""Numbers to pages: one renderer and one template for every report."""
