"""`fsxsync check --verify`: the bytes of resident files against what was synced, and against the object's checksum."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from fsxsync.errors import LocalChanged
from fsxsync.model.association import Event
from fsxsync.model.checksum import Algorithm
from fsxsync.model.finding import Finding, Rule, Tally
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.sync.digests import same_bytes
from fsxsync.sync.loading import first_leaf
from fsxsync.sync.served import Served, Shared
from fsxsync.transfer import checksums
from fsxsync.tree.leases import is_open_for_writing
from fsxsync.tree.tree import Tree

Candidate = tuple[Served, Base, Local]
IsBusy = Callable[[Served | None, Base | None, Local | None, bytes], bool]


@dataclass(frozen=True, slots=True)
class Claim:
    """A finding that holds if the file and its row still are what was compared."""

    candidate: Candidate
    finding: Finding


class Verifier:
    """Counts into ``tally``; says nothing of files that ``is_busy``."""

    def __init__(self, shared: Shared, tally: Tally, *, is_busy: IsBusy, repairs: bool = False) -> None:
        """``repairs``: have objects imported that changed without an event."""
        self._shared = shared
        self._tally = tally
        self._is_busy = is_busy
        self._repairs = repairs

    async def verify(self, candidates: Sequence[Candidate]) -> list[Claim]:
        """Compare those that have bytes here, some at a time.

        Raises:
            RepositoryError: the repository can't be asked.
        """
        claims: list[Claim] = []
        slots = trio.Semaphore(self._shared.settings.look_workers)

        async def one(candidate: Candidate) -> None:
            try:
                claim = await self._compare(candidate)
            except LocalChanged:
                self._tally.skipped += 1
            else:
                claims.extend([claim] if claim is not None else [])
            finally:
                slots.release()

        try:
            async with trio.open_nursery() as nursery:
                for candidate in candidates:
                    if self._is_due(candidate):
                        await slots.acquire()
                        nursery.start_soon(one, candidate)
        except* Exception as failures:
            raise first_leaf(failures) from failures
        return claims

    def confirmed(self, claim: Claim) -> list[Finding]:
        """The finding, if nothing happened to the file meanwhile and nothing is about to."""
        served, row, local = claim.candidate
        tree_path = served.tree_path(row.path)
        now = self._shared.tree.identify(tree_path)
        known = self._shared.catalog.files.get(served.id, row.path)
        if not local.same_state(now) or known != row or self._is_busy(served, known, now, tree_path):
            self._tally.skipped += 1
            return []
        self._tally.differing += 1
        return [claim.finding]

    def _is_due(self, candidate: Candidate) -> bool:
        served, row, local = candidate
        if row.kind is not Kind.FILE or local.kind is not Kind.FILE or row.etag is None:
            return False
        if local.stub is not None:
            self._tally.released += 1
            return False
        is_dirty = row.released or (local.size, local.mtime_ns) != (row.size, row.mtime_ns)
        if is_dirty or self._is_busy(served, row, local, served.tree_path(row.path)):
            self._tally.skipped += 1
            return False
        return True

    async def _compare(self, candidate: Candidate) -> Claim | None:
        served, row, local = candidate
        remote = await served.store.head(served.key(row.path, Kind.FILE))
        current = remote if remote is not None and remote.etag == row.etag else None
        # The thread owns its descriptor: a reading of hours holds nobody up who wants to end.
        digest, same = await trio.to_thread.run_sync(
            _read, self._shared.tree, served.tree_path(row.path), local, current, abandon_on_cancel=True
        )

        def claim(rule: Rule, message: str) -> Claim:
            return Claim(candidate, Finding(os.fsdecode(served.tree_path(row.path)), rule, message, served.id))

        if row.content_hash is not None and digest != row.content_hash:
            also = "; they are the object's" if same else ""
            return claim(Rule.LOCAL_DAMAGED, f"its bytes are not those that were synced, its size and time are{also}")
        if current is None:
            return self._of_version(served, row.path, remote, claim)
        if same is False:
            return claim(Rule.OBJECT_DIFFERS, f"its bytes don't fit the object's {checksums.choose(current.checksums)}")
        if same is None:
            self._tally.without_checksum += 1
        else:
            self._tally.verified += 1
        return None

    def _of_version(
        self, served: Served, path: bytes, remote: Remote | None, claim: Callable[[Rule, str], Claim]
    ) -> Claim | None:
        """The object is not the version that was synced. What the next look at the source brings breaks no rule."""
        association = served.association
        event = Event.DELETED if remote is None else Event.CHANGED
        if event in association.policy.imports and (association.events or association.poll_s):
            self._tally.not_imported += 1
            if self._repairs:
                served.add_hint(path, remote=True)
            return None
        if remote is None:
            return claim(Rule.OBJECT_GONE, "its object is gone, and nothing imports that")
        return claim(Rule.OBJECT_CHANGED, f"its object is the version {remote.etag} now, and nothing imports that")


def _read(tree: Tree, tree_path: bytes, local: Local, remote: Remote | None) -> tuple[bytes, bool | None]:
    """(XXH3-128 of the file, whether its bytes are the object's). Blocking.

    Raises:
        LocalChanged: it is no longer ``local``, or somebody has it open for writing. TreeError.
    """
    fd = tree.open_read(tree_path, local)
    try:
        if is_open_for_writing(fd):
            raise LocalChanged("reading a file", "it is open for writing")
        digest, crc = tree.hash_file(fd, local.size)
        same: bool | None = None
        chosen = checksums.choose(remote.checksums) if remote is not None else None
        if chosen is not None and chosen.algorithm is Algorithm.CRC64NVME:
            same = crc.to_bytes(8, "big") == chosen.value
        elif chosen is not None:
            same = checksums.matches(fd, local.size, [chosen])
        elif remote is not None:
            same, _ = same_bytes(tree, tree_path, local, remote)
        if not local.same_state(tree.identify_fd(fd)):
            raise LocalChanged("reading a file", "it was changed meanwhile")
        return digest, same
    finally:
        os.close(fd)
