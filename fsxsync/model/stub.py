"""The stub mark: which object version a sparse file stands for, as the extended attribute holds it.

The mark is what keeps "not downloaded yet" from ever being exported as zeros (DESIGN §3.4): it is set
before a stub becomes visible and removed only after the data is on disk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

XATTR = b"user.fsxsync.stub"
RESERVED_PREFIX = b"user.fsxsync."
_VERSION = 1


@dataclass(frozen=True, slots=True)
class StubMark:
    """``etag`` without quotes, ``size`` in bytes; ``key`` is the full object key at the time of import."""

    etag: str
    size: int
    key: str
    version_id: str | None = None

    def encode(self) -> bytes:
        return json.dumps(
            {
                "v": _VERSION,
                "etag": self.etag,
                "size": self.size,
                "key": self.key,
                "version_id": self.version_id,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()

    @classmethod
    def decode(cls, raw: bytes) -> StubMark:
        """Read a mark. An unreadable one still means "no data here": it decodes to a mark that matches nothing."""
        unreadable = cls(etag="", size=-1, key="")
        try:
            document = json.loads(raw)
            if document["v"] != _VERSION:
                return unreadable
            mark = cls(document["etag"], document["size"], document["key"], document.get("version_id"))
            return mark if mark._is_sound() else unreadable
        except (ValueError, KeyError, TypeError, RecursionError):  # anybody who may write to the file may have set it
            return unreadable

    def _is_sound(self) -> bool:
        """Each value is one that we could have written, and that the catalog can hold. Raises ValueError."""
        for text in (self.etag, self.key, "" if self.version_id is None else self.version_id):
            if not isinstance(text, str):
                return False
            text.encode()  # a lone surrogate can't be
        return type(self.size) is int and 0 <= self.size < 2**63
