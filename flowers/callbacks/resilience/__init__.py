"""Callbacks for interruptions and resuming that Lightning does not handle itself."""
