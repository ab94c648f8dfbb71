"""What runs POSIX cases on a bare directory and on the mount, and compares."""
