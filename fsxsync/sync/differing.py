"""`fsxsync diff`: listing, rows and tree, three sorted sequences merged as streams, flat in memory. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import trio

from fsxsync.catalog.brief import Brief
from fsxsync.errors import BadInput, KeyNotPosix, LocalChanged
from fsxsync.model.difference import Change, Difference
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.keys import path_of
from fsxsync.model.shallow import Shallow
from fsxsync.ports import Listed
from fsxsync.sync.ahead import ReadAhead
from fsxsync.sync.filters import Age
from fsxsync.sync.journal import is_clash
from fsxsync.sync.reconcile import Delta, local_delta, needs_digest
from fsxsync.sync.served import Served
from fsxsync.tree.identify import hash_file
from fsxsync.tree.tree import Tree
from fsxsync.tree.walk import Entry

T = TypeVar("T")
BATCH = 1000
"""Entries that one hop to a worker thread reads; other tasks run between two."""


@dataclass(slots=True)
class _Here:
    """All three sides of one sort key."""

    path: bytes
    row: Base | None = None
    local: Local | None = None
    listed: Listed | None = None


class _Side(Generic[T]):
    """A sorted sequence, as far as it has been read."""

    def __init__(self, batches: AsyncIterator[list[T]]) -> None:
        self._batches = batches
        self.batch: list[T] = []
        self.place = 0
        self._has_more = True

    async def read_on(self) -> bool:
        """True if there was need and more to read."""
        is_due = self.place == len(self.batch) and self._has_more
        if is_due:
            self.batch, self.place = await anext(self._batches, []), 0
            self._has_more = bool(self.batch)
        return is_due

    def head(self) -> T | None:
        return self.batch[self.place] if self.place < len(self.batch) else None


async def differences(served_by_id: Mapping[str, Served], tree_path: bytes) -> AsyncGenerator[Difference, None]:
    """Every difference at a path of the tree and below it.

    Raises:
        BadInput: no association is at, above or below the path. TreeError, RepositoryError: a side can't be read.
    """
    concerned = []
    for served in sorted(served_by_id.values(), key=lambda one: one.association.directory):
        inside = served.association.relative(tree_path)
        if inside is not None:
            concerned.append((served, inside))
        elif not tree_path or served.association.directory.startswith(tree_path + b"/"):
            concerned.append((served, b""))
    if not concerned and tree_path:
        raise BadInput(f"/{tree_path.decode('utf-8', 'backslashreplace')}", "it belongs to no association")
    for served, inside in concerned:
        served.shared.tree.verify()
        merge = _Merge(served, inside)
        async for difference in merge.run():
            yield difference


class _Merge:
    def __init__(self, served: Served, under: bytes) -> None:
        self._served = served
        self._under = under
        self._clashes: set[bytes] = set()

    async def run(self) -> AsyncGenerator[Difference, None]:
        rows = _Side(self._rows())
        locals_, listeds = _Side(ReadAhead(self._locals())), _Side(ReadAhead(self._listeds()))
        while True:
            _pass_equal(rows, locals_, listeds)
            if await rows.read_on() | await locals_.read_on() | await listeds.read_on():
                continue
            row, local, listed = rows.head(), locals_.head(), listeds.head()
            keys = [head[0] for head in (row, local, listed) if head is not None]
            if not keys:
                return
            key = min(keys)
            here = _Here(key.removesuffix(b"/"))
            if row is not None and row.sort_key == key:
                rows.place += 1
                here.row = self._served.shared.catalog.files.get(self._served.id, here.path)
            if local is not None and local[0] == key:
                locals_.place += 1
                here.local = local[1].local()
            if listed is not None and listed[0] == key:
                listeds.place += 1
                here.listed = self._possible(listed[1])
            if here.path and (found := await self._judge(here, is_directory=key.endswith(b"/"))) is not None:
                yield found

    # ------------------------------------------------------------- the sides

    async def _rows(self) -> AsyncIterator[list[Brief]]:
        for page in self._served.shared.catalog.briefs.iterate(self._served.id, self._under):
            yield page
            await trio.lowlevel.checkpoint()

    def _locals(self) -> Iterator[list[Entry]]:
        """Blocking."""
        served, tree = self._served, self._served.shared.tree
        top, start = served.tree_path(self._under), served.association.start
        if self._under and (itself := tree.identify(top)) is not None:
            yield [(_sort_key(self._under, itself.kind is Kind.DIRECTORY), Shallow.of(itself))]
        for batch in tree.entry_batches(top, BATCH):
            yield [(key[start:], found) for key, found in batch] if start else batch

    def _listeds(self) -> Iterator[list[tuple[bytes, Listed]]]:
        """With the part of the key that is a sort key, if it is any. Blocking."""
        served, under = self._served, self._under
        prefix = served.association.prefix
        inside, start = under + b"/", len(prefix)
        for page in served.store.list_pages(prefix + under.decode("utf-8", "surrogateescape")):
            # JSON can spell keys that are no Unicode: `_possible` has them.
            found = [(one.key[start:].encode("utf-8", "surrogatepass"), one) for one in page]
            if under:
                found = [one for one in found if one[0] == under or one[0].startswith(inside)]
            if found:
                yield found

    def _possible(self, listed: Listed) -> Listed | None:
        """None if its key is no path: the event log names it."""
        try:
            path_of(listed.key, self._served.association.prefix)
        except KeyNotPosix:
            return None
        return listed

    # ------------------------------------------------------------- judging

    async def _judge(self, here: _Here, *, is_directory: bool) -> Difference | None:
        if self._is_left_out(here, is_directory=is_directory):
            return None
        change = await self._change(here, is_directory=is_directory)
        path = here.path
        if here.local is None and here.listed is not None and (clash := self._in_the_way(path, is_directory)):
            change, path = Change.TYPE, clash
        elif change is Change.ONLY_LOCAL and is_clash(self._served, path):
            change = Change.TYPE
        if change is None or path in self._clashes:
            return None
        if change is Change.TYPE:
            self._clashes.add(path)
        return Difference(change, os.fsdecode(self._served.tree_path(path)), self._served.id)

    def _is_left_out(self, here: _Here, *, is_directory: bool) -> bool:
        filters, now_ns = self._served.filters, self._served.shared.now_ns()
        if not filters.wants(here.path, directory=is_directory) or filters.leaves_out(here.row, here.local, None):
            return True
        if here.listed is not None and not filters.lists(is_directory, here.listed.size):
            return True
        if here.row is not None:
            return False
        if filters.is_too_old(None, here.local, None, now_ns):
            return True
        return here.listed is not None and filters.age_of_new(here.listed.last_modified_ns, now_ns) is Age.TOO_OLD

    async def _change(self, here: _Here, *, is_directory: bool) -> Change | None:
        row, local, listed = here.row, here.local, here.listed
        if local is None:
            return Change.ONLY_REMOTE if listed is not None else None
        if listed is None:
            return None if row is not None and row.is_implied else Change.ONLY_LOCAL
        if row is None:
            return None if is_directory or await self._is_stub_of(here, listed) else Change.BOTH
        is_ours = row.matches_local(local) or await self._delta(here, row) is Delta.SAME
        is_theirs = row.is_implied or (
            (row.etag, row.remote_size) == (listed.etag, listed.size)
            and listed.last_modified_ns <= row.last_modified_ns
        )
        if is_ours:
            return None if is_theirs else Change.REMOTE
        return Change.LOCAL if is_theirs else Change.BOTH

    async def _is_stub_of(self, here: _Here, listed: Listed) -> bool:
        """A walk reads no marks."""
        local = self._served.shared.tree.identify(self._served.tree_path(here.path))
        return local is not None and local.stub is not None and local.stub.etag == listed.etag

    async def _delta(self, here: _Here, row: Base) -> Delta:
        """What a closer look says, down to the bytes where only that tells "touched" from "changed"."""
        tree, tree_path = self._served.shared.tree, self._served.tree_path(here.path)
        local = tree.identify(tree_path)
        if local is not None and needs_digest(row, local):
            try:
                digest = await trio.to_thread.run_sync(_digest, tree, tree_path, local)
            except LocalChanged:
                return Delta.CONTENT  # it is being written just now
            return local_delta(row, local._replace(content_hash=digest))
        return local_delta(row, local)

    def _in_the_way(self, path: bytes, is_directory: bool) -> bytes | None:
        """Of an object whose path is free of its own kind: what else stands there, or a file where a directory is
        needed."""
        tree = self._served.shared.tree
        parts = path.split(b"/")
        for count in range(1, len(parts) + 1):
            above = b"/".join(parts[:count])
            standing = tree.identify(self._served.tree_path(above))
            if standing is None:
                return None
            wants_directory = is_directory or count < len(parts)
            if (standing.kind is Kind.DIRECTORY) != wants_directory:
                return above
        return None


def _digest(tree: Tree, tree_path: bytes, local: Local) -> bytes:
    fd = tree.open_read(tree_path, local)
    try:
        return hash_file(fd, local.size)[0]
    finally:
        os.close(fd)


def _sort_key(path: bytes, is_directory: bool) -> bytes:
    return path + b"/" if is_directory else path


def _pass_equal(rows: _Side[Brief], locals_: _Side[Entry], listeds: _Side[tuple[bytes, Listed]]) -> None:
    """Go on to where the sides differ or one has to be read. What is equal on all of them needs no judgement, whatever
    the filters say; nor does a directory that the repository has only because keys lie below it."""
    at_row, at_local, at_listed = rows.place, locals_.place, listeds.place
    try:
        while True:
            row = rows.batch[at_row]
            key, found = locals_.batch[at_local]
            listed_key, listed = listeds.batch[at_listed]
            if row.sort_key != key:
                break
            if key == listed_key:
                if not (row.matches(found) and row.matches_listing(listed.etag, listed.size, listed.last_modified_ns)):
                    break
                at_listed += 1
            elif key > listed_key or not row.is_implied:
                break
            at_row += 1
            at_local += 1
    except IndexError:
        pass  # one of them is read to its end
    rows.place, locals_.place, listeds.place = at_row, at_local, at_listed
