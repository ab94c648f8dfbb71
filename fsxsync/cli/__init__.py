"""The commands (CLI.md): each asks the daemon through `control.client` and prints what it answers."""
