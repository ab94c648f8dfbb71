"""All contents that anybody ever made in a world, and which of them have to be somewhere still."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from model.things import TAG, Thing, is_mix, md5


@dataclass(kw_only=True)
class Ledger:
    """Every content is unlike all others."""

    must: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    by_digest: dict[str, bytes] = field(default_factory=dict)
    contents: set[bytes] = field(default_factory=set)
    """All that anybody ever wrote as a whole."""
    parts: set[bytes] = field(default_factory=set)
    """What may be there up to some byte: its writer was stopped, or was seen between two writes."""
    mixes: list[tuple[bytes, bytes]] = field(default_factory=list)
    """What may be there up to some byte, and the other from there on: its writer was stopped."""
    set_times: set[int] = field(default_factory=set)
    """Of files that somebody touched, and whose content is what it was: nothing exports these times, alone."""
    given_times: set[int] = field(default_factory=set)
    """Those of them that were set as such. Of a write that failed a file may have the time at which its directory got
    it."""
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def _share(self, other: Ledger) -> None:
        """What is moved between two keeps what is known of it."""
        self.must, self.gone, self.contents = other.must, other.gone, other.contents
        self.by_digest, self.parts, self.mixes, self.numbers = other.by_digest, other.parts, other.mixes, other.numbers
        self.set_times, self.given_times = other.set_times, other.given_times

    def _content(self, size: int) -> bytes:
        """New bytes of about that size; the empty file is nothing that could be lost."""
        tag = f"<{next(self.numbers):010}>".encode()
        assert len(tag) == TAG
        content = (tag * (size // TAG + 1))[: max(size, TAG)] if size else b""
        self._keep(content)
        return content

    def _keep(self, content: bytes) -> None:
        self._know(content)
        self._hold(content)

    def _hold(self, content: bytes) -> None:
        """It must not be lost from now on; the empty file is nothing that could be."""
        if content:
            self.must.add(content)

    def _know(self, content: bytes) -> None:
        self.by_digest[md5(content)] = content
        self.contents.add(content)

    def _drop(self, thing: Thing | None) -> None:
        """Whoever had it before his eyes took it away."""
        if thing is not None and thing.content:
            self.must.discard(thing.content)
            self.gone.add(thing.content)

    def _doubt(self, thing: Thing | None) -> None:
        """It may be gone, and nobody is to blame."""
        self._drop(thing)

    def is_known(self, content: bytes) -> bool:
        """Somebody wrote that, whole, or as far as a writer came who was stopped."""
        if not content or content in self.contents or any(part.startswith(content) for part in self.parts):
            return True
        return any(is_mix(content, new, old) for new, old in self.mixes)
