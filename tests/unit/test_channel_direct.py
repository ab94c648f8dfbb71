"""What the channel answers by itself: the same as the handlers would, noted for them, and nothing in doubt."""

from __future__ import annotations

import errno
import os
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.channel_ends import (
    BATCH_FORGET,
    CREATE,
    FLUSH,
    FORGET,
    GETATTR,
    LOOKUP,
    OPENDIR,
    READ,
    READDIRPLUS,
    RELEASE,
    RELEASEDIR,
    SYNCFS,
    UNLINK,
    WRITE,
    Attributes,
    Ends,
)

from fsxsync import _core

TIMEOUT_S = 7
HIDDEN = b".hidden"
NEXT = iter(range(1000, 1 << 30, 2))


class Tree:
    """A directory ``d`` in a tree, and the channel that answers for it."""

    def __init__(self, ends: Ends, root: Path) -> None:
        self.ends = ends
        self.root = root
        self.directory = root / "d"
        self.directory.mkdir()
        self.root_fd = os.open(root, os.O_RDONLY)
        self.fd = os.open(self.directory, os.O_PATH)
        ends.channel.answer_directly(self.root_fd, TIMEOUT_S * 10**9, HIDDEN)
        self.serve()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.root_fd)

    @property
    def ino(self) -> int:
        return os.stat(self.directory).st_ino

    def serve(self, *, is_writable: bool = True) -> None:
        self.ends.channel.serve(self.ino, self.fd, is_writable)

    def ask(self, opcode: int, body: bytes = b"", *, nodeid: int | None = None, error: int = 0, pid: int = 1) -> bytes:
        """The channel's own answer."""
        unique = next(NEXT)
        self.ends.ask(opcode, unique, body, nodeid=self.ino if nodeid is None else nodeid, pid=pid, uid=77, gid=88)
        return self.ends.answer(unique, error)

    def passes(self, opcode: int, body: bytes = b"", *, nodeid: int | None = None) -> bool:
        """Whether the request goes on to Python."""
        sent = self.ends.ask(opcode, next(NEXT), body, nodeid=self.ino if nodeid is None else nodeid)
        return self.ends.libfuse.recv(1 << 20) == sent

    def passes_or_answers(self, opcode: int, body: bytes) -> str:
        self.ends.ask(opcode, next(NEXT), body, nodeid=self.ino)
        ready, _, _ = select.select([self.ends.libfuse, self.ends.kernel], [], [], 20)
        passed = self.ends.libfuse in ready
        assert (self.ends.libfuse if passed else self.ends.kernel).recv(1 << 20)
        return "passes" if passed else "answers"

    def look(self, name: bytes) -> tuple[int, int, Attributes, tuple[int, int]]:
        """(nodeid, generation, attributes, (entry, attribute) seconds) of a LOOKUP's answer."""
        return self.ends.entry(self.ask(LOOKUP, name + b"\0"))

    def facts(self) -> list[tuple[object, ...]]:
        return list(self.ends.channel.drain())


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    ends = Ends()
    made = Tree(ends, tmp_path)
    yield made
    ends.close()
    made.close()


def as_told(path: Path) -> Attributes:
    status = os.lstat(path)
    return Attributes(
        status.st_ino,
        status.st_size,
        status.st_blocks,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


# ---------------------------------------------------------------- names and attributes


def test_a_name_is_looked_up_and_python_learns_it(tree: Tree) -> None:
    file = tree.directory / "f"
    file.write_bytes(b"12345")
    os.utime(file, ns=(1_000_000_001, -5))

    nodeid, generation, attributes, held = tree.look(b"f")

    assert (nodeid, attributes, held) == (file.stat().st_ino, as_told(file), (TIMEOUT_S, TIMEOUT_S))
    assert generation == _core.birth_generation(tree.fd, b"f", nodeid) != 0
    status = file.stat()
    assert tree.facts() == [
        (_core.FACT_MET, tree.ino, b"f", nodeid, generation, status.st_mode, status.st_nlink),
    ]
    assert tree.facts() == []


@pytest.mark.parametrize("kind", ["directory", "symlink", "fifo"])
def test_other_kinds_are_looked_up_and_not_followed(tree: Tree, kind: str) -> None:
    path = tree.directory / "x"
    {"directory": path.mkdir, "symlink": lambda: path.symlink_to("nowhere"), "fifo": lambda: os.mkfifo(path)}[kind]()

    assert tree.look(b"x")[2] == as_told(path)


def test_two_inodes_of_one_number_differ_in_their_generation(tree: Tree) -> None:
    generations = set()
    for _ in range(3):
        (tree.directory / "f").touch()
        generations.add(tree.look(b"f")[1])
        (tree.directory / "f").unlink()
        threading.Event().wait(0.02)  # the file system's clock has to move on: its tick is 4 ms

    assert len(generations) == 3


def test_a_file_of_holes_alone_shows_a_block(tree: Tree) -> None:
    os.truncate(_made(tree.directory / "f"), 1 << 20)

    assert tree.look(b"f")[2].blocks == 1


def _made(path: Path) -> Path:
    path.touch()
    return path


def test_an_absent_name_is_remembered_until_it_appears(tree: Tree) -> None:
    nodeid, _, _, (entry_s, _) = tree.look(b"new")
    assert (nodeid, entry_s) == (0, 1)  # outside all associations nobody tells that one appeared
    assert tree.ends.channel.is_absent(tree.ino, b"new")
    assert not tree.ends.channel.is_absent(tree.ino, b"other")

    (tree.directory / "new").touch()
    assert tree.look(b"new")[0] != 0
    assert not tree.ends.channel.is_absent(tree.ino, b"new")

    tree.look(b"gone")
    tree.ends.channel.invalidate_entry(tree.ino, b"gone")
    assert not tree.ends.channel.is_absent(tree.ino, b"gone")


def test_what_only_python_knows_is_asked_of_python(tree: Tree) -> None:
    file = _made(tree.directory / "f")
    ino = file.stat().st_ino
    tree.look(b"f")

    tree.ends.channel.leave_to_python(ino, True)
    assert tree.passes(LOOKUP, b"f\0")
    assert tree.passes(GETATTR, bytes(16), nodeid=ino)
    tree.ends.channel.leave_to_python(ino, False)
    assert tree.look(b"f")[0] == ino

    tree.ends.channel.serve_no_more(tree.ino)
    assert tree.passes(LOOKUP, b"f\0")
    assert tree.passes(OPENDIR, bytes(8))


def test_names_that_the_root_hides_are_pythons(tree: Tree) -> None:
    _made(tree.root / ".hidden-x")
    _made(tree.root / "f")

    assert tree.passes(LOOKUP, b".hidden-x\0", nodeid=1)
    assert tree.passes(READDIRPLUS, bytes(40), nodeid=1)
    assert tree.ends.entry(tree.ask(LOOKUP, b"f\0", nodeid=1))[2] == as_told(tree.root / "f")


def test_the_root_is_number_1_to_the_kernel(tree: Tree) -> None:
    root = tree.root.stat()

    assert tree.ends.attributes(tree.ask(GETATTR, bytes(16), nodeid=1)).ino == 1
    assert tree.passes(LOOKUP, b"x\0", nodeid=root.st_ino)  # some other inode: the host's number 1


def test_a_directory_that_is_gone_is_pythons(tree: Tree) -> None:
    tree.directory.rmdir()

    ino = os.fstat(tree.fd).st_ino
    for opcode, body in ((LOOKUP, b"f\0"), (GETATTR, bytes(16)), (OPENDIR, bytes(8))):
        assert tree.passes(opcode, body, nodeid=ino)


def test_broken_requests_are_libfuses(tree: Tree) -> None:
    for opcode, body in ((LOOKUP, b""), (LOOKUP, b"f"), (LOOKUP, b"n" * 300 + b"\0"), (GETATTR, b"1"), (CREATE, b"2")):
        assert tree.passes(opcode, body)


def test_attributes_are_those_of_the_inode_that_was_met_wherever_its_name_leads(tree: Tree) -> None:
    file = _made(tree.directory / "f")
    ino = tree.look(b"f")[0]
    file.write_bytes(b"more")
    assert tree.ends.attributes(tree.ask(GETATTR, bytes(16), nodeid=ino)) == as_told(file)
    with file.open() as opened:
        by_handle = struct.pack("<IIQ", 1, 0, opened.fileno())
        assert tree.ends.attributes(tree.ask(GETATTR, by_handle, nodeid=ino)) == as_told(file)

    file.rename(tree.directory / "g")
    assert tree.passes(GETATTR, bytes(16), nodeid=ino)
    _made(file)
    assert tree.passes(GETATTR, bytes(16), nodeid=ino)


def test_lookups_that_are_given_back_are_noted(tree: Tree) -> None:
    tree.ends.ask(FORGET, next(NEXT), struct.pack("<Q", 3), nodeid=1)
    tree.ends.ask(BATCH_FORGET, next(NEXT), struct.pack("<IIQQQQ", 2, 0, 12, 1, 13, 2))
    tree.look(b"absent")  # these two were read before, each by some thread

    root = tree.root.stat().st_ino
    assert sorted(tree.facts()) == sorted((_core.FACT_FORGOTTEN, *rest) for rest in ((root, 3), (12, 1), (13, 2)))


def test_too_much_unlearned_makes_the_next_request_pythons(tree: Tree) -> None:
    _made(tree.directory / "f")
    for _ in range(300):  # more than the kernel ever gives back at once, so that 32,768 facts come quickly
        forgets = struct.pack("<QQ", 12, 1) * 120
        tree.ends.ask(BATCH_FORGET, next(NEXT), struct.pack("<II", 120, 0) + forgets)
    while tree.passes_or_answers(LOOKUP, b"f\0") == "answers":
        pass

    assert len(tree.facts()) >= 32_768
    assert tree.look(b"f")[0] != 0


# ---------------------------------------------------------------- listings


def listed(tree: Tree, size: int) -> list[tuple[bytes, int, int]]:
    """(name, nodeid, inode) of a whole listing in answers of at most ``size`` bytes."""
    (fh, _, _) = struct.unpack("<QIi", tree.ask(OPENDIR, bytes(8)))
    found: list[tuple[bytes, int, int]] = []
    offset = 0
    while True:
        body = struct.pack("<QQIIQII", fh, offset, size, 0, 0, 0, 0)
        entries = tree.ends.entries(tree.ask(READDIRPLUS, body))
        if not entries:
            break
        found += [(name, nodeid, ino) for name, nodeid, ino, _, _ in entries]
        offset = entries[-1][4]
    tree.ask(RELEASEDIR, struct.pack("<QIIQ", fh, 0, 0, 0))
    return found


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_a_listing_in_pieces_of_any_size_is_whole(tree: Tree, size: int) -> None:
    for number in range(300):
        _made(tree.directory / f"{number:0{1 + number % 200}}")

    found = listed(tree, size)

    names = [name for name, _, _ in found]
    assert names[-2:] == [b".", b".."]
    assert sorted(names[:-2]) == sorted(os.listdir(os.fsencode(tree.directory)))
    assert all(nodeid == ino == os.lstat(tree.directory / os.fsdecode(name)).st_ino for name, nodeid, ino in found[:-2])
    assert [nodeid for _, nodeid, _ in found[-2:]] == [0, 0]  # these two count no lookup
    kinds = [fact[0] for fact in tree.facts()]
    assert kinds == [_core.FACT_OPENED_DIRECTORY, *[_core.FACT_MET] * 300, _core.FACT_RELEASED_DIRECTORY]


def test_a_listing_stops_before_what_is_pythons_and_asks_for_it(tree: Tree) -> None:
    for number in range(20):
        _made(tree.directory / f"f{number}")
    (fh, _, _) = struct.unpack("<QIi", tree.ask(OPENDIR, bytes(8)))
    first = struct.pack("<QQIIQII", fh, 0, 65536, 0, 0, 0, 0)
    order = [name for name, *_ in tree.ends.entries(tree.ask(READDIRPLUS, first))][:-2]
    ours = order[7]

    tree.ends.channel.leave_to_python(os.lstat(tree.directory / os.fsdecode(ours)).st_ino, True)

    entries = tree.ends.entries(tree.ask(READDIRPLUS, first))
    assert [name for name, *_ in entries] == order[:7]
    assert tree.passes(READDIRPLUS, struct.pack("<QQIIQII", fh, entries[-1][4], 65536, 0, 0, 0, 0))
    os.close(fh)


# ---------------------------------------------------------------- files


def created(tree: Tree, name: bytes, *, flags: int = os.O_WRONLY, mode: int = 0o640, error: int = 0) -> bytes:
    return tree.ask(CREATE, struct.pack("<IIII", flags, mode, 0, 0) + name + b"\0", error=error)


def test_a_file_is_made_for_its_maker_and_python_learns_it(tree: Tree) -> None:
    answer = created(tree, b"new", mode=0o4755)

    made = tree.directory / "new"
    status = made.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (77, 88, 0o4755)
    nodeid, generation, attributes, _ = tree.ends.entry(answer)
    assert attributes == as_told(made)
    (fh, open_flags, backing_id) = struct.unpack("<QIi", answer[128:])
    assert (open_flags, backing_id) == (0, 0)  # no kernel is there to pass anything through
    assert os.path.samestat(os.fstat(fh), status)
    assert tree.facts() == [
        (_core.FACT_CREATED, tree.ino, b"new", nodeid, generation, status.st_mode, 1, fh, 77, os.O_WRONLY)
    ]
    os.close(fh)


def test_in_a_set_gid_directory_the_group_is_the_directorys(tree: Tree) -> None:
    os.chown(tree.directory, -1, 99)
    tree.directory.chmod(0o2775)

    os.close(struct.unpack("<QIi", created(tree, b"new")[128:])[0])

    status = (tree.directory / "new").stat()
    assert (status.st_uid, status.st_gid) == (77, 99)


def test_a_file_is_not_made_where_it_must_not_be_or_is_already(tree: Tree) -> None:
    body = struct.pack("<IIII", os.O_WRONLY, 0o644, 0, 0)
    _made(tree.directory / "there")
    assert tree.passes(CREATE, body + b"there\0")
    (tree.directory / "link").symlink_to("elsewhere")
    assert tree.passes(CREATE, body + b"link\0")
    tree.serve(is_writable=False)
    assert tree.passes(CREATE, body + b"new\0")
    assert tree.passes(CREATE, body + b"new\0", nodeid=1)

    assert sorted(os.listdir(tree.directory)) == ["link", "there"]
    assert tree.facts() == []


def test_a_file_is_removed_and_held_until_python_knows(tree: Tree) -> None:
    file = _made(tree.directory / "f")
    os.link(file, tree.directory / "g")
    ino = file.stat().st_ino

    for name, links in ((b"f", 2), (b"g", 1)):
        assert tree.ask(UNLINK, name + b"\0") == b""
        ((kind, *rest, held),) = tree.facts()
        assert (kind, *rest) == (_core.FACT_UNLINKED, tree.ino, name, ino, links)
        assert os.fstat(held).st_ino == ino  # type: ignore[call-overload]
        os.close(held)  # type: ignore[arg-type]
    assert os.listdir(tree.directory) == []


def test_what_is_not_removed_here_is_pythons(tree: Tree) -> None:
    (tree.directory / "d").mkdir()
    _made(tree.directory / "f")
    assert tree.passes(UNLINK, b"absent\0")
    assert tree.passes(UNLINK, b"d\0")
    assert tree.passes(UNLINK, b"f\0", nodeid=1)
    tree.serve(is_writable=False)
    assert tree.passes(UNLINK, b"f\0")

    assert sorted(os.listdir(tree.directory)) == ["d", "f"]
    assert tree.facts() == []


def test_closing_waits_for_nobody(tree: Tree) -> None:
    for opcode in (FLUSH, RELEASE, RELEASEDIR):
        assert tree.ask(opcode, struct.pack("<QIIQ", 0x5_0000_0007, 0, 0, 0)) == b""

    assert tree.facts() == [
        (_core.FACT_FLUSHED, 0x5_0000_0007),
        (_core.FACT_RELEASED, 0x5_0000_0007),
        (_core.FACT_RELEASED_DIRECTORY, 0x5_0000_0007),
    ]


def test_the_journal_wakes_its_reader_and_outlives_the_mount(tree: Tree) -> None:
    def is_readable() -> bool:
        try:
            os.eventfd_read(os.dup(tree.ends.channel.journal_fileno()))
        except BlockingIOError:
            return False
        return True

    assert not is_readable()
    tree.ask(FLUSH, struct.pack("<QIIQ", 7, 0, 0, 0))
    assert is_readable()
    tree.ends.channel.close()

    assert tree.facts() == [(_core.FACT_FLUSHED, 7)]


def test_the_whole_file_system_is_synced_on_demand(tree: Tree) -> None:
    assert tree.ask(SYNCFS, bytes(8), nodeid=1) == b""


# ---------------------------------------------------------------- ourselves


def test_a_daemon_that_touches_its_own_mount_is_refused(tree: Tree) -> None:
    there, done = threading.Event(), threading.Event()
    ids: list[int] = []

    def wait() -> None:
        ids.append(threading.get_native_id())
        there.set()
        done.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    there.wait()
    for pid in (os.getpid(), ids[0]):
        for opcode, body in ((LOOKUP, b"f\0"), (READ, bytes(40)), (OPENDIR, bytes(8))):
            assert tree.ask(opcode, body, error=errno.EDEADLK, pid=pid) == b""
        assert tree.ask(RELEASE, struct.pack("<QIIQ", 7, 0, 0, 0), pid=pid) == b""
    done.set()
    thread.join()
    assert tree.ends.channel.stats()["refused"] == 6


def test_a_page_that_an_application_wrote_is_brought_out_whoever_makes_room(tree: Tree) -> None:
    from_cache = struct.pack("<QQIIQII", 7, 0, 1, 1, 0, 0, 0) + b"x"
    sent = tree.ends.ask(WRITE, next(NEXT), from_cache, pid=os.getpid())

    assert tree.ends.libfuse.recv(1 << 20) == sent


def test_a_child_of_ours_is_somebody_else(tree: Tree) -> None:
    with subprocess.Popen([shutil.which("sleep") or "sleep", "60"]) as child:  # noqa: S603
        assert tree.ends.entry(tree.ask(LOOKUP, b"f\0", pid=child.pid))[0] == 0
        child.kill()


def test_where_no_birth_times_are_told_nothing_is_answered(tmp_path: Path) -> None:
    ends = Ends()
    fd = os.open("/proc", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="not supported"):
            ends.channel.answer_directly(fd, 0, HIDDEN)
        sent = ends.ask(LOOKUP, 2, b"f\0", nodeid=1)
        assert ends.libfuse.recv(1 << 20) == sent
        assert _core.birth_generation(fd, b"", os.fstat(fd).st_ino) == 0
    finally:
        os.close(fd)
        ends.close()
