"""Which image trains, which validates, which tests."""
