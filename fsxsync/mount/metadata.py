"""Handlers for attributes, extended attributes, and the file system as a whole."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from pyfuse3 import (
    ENOATTR,
    EntryAttributes,
    FileHandleT,
    FileNameT,
    FUSEError,
    InodeT,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from fsxsync.crashpoint import durable
from fsxsync.model.flags import XATTRS
from fsxsync.model.stub import RESERVED_PREFIX
from fsxsync.mount.base import Base
from fsxsync.mount.descriptors import proc_path
from fsxsync.mount.nodes import Node
from fsxsync.mount.replies import replies
from fsxsync.mount.setid import may_pass, without_set_id

_USER = b"user."
_SECURITY = b"security."
_SELINUX = b"security.selinux"
"""ls -l asks this of each file, unless it is told that the file system knows no such thing."""

_STATVFS: tuple[
    Literal["f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail"], ...
]
_STATVFS = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail")


def _says_what_to_set(fields: SetattrFields) -> bool:
    """What is sent without any of them is about set-id bits alone (FUSE_HANDLE_KILLPRIV_V2)."""
    return any((fields.update_size, fields.update_mode, fields.update_atime, fields.update_mtime))


class Metadata(Base):
    """getattr, setattr, readlink; the user.* attributes; statfs."""

    @replies
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        node = self._nodes.named(inode)
        return self._attributes(self._status(node), node)

    @replies
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        with self._descriptors.pinned(self._nodes.named(inode)) as fd:
            return FileNameT(os.readlink(b"", dir_fd=fd))  # an empty name: the symlink behind the descriptor

    @replies
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        host = self._descriptors.statvfs()
        data = StatvfsData()
        for field in _STATVFS:
            setattr(data, field, getattr(host, field))
        data.f_namemax = host.f_namemax
        return data

    # ------------------------------------------------------------- setattr

    @replies
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        node = self._nodes.named(inode)
        self._writable_path(node)
        if fields.update_size:
            await self._set_size(node, attr.st_size, fh, ctx.uid)
        if fields.update_atime or fields.update_mtime:
            await self._waiting(self._hydrator.until_settled(node.ino))
        with self._any_descriptor(node) as fd:
            name = proc_path(fd)
            with durable("mount.metadata"):
                if fields.update_uid or fields.update_gid:
                    self._chown(name, attr, fields)
                elif not _says_what_to_set(fields):
                    self._chown_to_nobody(fd, ctx.uid)
                if fields.update_mode:
                    os.chmod(name, stat.S_IMODE(self._mode_to_set(node, fd, attr.st_mode)))
                if fields.update_atime or fields.update_mtime:
                    self._set_times(fd, node, attr, fields)
            status = os.fstat(fd)
        self._hydrator.changed(self._path(node))  # as it is now: cutting may have waited
        return self._attributes(status, node)

    async def _set_size(self, node: Node, size: int, fh: FileHandleT | None, uid: int) -> None:
        raise NotImplementedError  # content.py

    def _mode_to_set(self, node: Node, fd: int, mode: int) -> int:
        """Without set-id bits where somebody else than the owner may write by passthrough, which would not clear
        them (POSIX lets them be ignored)."""
        inode = self._handles.inode(node.ino)
        if inode is not None and inode.backing_id and not may_pass(stat.S_IFREG | mode):
            owners = {0, os.fstat(fd).st_uid}
            if any(handle.is_writer and handle.uid not in owners for handle in inode.handles):
                return without_set_id(mode)
        return mode

    def _chown(self, name: str, attr: EntryAttributes, fields: SetattrFields) -> None:
        """To another owner as root only; without privilege giving a file to its own owner is all that goes."""
        os.chown(name, attr.st_uid if fields.update_uid else -1, attr.st_gid if fields.update_gid else -1)

    @staticmethod
    def _chown_to_nobody(fd: int, uid: int) -> None:
        """chown(2) to -1, -1: it takes set-id bits away and moves the ctime. Or what the kernel sends before a write
        by somebody else, which will take them away itself; a stranger's chown(2) must not."""
        if uid in {0, os.fstat(fd).st_uid}:
            os.chown(proc_path(fd), -1, -1)

    def _set_times(self, fd: int, node: Node, attr: EntryAttributes, fields: SetattrFields) -> None:
        now = os.fstat(fd)
        inode = self._handles.inode(node.ino)
        loading = self._hydrator.retimed(
            node.ino,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        if inode is not None and inode.is_stub:
            if fields.update_mtime:
                inode.mtime_ns = attr.st_mtime_ns
            mtime_ns = inode.mtime_ns
        else:
            mtime_ns = attr.st_mtime_ns if fields.update_mtime else now.st_mtime_ns
        atime_ns = attr.st_atime_ns if fields.update_atime else now.st_atime_ns
        if loading is not None:  # what comes in moves them until then
            atime_ns, mtime_ns = loading
        os.utime(proc_path(fd), ns=(atime_ns, mtime_ns))

    @contextmanager
    def _any_descriptor(self, node: Node) -> Iterator[int]:
        """A descriptor on the inode, whatever it is good for: an open handle's, or one that only names it."""
        inode = self._handles.inode(node.ino)
        if inode is not None:
            yield next(iter(inode.handles)).fd
        else:
            with self._descriptors.pinned(node) as fd:
                yield fd

    # ------------------------------------------------------------- extended attributes

    @replies
    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        if not name.startswith(_USER):
            # The kernel asks for security.capability before every write; as in c_ext/channel_screen.c.
            known = name.startswith(_SECURITY) and name != _SELINUX
            raise FUSEError(ENOATTR if known else errno.EOPNOTSUPP)
        if name.startswith(RESERVED_PREFIX):
            node = self._nodes.named(inode)
            if name not in XATTRS:
                return self._told_by_sync(node, name)
        with self._any_descriptor(self._nodes.named(inode)) as fd:
            return os.getxattr(proc_path(fd), name)

    def _told_by_sync(self, node: Node, name: bytes) -> bytes:
        """An attribute that no file has, but that can be asked for by its name."""
        word = name.removeprefix(RESERVED_PREFIX).decode("ascii", "replace")
        told = self._hydrator.told(self._path(node), word) if self._nodes.path(node) is not None else None
        if told is None:
            raise FUSEError(ENOATTR)
        return told

    @replies
    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        path = self._checked(inode, name, ctx)
        with self._any_descriptor(self._nodes.named(inode)) as fd, durable("mount.metadata"):
            os.setxattr(proc_path(fd), name, b"1" if name in XATTRS else value)
        self._told_of(path, name)

    @replies
    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        path = self._checked(inode, name, ctx)
        with self._any_descriptor(self._nodes.named(inode)) as fd, durable("mount.metadata"):
            os.removexattr(proc_path(fd), name)
        self._told_of(path, name)

    def _told_of(self, path: bytes, name: bytes) -> None:
        if name in XATTRS:
            self._hydrator.flagged(path)
        else:
            self._hydrator.changed(path)

    def _checked(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """The path of an inode whose attribute may be changed. Raises FUSEError: EOPNOTSUPP, EPERM, EROFS."""
        if not name.startswith(_USER):
            raise FUSEError(errno.EOPNOTSUPP)
        if name in XATTRS:
            node = self._nodes.named(inode)
            if ctx.uid not in {0, self._status(node).st_uid}:
                raise FUSEError(errno.EPERM)  # who may write to a file does not say what becomes of it
            return self._writable_path(node)
        if name.startswith(RESERVED_PREFIX):
            raise FUSEError(errno.EPERM)  # a forged mark could make zeros of data (DESIGN §3.4)
        return self._writable_path(self._nodes.named(inode))

    @replies
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> list[XAttrNameT]:
        node = self._nodes.named(inode)
        if stat.S_ISLNK(node.kind):
            return []
        with self._any_descriptor(node) as fd:
            names = [os.fsencode(name) for name in os.listxattr(proc_path(fd))]
        return [XAttrNameT(name) for name in names if name.startswith(_USER) and not name.startswith(RESERVED_PREFIX)]
