"""Plans of parts (multipart uploads and copies) and chunks (hydration), and the part sizes others may use."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fsxsync.errors import NotExportable

MIB = 1 << 20
GIB = 1 << 30
PARTS_MAX = 10_000
PART_MIN = 5 * MIB
PART_MAX = 5 * GIB
OBJECT_MAX = PARTS_MAX * PART_MAX
"""48.8 TiB: what 10,000 parts can hold (FSX-FACTS §2.4)."""

CHUNK_STEP = 4096
"""Chunks end on pages, so that no two of them share one."""
CHUNKS_MAX = 4096
CHUNK_GROWN_MAX = 64 * MIB
_SMALL_CHUNKS = 4
_SMALL_CHUNK_MIN = 64 << 10

_MULTIPART_ETAG = re.compile(r"[0-9a-f]{32}-[1-9][0-9]{0,4}")

# Most used first: the AWS tools take 8 MiB, and so do we; the rest is from rclone, s3fs, s5cmd and the SDKs.
_USUAL_MIB = (8, 16, 5, 64, 10, 15, 20, 25, 32, 50, 100, 128, 6, 7, 12, 40, 48, 60, 96, 200, 256, 500, 512)
_CANDIDATES_MAX = 8
"""Each candidate costs a reading of the whole file."""


@dataclass(frozen=True, slots=True)
class Part:
    """``number`` counts from 1, as S3 does."""

    number: int
    offset: int
    length: int


def plan_parts(size: int, part_size: int) -> list[Part]:
    """Cut ``size`` bytes into at most 10,000 parts of ``part_size`` or, where that is too small, more.

    Raises:
        NotExportable: more than S3 takes in one object (code ``FileSizeTooLarge``).
    """
    if size > OBJECT_MAX:
        raise NotExportable(f"a file of {size} bytes", "S3 takes at most 48.8 TiB", code="FileSizeTooLarge")
    return _cut(size, grown_part_size(size, part_size)) or [Part(1, 0, 0)]


def plan_chunks(size: int, chunk_size: int) -> list[Part]:
    """Cut ``size`` bytes into chunks of ``chunk_size``, the last one shorter; nothing for an empty file."""
    if chunk_size <= 0:
        raise ValueError("chunk_size must be positive")
    return _cut(size, chunk_size)


def chunk_size_for(size: int, configured: int) -> int:
    """How large the chunks of a file of ``size`` bytes are: a quarter of ``configured`` where it has only a few, so
    that it comes over several connections, and doubled up to 64 MiB where it would have more than 4,096."""
    chunk_size = -(-configured // CHUNK_STEP) * CHUNK_STEP
    if size <= _SMALL_CHUNKS * chunk_size:
        quarter = -(-chunk_size // (4 * CHUNK_STEP)) * CHUNK_STEP
        return min(chunk_size, max(quarter, _SMALL_CHUNK_MIN))
    while size > CHUNKS_MAX * chunk_size and chunk_size < CHUNK_GROWN_MAX:
        chunk_size = min(2 * chunk_size, CHUNK_GROWN_MAX)
    return chunk_size


def grown_part_size(size: int, part_size: int) -> int:
    """``part_size`` within S3's limits, grown in whole MiB until 10,000 parts suffice."""
    needed = -(-size // PARTS_MAX)
    if needed > part_size:
        part_size = -(-needed // MIB) * MIB
    return min(max(part_size, PART_MIN), PART_MAX)


def is_multipart_etag(etag: str) -> bool:
    """MD5 of the parts' MD5s and their count: not the digest of the content."""
    return _MULTIPART_ETAG.fullmatch(etag) is not None


def candidate_part_sizes(size: int, parts_count: int) -> list[int]:
    """Part sizes that cut ``size`` bytes into ``parts_count`` parts, the likeliest first, at most eight.

    For `is_multipart_etag` ETags: if the right one is not among them, the content stays unknown.
    """
    if size <= 0 or not 1 <= parts_count <= PARTS_MAX:
        return []
    if parts_count == 1:
        return [size]
    even = -(-size // parts_count)
    tried = [
        grown_part_size(size, 8 * MIB),
        grown_part_size(size, 16 * MIB),
        *(mib * MIB for mib in _USUAL_MIB),
        -(-even // MIB) * MIB,
        *(8 * MIB << doubling for doubling in range(1, 10)),  # the AWS tools double it until 10,000 suffice
        even,
    ]
    fitting = [part_size for part_size in dict.fromkeys(tried) if -(-size // part_size) == parts_count]
    return fitting[:_CANDIDATES_MAX]


def _cut(size: int, piece: int) -> list[Part]:
    offsets = range(0, size, piece)
    return [Part(number, offset, min(piece, size - offset)) for number, offset in enumerate(offsets, start=1)]
