"""Are these the same bytes? Compares a file with what the store tells about an object, or says "unknown"."""

from __future__ import annotations

import hashlib
import os

from fsxsync.errors import LocalChanged
from fsxsync.model.identity import Local, Remote
from fsxsync.model.parts import candidate_part_sizes, is_multipart_etag
from fsxsync.tree.tree import Tree

_BLOCK = 1 << 20


def same_bytes(tree: Tree, tree_path: bytes, local: Local, remote: Remote) -> tuple[bool | None, bytes | None]:
    """Compare a resident file with an object by checksum. Blocking; reads the file once or a few times.

    Returns (verdict, XXH3-128 of the file): True and False are certain, None is "nobody can tell".

    Raises:
        LocalChanged: the file is no longer ``local``.
    """
    if local.size != remote.size:
        return False, None
    fd = tree.open_read(tree_path, local)
    try:
        digest, crc = tree.hash_file(fd, local.size)
        if remote.crc64nvme is not None:
            verdict: bool | None = crc == remote.crc64nvme
        elif is_multipart_etag(remote.etag):
            verdict = _matches_multipart(fd, local.size, remote.etag)
        elif len(remote.etag) == 32:
            # An ETag of 32 hex digits is the MD5 unless SSE-KMS or SSE-C made it; then it differs: unknown, not False.
            verdict = True if _md5(fd, 0, local.size).hexdigest() == remote.etag else None
        else:
            verdict = None
        if not _unchanged(fd, local):
            raise LocalChanged("comparing a file with its object", "it was written meanwhile")
        return verdict, digest
    finally:
        os.close(fd)


def content_hash(tree: Tree, tree_path: bytes, local: Local) -> bytes:
    """XXH3-128 of a resident file that still is ``local``. Blocking."""
    fd = tree.open_read(tree_path, local)
    try:
        digest, _ = tree.hash_file(fd, local.size)
        if not _unchanged(fd, local):
            raise LocalChanged("reading a file", "it was written meanwhile")
        return digest
    finally:
        os.close(fd)


def _unchanged(fd: int, local: Local) -> bool:
    now = os.fstat(fd)
    return (now.st_ino, now.st_size, now.st_mtime_ns) == (local.ino, local.size, local.mtime_ns)


def _md5(fd: int, offset: int, length: int) -> hashlib._Hash:
    digest = hashlib.md5(usedforsecurity=False)
    while length > 0:
        block = os.pread(fd, min(_BLOCK, length), offset)
        if not block:
            raise LocalChanged("reading a file", "it became shorter meanwhile")
        digest.update(block)
        offset += len(block)
        length -= len(block)
    return digest


def _matches_multipart(fd: int, size: int, etag: str) -> bool | None:
    """A multipart ETag is the MD5 of the parts' MD5s: try the part sizes that clients use."""
    count = int(etag.rpartition("-")[2])
    for part_size in candidate_part_sizes(size, count):
        outer = hashlib.md5(usedforsecurity=False)
        for offset in range(0, size, part_size):
            outer.update(_md5(fd, offset, min(part_size, size - offset)).digest())
        if f"{outer.hexdigest()}-{count}" == etag:
            return True
    return None
