"""Names of conflict copies: ``name.conflict-20261123T175229Z-HOST.ext`` (DESIGN §8)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_NAME_MAX = 255
_HOST_MAX = 40
_EXTENSION_MAX = 32
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SUFFIX = re.compile(
    rb"(?P<stem>.*?)\.conflict-[0-9]{8}T[0-9]{6}Z-[A-Za-z0-9-]{1,60}(?P<extension>\.[^.]{1,31})?", re.DOTALL
)


def conflict_name(name: bytes, now_s: int, host: str, attempt: int) -> bytes:
    """The name under which the local version of ``name`` is kept. At most 255 bytes.

    ``now_s`` is seconds since the epoch, printed in UTC; ``attempt`` counts from 0 and makes another name
    each time. A conflict copy's own copy gets a new suffix in place of the old one: names do not grow.
    """
    stem, extension = _without_suffix(name)
    stamp = (_EPOCH + timedelta(seconds=now_s)).strftime("%Y%m%dT%H%M%SZ")
    short_host = re.sub(r"[^A-Za-z0-9-]", "-", host.partition(".")[0])[:_HOST_MAX] or "host"
    suffix = f".conflict-{stamp}-{short_host}".encode()
    if attempt:
        suffix += f"-{attempt}".encode()
    return _cut(stem, _NAME_MAX - len(suffix) - len(extension)) + suffix + extension


def is_conflict_name(name: bytes) -> bool:
    """``name`` looks like one that `conflict_name` made."""
    return _SUFFIX.fullmatch(name) is not None


def _without_suffix(name: bytes) -> tuple[bytes, bytes]:
    while (matched := _SUFFIX.fullmatch(name)) is not None:
        name = matched["stem"] + (matched["extension"] or b"")
    stem, dot, extension = name.rpartition(b".")
    # A leading dot hides a file and starts no extension; neither does a dot with half a sentence behind it.
    if not stem.strip(b".") or not extension or len(extension) >= _EXTENSION_MAX:
        return name, b""
    return stem, dot + extension


def _cut(stem: bytes, length: int) -> bytes:
    """The first ``length`` bytes, without half a character at the end: a cut name must stay exportable."""
    if len(stem) <= length:
        return stem
    cut = length
    while cut > 0 and length - cut < 3 and stem[cut] & 0xC0 == 0x80:
        cut -= 1
    return stem[:cut]
