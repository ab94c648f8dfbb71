"""The local side, below the root only: identify, stage, exchange, scan, watch."""
