"""What the daemon tells about itself: the event log (for users and scripts), the log, the metrics."""
