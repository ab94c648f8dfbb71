"""Start, signals, supervision; `wiring` is the only place that builds objects."""
