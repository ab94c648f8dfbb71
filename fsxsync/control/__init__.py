"""The daemon's API on a unix socket: FSx's own wire protocol, what FSx lacks beside it, and a client."""
