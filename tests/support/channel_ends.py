"""Both ends of a channel, with sockets in the places of the kernel and of libfuse, and what answers mean."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from fsxsync import _core

XATTR = b"user.stub"
LOOKUP, FORGET, GETATTR, UNLINK, OPEN, READ, WRITE, RELEASE = 1, 2, 3, 10, 14, 15, 16, 18
GETXATTR, FLUSH, INIT = 22, 25, 26
OPENDIR, RELEASEDIR, CREATE, BATCH_FORGET, READDIRPLUS, SYNCFS = 27, 29, 35, 42, 44, 50
INTERRUPT = 36
FALLOCATE, LSEEK, COPY, COPY_64 = 43, 46, 47, 53

_ENTRY_SIZE = 128
_DIRENT = struct.Struct("<QQII")


@dataclass(frozen=True, slots=True)
class Attributes:
    """A ``fuse_attr``."""

    ino: int
    size: int
    blocks: int
    mode: int
    nlink: int
    uid: int
    gid: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int


def _attributes(packed: bytes) -> Attributes:
    ino, size, blocks, atime, mtime, ctime, a_ns, m_ns, c_ns, mode, nlink, uid, gid = struct.unpack_from(
        "<QQQqqqIIIIIII", packed
    )
    times = (atime * 10**9 + a_ns, mtime * 10**9 + m_ns, ctime * 10**9 + c_ns)
    return Attributes(ino, size, blocks, mode, nlink, uid, gid, *times)


class Ends:
    """``kernel`` speaks as /dev/fuse would, ``libfuse`` is its session."""

    def __init__(self) -> None:
        self.kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel = _core.Channel(device.detach(), XATTR)
        self.libfuse = socket.socket(fileno=self.channel.session)
        for end in (self.kernel, self.libfuse):
            end.settimeout(20)

    def close(self) -> None:
        self.channel.close()
        self.kernel.close()
        self.libfuse.close()

    def ask(
        self, opcode: int, unique: int, body: bytes, *, uid: int = 0, gid: int = 0, nodeid: int = 7, pid: int = 1
    ) -> bytes:
        request = struct.pack("<IIQQIIII", 40 + len(body), opcode, unique, nodeid, uid, gid, pid, 0) + body
        self.kernel.send(request)
        return request

    def exchange(self, opcode: int, unique: int, answer: bytes, *, body: bytes = b"", error: int = 0) -> bytes:
        """What the kernel gets for what libfuse answered, without the header."""
        request = self.ask(opcode, unique, body)
        assert self.libfuse.recv(1 << 20) == request
        self.libfuse.send(struct.pack("<IiQ", 16 + len(answer), -error, unique) + answer)
        return self.answer(unique, error)

    def answer(self, unique: int, error: int = 0) -> bytes:
        got = self.kernel.recv(1 << 20)
        assert struct.unpack_from("<IiQ", got) == (len(got), -error, unique)
        return got[16:]

    @staticmethod
    def entry(answer: bytes) -> tuple[int, int, Attributes, tuple[int, int]]:
        """(nodeid, generation, attributes, (entry, attribute) seconds) of a ``fuse_entry_out``."""
        nodeid, generation, entry_s, attr_s = struct.unpack_from("<QQQQ", answer)
        return nodeid, generation, _attributes(answer[40:]), (entry_s, attr_s)

    @staticmethod
    def attributes(answer: bytes) -> Attributes:
        """Of a ``fuse_attr_out``."""
        return _attributes(answer[16:])

    @staticmethod
    def entries(answer: bytes) -> list[tuple[bytes, int, int, int, int]]:
        """(name, nodeid, inode, type, offset of the next) of each ``fuse_direntplus``."""
        found = []
        while answer:
            (nodeid,) = struct.unpack_from("<Q", answer)
            ino, offset, length, kind = _DIRENT.unpack_from(answer, _ENTRY_SIZE)
            start = _ENTRY_SIZE + _DIRENT.size
            found.append((answer[start : start + length], nodeid, ino, kind, offset))
            answer = answer[(start + length + 7) // 8 * 8 :]
        return found
