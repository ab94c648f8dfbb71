"""Handlers that make, find, move and remove names."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence

from pyfuse3 import (
    EntryAttributes,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    RequestContext,
)

from fsxsync import _core
from fsxsync.crashpoint import durable
from fsxsync.mount.base import Base
from fsxsync.mount.descriptors import proc_path
from fsxsync.mount.nodes import Node
from fsxsync.mount.replies import replies

_RENAME_FLAGS = _core.RENAME_NOREPLACE | _core.RENAME_EXCHANGE


class Naming(Base):
    """lookup, forget; mkdir, mknod, symlink, link; unlink, rmdir; rename."""

    @replies
    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        parent = self._nodes.named(parent_inode)
        try:
            status = self._descriptors.look(parent, name)
        except OSError as error:
            if error.errno == errno.ESTALE and parent.parent is not None:
                # Most calls look again by themselves, but mkdir, symlink and link fail; the next one shall not.
                self._front.invalidate_entry(parent.parent.ino, parent.name)
            raise
        return self._entry(parent, name, status)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        self.catch_up()
        for nodeid, lookups in inode_list:
            self._forget(nodeid, lookups)

    def _forget(self, nodeid: int, lookups: int) -> None:
        gone = self._nodes.forget(nodeid, lookups)
        if gone is not None:
            self._descriptors.drop(gone)

    # ------------------------------------------------------------- making

    @replies
    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        with durable("mount.name"):
            os.mkdir(name, stat.S_IMODE(mode), dir_fd=self._descriptors.directory(parent))
        return self._made(parent, name, path, ctx, mode)

    @replies
    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        with durable("mount.name"):
            os.mknod(name, mode, rdev, dir_fd=self._descriptors.directory(parent))
        return self._made(parent, name, path, ctx, mode)

    @replies
    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        with durable("mount.name"):
            os.symlink(target, name, dir_fd=self._descriptors.directory(parent))
        return self._made(parent, name, path, ctx, stat.S_IFLNK)

    def _made(self, parent: Node, name: bytes, path: bytes, ctx: RequestContext, mode: int) -> EntryAttributes:
        parent_fd = self._descriptors.directory(parent)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            self._give_to(ctx, parent_fd, fd, mode)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        self._hydrator.changed(path)
        return self._entry(parent, name, status)

    @replies
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        node = self._nodes.named(inode)
        parent = self._nodes.named(new_parent_inode)
        path = self._writable_path_in(parent, new_name)
        old = self._writable_path(node)
        if not self._hydrator.may_rename(old, path):
            raise FUSEError(errno.EXDEV)
        with self._descriptors.pinned(node) as fd:
            # linkat(2) on a descriptor's name in /proc links the inode behind it, whatever its name became.
            with durable("mount.name"):
                os.link(proc_path(fd), new_name, dst_dir_fd=self._descriptors.directory(parent), follow_symlinks=True)
            status = os.fstat(fd)
        self._hydrator.changed(path)
        self._hydrator.changed(old)
        return self._entry(parent, new_name, status)

    # ------------------------------------------------------------- removing

    @replies
    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        status = self._about_to_go(parent, name)
        with durable("mount.name"):
            os.unlink(name, dir_fd=self._descriptors.directory(parent))
        self._removed(parent, name, path, status.st_ino)

    @replies
    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        if self._hydrator.is_association_root(path):
            raise FUSEError(errno.EBUSY)
        status = self._about_to_go(parent, name)
        with durable("mount.name"):
            os.rmdir(name, dir_fd=self._descriptors.directory(parent))
        self._removed(parent, name, path, status.st_ino)

    def _about_to_go(self, parent: Node, name: bytes) -> os.stat_result:
        """Look at a name that will be removed, and hold its inode if this is its last: an application may have it
        though we have no handle (a FIFO, an O_PATH descriptor, a working directory), until the kernel forgets it.
        Else the host would give its number to a new file, which the kernel would take for this one."""
        status = self._descriptors.look(parent, name)
        node = self._nodes.find(status.st_ino)
        is_last = status.st_nlink == 1 or stat.S_ISDIR(status.st_mode)
        if node is not None and is_last and self._handles.inode(status.st_ino) is None:
            self._descriptors.keep(node, parent, name)
        return status

    def _removed(self, parent: Node, name: bytes, path: bytes, ino: int) -> None:
        self._lost_name(parent, name, path, ino)
        self._hydrator.changed(path)

    def _lost_name(self, parent: Node, name: bytes, path: bytes, ino: int) -> None:
        """An inode does not have that name any more; open handles keep it, as on any file system."""
        node = self._nodes.find(ino)
        if node is None:
            return
        self._nodes.unlink(node, parent, name)
        opened = self._handles.inode(ino)
        if opened is not None:
            opened.last_path = path

    # ------------------------------------------------------------- moving

    @replies
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        if flags & ~_RENAME_FLAGS:
            raise FUSEError(errno.EINVAL)
        old = self._nodes.named(parent_inode_old), name_old
        new = self._nodes.named(parent_inode_new), name_new
        old_path, new_path = self._writable_path_in(*old), self._writable_path_in(*new)
        moved = self._descriptors.look(*old)
        replaced = self._replaced(*new)
        if self._hydrator.is_association_root(old_path) or (
            replaced is not None and self._hydrator.is_association_root(new_path)
        ):
            raise FUSEError(errno.EBUSY)  # before EXDEV, to which mv(1) answers with copies and deletes
        if not self._hydrator.may_rename(old_path, new_path):
            raise FUSEError(errno.EXDEV)
        old_fd = self._descriptors.directory(old[0])
        with durable("mount.name"):
            _core.renameat2(old_fd, name_old, self._descriptors.directory(new[0]), name_new, flags)
        exchanged = bool(flags & _core.RENAME_EXCHANGE)
        self._relink(old, new, moved.st_ino, replaced, new_path, exchanged=exchanged)
        self._hydrator.renamed(old_path, new_path, exchanged=exchanged)

    def _replaced(self, parent: Node, name: bytes) -> os.stat_result | None:
        try:
            return self._about_to_go(parent, name)
        except FileNotFoundError:
            return None

    def _relink(
        self,
        old: tuple[Node, bytes],
        new: tuple[Node, bytes],
        moved_ino: int,
        replaced: os.stat_result | None,
        new_path: bytes,
        *,
        exchanged: bool,
    ) -> None:
        if replaced is not None and exchanged:
            other = self._nodes.find(replaced.st_ino)
            if other is not None:
                self._nodes.move(other, new, old)
        elif replaced is not None:
            self._lost_name(*new, new_path, replaced.st_ino)
        node = self._nodes.find(moved_ino)
        if node is not None:
            self._nodes.move(node, old, new)
        with contextlib.suppress(OSError):  # it is renamed, whoever moved it on behind the mount
            self._direct.present(new[0].ino, self._descriptors.directory(new[0]), new[1], moved_ino)
            if replaced is not None and exchanged:
                self._direct.present(old[0].ino, self._descriptors.directory(old[0]), old[1], replaced.st_ino)
