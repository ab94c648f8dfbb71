"""mkfifo(2), mknod(2), sockets; and what is no part of POSIX, but that programs ask a file system for."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import stat
import struct

from posix_suite.identities import ROOT, STRANGER, Identity
from posix_suite.observing import directory, in_a_child, in_c, kind_of, mode_of, outcome, owner_of, touch
from posix_suite.registry import UNSAID, Observed, case

# ---------------------------------------------------------------- mkfifo, mknod


@case(["EEXIST", "EEXIST", "EEXIST", "ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def mkfifo_that_can_not_be_made(me: Identity) -> Observed:
    touch("f")
    os.mkdir("d")
    os.symlink("loop", "loop")
    wrong = ("f", "d", "loop", "missing/x", "", "f/x", "loop/x", "n" * 256)
    return [outcome(os.mkfifo, name) for name in wrong]


@case(["p", "0640", True])
def mkfifo_of_a_mode_less_the_umask(me: Identity) -> Observed:
    os.umask(0o27)
    os.mkfifo("fifo", 0o666)
    return [kind_of("fifo"), mode_of("fifo"), owner_of("fifo") == (me.uid, me.gid)]


@case(root=["ok"] * 2, user=["EACCES"] * 2)
def mkfifo_without_permission_in_the_directory(me: Identity) -> Observed:
    directory("read", 0o500)
    directory("write", 0o600)
    return [outcome(os.mkfifo, "read/fifo"), outcome(os.mkfifo, "write/fifo")]


@case(["ok", "-", "ok", "s", "EPERM", "EINVAL"])
def mknod_of_files_sockets_and_directories(me: Identity) -> Observed:
    seen = [outcome(os.mknod, "f", stat.S_IFREG | 0o600), kind_of("f")]
    seen += [outcome(os.mknod, "s", stat.S_IFSOCK | 0o600), kind_of("s")]
    return [*seen, outcome(os.mknod, "d", stat.S_IFDIR | 0o600), outcome(os.mknod, "l", stat.S_IFLNK | 0o600)]


@case(root=["ok", "c", [1, 3], "ok", "b", [7, 9]], user=["EPERM", "", None, "EPERM", "", None])
def mknod_of_devices(me: Identity) -> Observed:
    seen: list[object] = []
    for name, kind, number in (("c", stat.S_IFCHR, (1, 3)), ("b", stat.S_IFBLK, (7, 9))):
        made = outcome(os.mknod, name, kind | 0o600, os.makedev(*number))
        rdev = os.lstat(name).st_rdev if made == "ok" else None
        seen += [made, kind_of(name), None if rdev is None else [os.major(rdev), os.minor(rdev)]]
    return seen


@case(["through", ["EPIPE", "EAGAIN"]])
def a_fifo_joins_two_processes(me: Identity) -> Observed:
    os.mkfifo("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    in_a_child(lambda: os.write(os.open("fifo", os.O_WRONLY), b"through"))
    seen: list[object] = [os.read(reader, 99).decode()]
    writer = os.open("fifo", os.O_WRONLY)
    empty = outcome(os.read, reader, 1)
    os.close(reader)
    broken = outcome(os.write, writer, b"x")
    os.close(writer)
    return [*seen, [broken, empty]]


@case(["still joined", "ENOENT"])
def a_fifo_works_after_its_name_is_gone(me: Identity) -> Observed:
    os.mkfifo("fifo")
    fd = os.open("fifo", os.O_RDWR)
    try:
        os.unlink("fifo")
        os.write(fd, b"still joined")
        return [os.read(fd, 99).decode(), outcome(os.stat, "fifo")]
    finally:
        os.close(fd)


@case(["EADDRINUSE", "hello", "ECONNREFUSED", "ENOENT"])
def a_socket_is_found_by_its_name(me: Identity) -> Observed:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind("socket")
        listening.listen()
        with socket.socket(socket.AF_UNIX) as second:
            taken = outcome(second.bind, "socket")
        os.rename("socket", "moved")
        client.connect("moved")
        accepted, _ = listening.accept()
        with accepted:
            client.send(b"hello")
            got = accepted.recv(9).decode()
    with socket.socket(socket.AF_UNIX) as late:
        refused = outcome(late.connect, "moved")
        os.unlink("moved")
        return [taken, got, refused, outcome(late.connect, "moved")]


@case(["0755", "EACCES", "ok"])
def a_socket_is_guarded_by_its_mode(me: Identity) -> Observed:
    os.umask(0o22)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        listening.listen()
        seen = [mode_of("socket")]
        for mode in (0o644, 0o666):
            os.chmod("socket", mode)
            with STRANGER.acting(), socket.socket(socket.AF_UNIX) as client:
                seen.append(outcome(client.connect, "socket"))
        return seen


@case(UNSAID)
def fsync_of_each_kind(me: Identity) -> Observed:
    os.mkfifo("fifo")
    fd = os.open("fifo", os.O_RDWR)
    try:
        return [outcome(os.fsync, fd), outcome(os.ftruncate, fd, 0), outcome(os.lseek, fd, 0, os.SEEK_SET)]
    finally:
        os.close(fd)


# ---------------------------------------------------------------- statvfs and limits


@case(UNSAID)
def statvfs_is_the_hosts(me: Identity) -> Observed:
    os.mkdir("d")
    of_path = os.statvfs("d")
    fields = ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax")
    return [getattr(of_path, field) for field in fields]


@case(["ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def statvfs_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    return [outcome(os.statvfs, name) for name in ("missing", "f/x", "loop", "n" * 256)]


@case([255, 4096, 4096, 1, 1])
def pathconf_of_the_limits_of_names(me: Identity) -> Observed:
    names = ("PC_NAME_MAX", "PC_PATH_MAX", "PC_PIPE_BUF", "PC_NO_TRUNC", "PC_CHOWN_RESTRICTED")
    return [os.pathconf(".", name) for name in names]


@case(UNSAID)
def pathconf_of_what_libc_knows_by_the_type(me: Identity) -> Observed:
    touch("f")
    return [os.pathconf("f", name) for name in ("PC_LINK_MAX", "PC_SYMLINK_MAX")]


# ---------------------------------------------------------------- beyond POSIX

FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_NODUMP_FL = 0x40
F_SETLEASE, F_GETLEASE = 1024, 1025


@case(["ok", "ok"])
def inode_flags_as_chattr_sets_them(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDONLY)
    try:
        return [
            outcome(fcntl.ioctl, fd, FS_IOC_GETFLAGS, bytes(8)),
            outcome(fcntl.ioctl, fd, FS_IOC_SETFLAGS, struct.pack("l", FS_NODUMP_FL)),
        ]
    finally:
        os.close(fd)


FS_IOC_FIEMAP = 0xC020660B


@case("ok")
def the_map_of_a_files_extents(me: Identity) -> Observed:
    touch("f", content=bytes(8192))
    with open("f", "rb") as file:
        return outcome(fcntl.ioctl, file, FS_IOC_FIEMAP, struct.pack("QQIIII", 0, 1 << 32, 0, 0, 0, 0))


@case(["CREATE f", "MODIFY f", "CLOSE f", "ATTRIB f", "FROM f", "TO g", "MODIFY g", "DELETE g"])
def inotify_tells_what_happens(me: Identity) -> Observed:
    words = {0x2: "MODIFY", 0x4: "ATTRIB", 0x8: "CLOSE", 0x40: "FROM", 0x80: "TO", 0x100: "CREATE", 0x200: "DELETE"}
    watcher = in_c("inotify_init1", os.O_NONBLOCK)
    in_c("inotify_add_watch", watcher, b".", sum(words))
    fd = os.open("f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    os.close(fd)
    os.chmod("f", 0o600)
    os.rename("f", "g")
    os.truncate("g", 0)
    os.unlink("g")
    told, seen = os.read(watcher, 65536), []
    os.close(watcher)
    while told:
        _, mask, _, length = struct.unpack_from("iIII", told)
        seen.append(f"{words[mask]} {told[16 : 16 + length].rstrip(bytes(1)).decode()}")
        told = told[16 + length :]
    return seen


STATX_BTIME = 0x800


@case(True)
def statx_tells_the_time_of_birth(me: Identity) -> Observed:
    touch("f")
    answer = ctypes.create_string_buffer(256)
    in_c("statx", -100, b"f", 0, STATX_BTIME, answer)
    (mask,) = struct.unpack_from("I", answer)
    return bool(mask & STATX_BTIME)


@case(["ok", "ok", "ok"])
def leases_of_files_that_nobody_else_has_open(me: Identity) -> Observed:
    touch("f")
    fd = os.open("f", os.O_RDONLY)
    try:
        return [outcome(fcntl.fcntl, fd, F_SETLEASE, kind) for kind in (fcntl.F_RDLCK, fcntl.F_UNLCK)] + [
            outcome(fcntl.fcntl, fd, F_GETLEASE)
        ]
    finally:
        os.close(fd)


@case(UNSAID)
def a_file_handle_opens_its_file(me: Identity) -> Observed:
    touch("f")
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128), 136)
    mount_id = ctypes.c_int()
    named = outcome(in_c, "name_to_handle_at", -100, b"f", handle, ctypes.byref(mount_id), 0)
    with ROOT.acting():
        where = os.open(".", os.O_RDONLY)
        try:
            fd = in_c("open_by_handle_at", where, handle, os.O_RDONLY) if named == "ok" else -1
        finally:
            os.close(where)
    same = fd >= 0 and os.fstat(fd).st_ino == os.stat("f").st_ino
    if fd >= 0:
        os.close(fd)
    return [named, same]
