"""Keeps directories and object-store prefixes in sync, in both directions."""

__version__ = "0.1.0"
