"""`fsxsync diff`: listing, rows and tree, three sorted sequences merged as streams, flat in memory. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import trio

from fsxsync.errors import BadInput, KeyNotPosix, LocalChanged
from fsxsync.model.difference import Change, Difference
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.keys import path_of
from fsxsync.ports import Listed
from fsxsync.sync import conflicts
from fsxsync.sync.filters import Age
from fsxsync.sync.reconcile import Delta, local_delta, needs_digest
from fsxsync.sync.served import Served
from fsxsync.tree.identify import hash_file
from fsxsync.tree.tree import Tree

T = TypeVar("T")
BATCH = 500
"""Entries that one hop to a worker thread reads; other tasks run between two."""


@dataclass(slots=True)
class _Here:
    """All three sides of one sort key."""

    path: bytes
    row: Base | None = None
    local: Local | None = None
    listed: Listed | None = None


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
        rows = self._served.shared.catalog.files.iterate(self._served.id, self._under)
        locals_, listeds = self._locals(), self._listeds()
        row = next(rows, None)
        local, local_batch = await _advance(locals_, iter(()))
        listed, listed_batch = await _advance(listeds, iter(()))
        count = 0
        while row is not None or local is not None or listed is not None:
            heads = []
            if row is not None:
                heads.append(row.path + b"/" if row.kind is Kind.DIRECTORY else row.path)
            heads += [head[0] for head in (local, listed) if head is not None]
            key = min(heads)
            here = _Here(key.removesuffix(b"/"))
            if row is not None and row.path == here.path and (row.kind is Kind.DIRECTORY) == key.endswith(b"/"):
                here.row, row = row, next(rows, None)
            if local is not None and local[0] == key:
                here.local = local[1]
                local, local_batch = await _advance(locals_, local_batch)
            if listed is not None and listed[0] == key:
                here.listed = listed[1]
                listed, listed_batch = await _advance(listeds, listed_batch)
            if here.path and (found := await self._judge(here, is_directory=key.endswith(b"/"))) is not None:
                yield found
            count += 1
            if count % BATCH == 0:
                await trio.lowlevel.checkpoint()

    # ------------------------------------------------------------- the sides; blocking, for a worker thread

    def _locals(self) -> Iterator[list[tuple[bytes, Local]]]:
        served, tree = self._served, self._served.shared.tree
        top = served.tree_path(self._under)
        if self._under and (itself := tree.identify(top)) is not None:
            yield [(_sort_key(self._under, itself.kind is Kind.DIRECTORY), itself)]
        for batch in tree.walk_batches(top, BATCH):
            found = []
            for path, local in batch:
                inside = served.association.relative(path)
                assert inside is not None
                found.append((_sort_key(inside, local.kind is Kind.DIRECTORY), local))
            yield found

    def _listeds(self) -> Iterator[list[tuple[bytes, Listed]]]:
        served, under = self._served, self._under
        prefix = served.association.prefix + under.decode("utf-8", "surrogateescape")
        for page in served.store.list_pages(prefix):
            found = []
            for listed in page:
                try:
                    path, is_directory = path_of(listed.key, served.association.prefix)
                except KeyNotPosix:
                    continue  # no path: the event log names it
                if not under or path == under or path.startswith(under + b"/"):
                    found.append((_sort_key(path, is_directory), listed))
            yield found

    # ------------------------------------------------------------- judging

    async def _judge(self, here: _Here, *, is_directory: bool) -> Difference | None:
        if self._is_left_out(here, is_directory=is_directory):
            return None
        change = await self._change(here, is_directory=is_directory)
        path = here.path
        if here.local is None and here.listed is not None and (clash := self._in_the_way(path, is_directory)):
            change, path = Change.TYPE, clash
        elif change is Change.ONLY_LOCAL and conflicts.is_clash(self._served, path):
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


async def _advance(batches: Iterator[list[T]], batch: Iterator[T]) -> tuple[T | None, Iterator[T]]:
    """The next element, and the iterator that has those after it."""
    while (found := next(batch, None)) is None:
        more = await trio.to_thread.run_sync(next, batches, None)
        if more is None:
            return None, iter(())
        batch = iter(more)
    return found, batch
