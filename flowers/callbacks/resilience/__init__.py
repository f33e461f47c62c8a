"""What Lightning leaves undone when a run is interrupted."""
