"""mkdir(2), and reading directories."""

from __future__ import annotations

import ctypes
import os
import stat

from posix_suite.identities import Identity
from posix_suite.observing import directory, kind_of, links_of, mode_of, moved, names, outcome, owner_of, touch
from posix_suite.registry import UNSAID, Observed, case

# ---------------------------------------------------------------- mkdir


@case(["EEXIST"] * 7)
def mkdir_over_what_is_there(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("missing", "dangling")
    os.mkfifo("fifo")
    return [outcome(os.mkdir, name) for name in ("f", "d", "dangling", "fifo", ".", "..", "d/")]


@case(["ENOENT", "ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ok"])
def mkdir_that_can_not_be_made(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    wrong = ("missing/d", "", "missing/.", "f/d", "loop/d", "n" * 256, "n" * 255 + "/")
    return [outcome(os.mkdir, name) for name in wrong]


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def mkdir_without_permission_in_the_parent(me: Identity) -> Observed:
    directory("read", 0o500)
    directory("write", 0o600)
    return [outcome(os.mkdir, "read/d"), outcome(os.mkdir, "write/d")]


@case(["0755", "0700", "1777", "0000", "1755"])
def mkdir_of_each_mode_less_the_umask(me: Identity) -> Observed:
    seen = []
    for umask, mode in ((0o22, 0o777), (0o77, 0o777), (0, 0o1777), (0o777, 0o777), (0o22, 0o7755)):
        os.umask(umask)
        name = f"{umask}-{mode}"
        os.mkdir(name, mode)
        seen.append(mode_of(name))
    return seen


@case(["d", 2, True])
def mkdir_makes_an_empty_directory_of_its_maker(me: Identity) -> Observed:
    os.mkdir("d")
    return [kind_of("d"), links_of("d"), owner_of("d") == (me.uid, me.gid)]


@case({".": "mc"})
def mkdir_moves_times_of_the_parent(me: Identity) -> Observed:
    return moved(lambda: os.mkdir("d"), ".")


@case({".": "", "d": ""})
def a_failed_mkdir_moves_nothing(me: Identity) -> Observed:
    os.mkdir("d")
    return moved(lambda: outcome(os.mkdir, "d"), ".", "d")


# ---------------------------------------------------------------- reading


class _Entry(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_ushort),
        ("d_type", ctypes.c_ubyte),
        ("d_name", ctypes.c_char * 256),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir64.restype = ctypes.POINTER(_Entry)
_libc.telldir.restype = ctypes.c_long
for _function in ("readdir64", "telldir", "rewinddir", "closedir"):
    getattr(_libc, _function).argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Stream:
    """A DIR*."""

    def __init__(self, path: str) -> None:
        self._stream = _libc.opendir(path.encode())
        assert self._stream, path

    def next(self) -> _Entry | None:
        found = _libc.readdir64(self._stream)
        return found.contents if found else None

    def rest(self) -> list[str]:
        read: list[str] = []
        while (entry := self.next()) is not None:
            read.append(entry.d_name.decode())
        return read

    def tell(self) -> int:
        told: int = _libc.telldir(self._stream)
        return told

    def seek(self, position: int) -> None:
        _libc.seekdir(self._stream, position)

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        _libc.closedir(self._stream)


@case([[".", "..", "d", "f"], [True] * 4, [True] * 4])
def readdir_tells_dots_numbers_and_types(me: Identity) -> Observed:
    os.makedirs("p/d")
    touch("p/f")
    stream, seen = Stream("p"), []
    while (entry := stream.next()) is not None:
        status = os.lstat(f"p/{entry.d_name.decode()}")
        seen.append(
            (entry.d_name.decode(), entry.d_ino == status.st_ino, entry.d_type == stat.S_IFMT(status.st_mode) >> 12)
        )
    stream.close()
    return list(map(list, zip(*sorted(seen), strict=True)))


@case([302, True, True])
def seekdir_goes_back_to_each_place(me: Identity) -> Observed:
    os.mkdir("d")
    for number in range(300):
        touch(f"d/{number}")
    stream = Stream("d")
    places, read = [], []
    while True:
        places.append(stream.tell())
        entry = stream.next()
        if entry is None:
            break
        read.append(entry.d_name)
    again = []
    for place in reversed(places[:-1]):
        stream.seek(place)
        entry = stream.next()
        assert entry is not None
        again.append(entry.d_name)
    stream.seek(places[-1])
    at_the_end = stream.next() is None
    stream.close()
    return [len(read), again == read[::-1], at_the_end]


@case([True, ["b"]])
def rewinddir_sees_what_is_there_now(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/a")
    stream = Stream("d")
    first = sorted(stream.rest()) == [".", "..", "a"]
    os.rename("d/a", "d/b")
    stream.rewind()
    seen = [first, [name for name in stream.rest() if not name.startswith(".")]]
    stream.close()
    return seen


@case([600, 600, 0])
def a_large_directory_is_listed_and_removed_while_it_is(me: Identity) -> Observed:
    os.mkdir("d")
    for number in range(600):
        os.close(os.open(f"d/name-of-some-length-{number}", os.O_WRONLY | os.O_CREAT))
    seen = [len(os.listdir("d"))]
    removed = 0
    with os.scandir("d") as entries:
        for entry in entries:
            os.unlink(entry)
            removed += 1
    return [*seen, removed, len(os.listdir("d"))]


@case([True, True, True, ["f"]])
def dot_and_dot_dot_lead_where_they_should(me: Identity) -> Observed:
    os.makedirs("a/b")
    touch("f")
    return [
        os.path.samefile("a/b/../..", "."),
        os.path.samefile("a/./b/.", "a/b"),
        os.path.samefile("a/b/..", "a"),
        [name for name in names("a/..") if name == "f"],
    ]


@case(["ok", "ok", "EISDIR", "EBADF", "EINVAL"])
def a_descriptor_of_a_directory(me: Identity) -> Observed:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [
            outcome(os.fsync, fd),
            outcome(os.fchmod, fd, 0o755),
            outcome(os.read, fd, 1),
            outcome(os.write, fd, b"x"),
            outcome(os.ftruncate, fd, 0),
        ]
    finally:
        os.close(fd)


@case(["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ok"])
def listing_of_what_is_no_directory(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("loop", "loop")
    os.symlink("d", "link")
    return [outcome(os.listdir, name) for name in ("missing", "f", "loop", "n" * 256, "link")]


@case(root=["ok"] * 8, user=["EACCES"] * 4 + ["ok"] * 4)
def listing_of_a_directory_of_each_mode(me: Identity) -> Observed:
    seen = []
    for bits in range(8):
        os.mkdir(f"{bits}")
        touch(f"{bits}/f")
        os.chmod(f"{bits}", bits << 6)
        seen.append(outcome(os.listdir, f"{bits}"))
        os.chmod(f"{bits}", 0o700)
    return seen


@case(root=["ok"] * 3, user=["ok", "EACCES", "EACCES"])
def chdir_needs_search(me: Identity) -> Observed:
    up = os.open(".", os.O_RDONLY)
    try:
        seen = []
        for name, mode in (("search", 0o100), ("read", 0o600), ("none", 0o000)):
            directory(name, mode)
            seen.append(outcome(os.chdir, name))
            os.fchdir(up)
        return seen
    finally:
        os.close(up)


@case({"d": "a"})
def a_listing_moves_the_atime(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/f")
    return moved(lambda: os.listdir("d"), "d")


@case({"d": ""})
def a_look_at_a_directory_moves_nothing(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/f")
    return moved(lambda: (os.stat("d"), os.stat("d/f"), os.access("d", os.R_OK)), "d")


@case(UNSAID)
def the_size_of_an_empty_directory(me: Identity) -> Observed:
    os.mkdir("d")
    status = os.stat("d")
    return [status.st_size, status.st_blocks, status.st_blksize]
