"""The handlers as pyfuse3 takes them: one class, its parts a file each."""

from __future__ import annotations

import pyfuse3

from fsxsync.mount.learning import Learning
from fsxsync.mount.listing import Listing
from fsxsync.mount.metadata import Metadata


class TreeOperations(Learning, Metadata, Listing, pyfuse3.Operations):
    """All that the kernel may ask. What is not here it does itself: flock and fcntl locks, access checks
    (default_permissions). copy_file_range, SEEK_HOLE and fallocate are not to be had in pyfuse3: the channel answers
    them, and without it the kernel falls back."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False
