"""The engine: hints in, one look per path, one decision, one action (DESIGN §2)."""
