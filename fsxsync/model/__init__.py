"""Pure values and functions: no IO, no clock, no concurrency."""
