"""A file that is the same on both sides, somebody else at its object, and looks until nothing is left to be done."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.hydrating import MTIME_NS, World

from fsxsync import _core
from fsxsync.catalog.changelog import Entry
from fsxsync.errors import ObjectChanged
from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.identity import Kind, Local, Posix, Remote, base_of
from fsxsync.model.metadata import to_user_metadata
from fsxsync.sync import acting, exporter
from fsxsync.sync.acting import Next
from fsxsync.sync.look import look

BODY = b"as it was"
KEEP_BOTH, REMOTE, LOCAL = Policy(), Policy(on_conflict=OnConflict.REMOTE), Policy(on_conflict=OnConflict.LOCAL)
THEM = 1000


class Crash(BaseException):
    """``kill -9``: nothing after it is done."""


def crashing(*_: object, **__: object) -> None:
    raise Crash


async def uploaded(store: Any, key: str, fd: int, size: int, headers: Any, *, replaces: Any, still: object) -> Any:
    """`ports.Mover.upload`, in one piece."""
    data = os.pread(fd, size, 0)
    return await store.put(key, data, headers, replaces=replaces), _core.xxh3_128(data)


async def synced(world: World, name: str = "f") -> Path:
    """A file that is the same on both sides."""
    path = world.base / "tree" / name
    path.write_bytes(BODY)
    os.utime(path, ns=(MTIME_NS, MTIME_NS))
    path.chmod(0o644)
    describe(world, ours(path), name)
    world.catalog.files.put(base_of("dra-1", name.encode(), *await sides(world, name)))
    row = world.catalog.files.get("dra-1", name.encode())
    assert row is not None
    world.catalog.files.put(row._replace(content_hash=_core.xxh3_128(BODY)))
    return path


async def released(world: World, path: Path) -> None:
    """It is the stub of its object, and its row says so."""
    world.place_stub(path.name, world.mark(path.name)).chmod(0o644)
    local, remote = await sides(world, path.name)
    carried = remote._replace(posix=remote.posix._replace(xattrs=None))
    world.catalog.files.put(base_of("dra-1", os.fsencode(path.name), local, carried))


def ours(path: Path) -> Posix:
    status = path.stat()
    return Posix(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def describe(world: World, posix: Posix, name: str = "f") -> None:
    """Somebody else puts other metadata onto the same bytes."""
    world.store.outside_put(name, BODY, metadata=to_user_metadata(Kind.FILE, posix))


async def sides(world: World, name: str = "f") -> tuple[Local, Remote]:
    local, remote = world.tree.identify(name.encode()), await world.store.head(name)
    assert local is not None
    assert remote is not None
    return local, remote


async def agreed(world: World, name: str = "f") -> Posix:
    """What both sides say."""
    local, remote = await sides(world, name)
    here = local.posix._replace(atime_ns=None)
    assert remote.posix._replace(atime_ns=None, xattrs=None) == here
    return here


def hint(name: str = "f", *, remote: bool = True) -> Entry:
    return Entry("dra-1", name.encode(), True, remote, None, 0, 0, 1, 0, None, None, "")


async def looks(
    world: World, policy: Policy = KEEP_BOTH, *, name: str = "f", remote: bool = True, export_xattrs: bool = False
) -> None:
    """As a looker: until nothing is to be done, and nobody asks for another look."""
    async with world.daemon() as daemon:
        daemon.served.association = replace(daemon.served.association, export_xattrs=export_xattrs)
        daemon.mover.upload = uploaded  # type: ignore[method-assign, assignment]
        for _ in range(8):
            pending = world.catalog.changelog.pending("dra-1", name.encode(), 1)
            remote = remote or any(entry.remote for entry in pending)
            for entry in pending:
                world.catalog.changelog.done(entry)
            try:
                outcome = await look(daemon.served, hint(name, remote=remote), policy=policy)
            except ObjectChanged:
                remote = True
                continue
            if outcome.next is Next.DONE and not world.catalog.changelog.pending("dra-1", name.encode(), 1):
                return
            remote = outcome.remote
        raise AssertionError("it goes on for ever")


async def crash(world: World, monkeypatch: pytest.MonkeyPatch, policy: Policy = KEEP_BOTH) -> None:
    """A look that ends when the store has done what it was asked: neither file nor row are told."""
    with monkeypatch.context() as patch:
        patch.setattr(exporter, "_apply", crashing)
        patch.setattr(acting, "record", crashing)
        async with world.daemon() as daemon:
            daemon.mover.upload = uploaded  # type: ignore[method-assign, assignment]
            with pytest.raises(Crash):
                await look(daemon.served, hint(), policy=policy)


def give_other_etag(world: World) -> None:
    """As S3 has it for objects in parts: the ETag of a copy is another one."""
    there = world.store.objects["f"]
    world.store.objects["f"] = replace(there, etag="of-the-copy", crc64nvme=_core.crc64nvme(there.body))
