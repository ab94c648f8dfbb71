"""The FUSE front: serves the tree as a mount, and asks `ports.Hydrator` for what is not there yet."""
