"""Reads, failures, changes, replacements, kills and reboots in any order: every byte that a read returns is the one
of the version that was opened; never a zero for data, never a mix."""

from __future__ import annotations

import os
import random
import tempfile
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hydrating import CHUNK, Daemon, Reader, World, is_stub

from fsxsync.errors import EndpointUnreachable, FsxSyncError, NoSpace, ObjectChanged, ObjectMissing

COUNT = 7
SIZE = CHUNK * COUNT - 777


def body(version: int) -> bytes:
    """No byte is zero, and no version has a byte of another's at the same place."""
    rest = random.Random(7).randbytes(SIZE)  # noqa: S311  the same in each run
    return rest.translate(bytes(1 + (byte + 37 * version) % 255 for byte in range(256)))


BODIES = [body(version) for version in range(7)]
MINE = 6
"""What somebody writes into the file; no object."""

CHUNKS = st.integers(0, COUNT - 1)
OFFSETS = st.one_of(st.integers(0, SIZE), st.builds(lambda chunk: chunk * CHUNK, CHUNKS))
READERS = st.integers(0, 2)
READ = st.tuples(st.just("read"), READERS, OFFSETS, st.sampled_from([1, 4096, CHUNK, 3 * CHUNK, SIZE]))
BRING = st.tuples(st.just("bring"), CHUNKS)
END = st.one_of(
    st.tuples(st.just("stop"), st.sampled_from(["same boot", "another", "hole"])),
    st.tuples(st.just("kill"), st.sampled_from(["same boot", "hole", "reboot"])),
)
REST = st.one_of(
    st.tuples(st.just("let"), CHUNKS),
    st.tuples(st.just("let all")),
    st.tuples(st.just("hold")),
    st.tuples(st.just("leave"), READERS),
    st.tuples(st.just("close"), READERS),
    st.tuples(st.just("fail"), st.sampled_from([EndpointUnreachable, NoSpace]), st.integers(1, 3)),
    st.tuples(st.just("change")),
    st.tuples(st.just("delete")),
    st.tuples(st.just("import")),
    st.tuples(st.just("make resident"), READERS),
    st.tuples(st.just("discard")),
)
STEPS = st.lists(st.one_of(READ, READ, BRING, BRING, END, REST, REST), min_size=8, max_size=24)


@dataclass
class Play:
    """One life of a file, with all who read it."""

    world: World
    version: int = 0
    """Of the object; None of its bytes are in an older one."""
    versions: dict[int, int] = field(default_factory=dict)
    """Inode -> what is in it, or is to come."""
    boots: int = 0
    readers: dict[int, tuple[Reader, AsyncExitStack]] = field(default_factory=dict)
    scopes: dict[int, list[trio.CancelScope]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    async def run(self, steps: list[tuple[object, ...]]) -> None:
        self.versions[self.world.stub("f", BODIES[0]).stat().st_ino] = 0
        todo = list(steps)
        while True:
            end: tuple[object, ...] | None = None
            boot_id = f"boot-{self.boots}"
            killed = next((step[0] == "kill" for step in todo if step[0] in {"kill", "stop"}), False)
            life = self.world.killed_daemon if killed else self.world.daemon
            async with life(boot_id=boot_id) as daemon, trio.open_nursery() as tasks:
                daemon.mover.passing = set()
                while todo and end is None:
                    step = todo.pop(0)
                    if step[0] in {"stop", "kill"}:
                        end = step
                    else:
                        await self.step(daemon, tasks, *step)
                        await daemon.idle()
                    assert self.bad == []
                if end is None:
                    await self.see_it_through(daemon)
                tasks.cancel_scope.cancel()
            for number in list(self.readers):
                await self.close(number)
            assert self.bad == []
            if end is None:
                return
            self.between(end)

    def between(self, end: tuple[object, ...]) -> None:
        path = self.world.base / "tree/f"
        if end[1] in {"another", "reboot"}:
            self.boots += 1
        if end[1] in {"hole", "reboot"} and is_stub(path):
            # What was only in the page cache is gone; or somebody's tool made holes of a stub's data.
            mtime_ns = path.stat().st_mtime_ns
            os.truncate(path, 0)
            os.truncate(path, SIZE)
            os.utime(path, ns=(mtime_ns, mtime_ns))

    def reader(self, daemon: Daemon, number: int) -> Reader:
        if number not in self.readers:
            stack = AsyncExitStack()
            self.readers[number] = stack.enter_context(daemon.reader("f")), stack
        return self.readers[number][0]

    async def close(self, number: int) -> None:
        self.leave(number)
        _, stack = self.readers.pop(number)
        await stack.aclose()

    def leave(self, number: int) -> None:
        for scope in self.scopes.pop(number, []):
            scope.cancel()

    async def step(self, daemon: Daemon, tasks: trio.Nursery, what: object, *args: object) -> None:  # noqa: C901, PLR0912
        mover = daemon.mover
        match what, *args:
            case "read", int(number), int(offset), int(length):
                reader = self.reader(daemon, number)
                scope = trio.CancelScope()
                self.scopes.setdefault(number, []).append(scope)
                tasks.start_soon(self.read, scope, reader, offset, length)
            case "make resident", int(number):
                reader = self.reader(daemon, number)
                scope = trio.CancelScope()
                self.scopes.setdefault(number, []).append(scope)
                tasks.start_soon(self.make_resident, scope, daemon, reader)
            case "bring", int(chunk):
                mover.passing = {chunk}
                await self.step(daemon, tasks, "read", 0, chunk * CHUNK, 1)
                await daemon.idle()
                daemon.write_down()
            case "let", int(chunk):
                mover.passing = set() if mover.passing is None else mover.passing
                mover.let(chunk)
            case ("let all",):
                mover.let_all()
            case ("hold",):
                mover.passing = set()
            case "leave", int(number):
                self.leave(number)
            case "close", int(number):
                if number in self.readers:
                    self.leave(number)
                    await daemon.idle()
                    await self.close(number)
            case "fail", type() as kind, int(times):
                mover.failures = [kind("download", "as told") for _ in range(times)]
            case ("change",) if self.version + 1 < MINE:
                self.version += 1
                self.world.put("f", BODIES[self.version])
            case ("delete",):
                self.world.store.outside_delete("f")
            case ("import",) if "f" in self.world.store.objects:
                mover.let_all()  # whoever replaces the file waits for the chunks on their way
                await self.replace(daemon)
                mover.passing = set()
            case ("discard",):
                await self.discard(daemon)
            case _:
                pass

    async def read(self, scope: trio.CancelScope, reader: Reader, offset: int, length: int) -> None:
        before = self.held(reader.fd)
        with scope:
            try:
                got = await reader.read(offset, length)
            except FsxSyncError:
                return
            right = {BODIES[version][offset : offset + length] for version in (before, self.held(reader.fd))}
            if got not in right:
                self.bad.append(f"read({offset}, {length}) of {before}: {got.count(0)} zeros of {len(got)} bytes")

    async def make_resident(self, scope: trio.CancelScope, daemon: Daemon, reader: Reader) -> None:
        with scope:
            try:
                await daemon.hydrator.make_resident(b"f", reader.fd)
            except FsxSyncError:
                return
            if os.pread(reader.fd, SIZE, 0) != BODIES[self.held(reader.fd)]:
                self.bad.append("it was made resident wrongly")

    def held(self, fd: int) -> int:
        """The version in an inode."""
        return self.versions[os.fstat(fd).st_ino]

    async def replace(self, daemon: Daemon) -> None:
        path = self.world.base / "tree/f"
        found = self.world.store.objects["f"]
        mark = self.world.mark("f")
        async with daemon.hydrator.let_go(path.stat().st_ino):
            self.versions[self.world.place_stub("f", mark).stat().st_ino] = BODIES.index(found.body)

    async def discard(self, daemon: Daemon) -> None:
        """Somebody writes the file anew."""
        path = self.world.base / "tree/f"
        fd = os.open(path, os.O_RDWR)
        try:
            await daemon.hydrator.discard(b"f", fd)
            if os.fstat(fd).st_size or is_stub(path):
                self.bad.append("discarding left something")
            os.pwrite(fd, BODIES[MINE], 0)
            self.versions[os.fstat(fd).st_ino] = MINE
        finally:
            os.close(fd)

    async def see_it_through(self, daemon: Daemon) -> None:
        """In the end all can be had that the store still has, and the rest is said to be gone."""
        daemon.mover.failures.clear()
        daemon.mover.let_all()
        await daemon.idle()
        with daemon.reader("f") as reader, trio.fail_after(20):
            shown = self.held(reader.fd)
            still = shown == MINE or self.world.store.conditions.versioned or self.current() == shown
            for chunk in range(COUNT):
                await self.read(trio.CancelScope(), reader, chunk * CHUNK, CHUNK)
            with nullcontext() if still else suppress(ObjectChanged, ObjectMissing):
                await daemon.hydrator.make_resident(b"f", reader.fd)
                still = True
            assert not (still and is_stub(self.world.base / "tree/f"))
            if still:
                assert os.pread(reader.fd, SIZE, 0) == BODIES[shown]

    def current(self) -> int | None:
        found = self.world.store.objects.get("f")
        return BODIES.index(found.body) if found else None


@pytest.mark.parametrize("versioned", [False, True])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(steps=STEPS)
def test_every_byte_is_the_one_of_the_version_that_was_opened(versioned: bool, steps: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as base:
        world = World(Path(base), versioned=versioned)
        try:
            trio.run(partial(Play(world).run, steps))
        finally:
            world.close()
