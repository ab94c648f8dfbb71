"""Handlers for the bytes of files: open, read, write, and cutting to a size.

Before a reader gets bytes of a stub they are asked for; before the first writer is let in the file is made an
ordinary one. Both wait for the network, so both can be cancelled and neither holds a lock of another inode.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    RequestContext,
)

from fsxsync.crashpoint import durable
from fsxsync.mount import setid
from fsxsync.mount.base import Base, Served
from fsxsync.mount.descriptors import proc_path
from fsxsync.mount.handles import Handle
from fsxsync.mount.mappings import Mappings
from fsxsync.mount.nodes import Node
from fsxsync.mount.replies import replies

WRITTEN_INLINE = 64 * 1024
"""Copying this much into the page cache takes less time than handing it to a thread. More may have to wait until the
host has written older pages, and everybody with it."""

# The kernel sends every offset itself and has resolved the name: what would act on these again is left out.
# O_NONBLOCK: a file whose lease is being broken must not stop the thread that serves everybody.
_KEPT_FLAGS = os.O_ACCMODE | os.O_NOATIME
_OPEN = os.O_NONBLOCK | os.O_NOCTTY


class Content(Base):
    """open, create, read, write, flush, fsync, release."""

    def __init__(self, served: Served) -> None:
        super().__init__(served)
        self._mappings = Mappings(self._closed)

    async def watch_mappings(self) -> None:
        """Runs as long as the mount does."""
        await self._mappings.run()

    # ------------------------------------------------------------- opening

    @replies
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        node = self._nodes.named(inode)
        truncates = bool(flags & os.O_TRUNC)
        writes = truncates or flags & os.O_ACCMODE != os.O_RDONLY
        if writes:
            self._writable_path(node)
        async with self._opening(node, flags, ctx.uid) as handle:
            if writes:
                await self._let_writer_in(handle, empties=truncates)
            elif not self._find_out(handle):
                self.measuring.resident_opens += 1
            else:
                self.measuring.released_opens += 1
                await self._waiting(self._hydrator.open_for_read(self._path(node), handle.fd))
                if handle.inode.is_stub and not self._hydrator.is_stub(handle.fd):
                    self._is_resident(handle)
            if truncates:
                self._bytes_change(node, handle.fd, ctx.uid)
                self._hydrator.changed(self._path(node))
            return self._opened(handle, flags)

    @asynccontextmanager
    async def _opening(self, node: Node, flags: int, uid: int) -> AsyncIterator[Handle]:
        """A handle that counts as open from the first moment on; closed again if opening fails in the block."""
        handle = self._handles.open(node, await self._open_host(node, flags), uid)
        try:
            yield handle
        except BaseException:
            self._handles.close(handle)
            raise

    async def _open_host(self, node: Node, flags: int) -> int:
        kept = flags & _KEPT_FLAGS
        if flags & os.O_TRUNC and kept & os.O_ACCMODE == os.O_RDONLY:
            kept |= os.O_RDWR  # open(2) allows it, and somebody has to cut the file
        inode = self._handles.inode(node.ino)
        if inode is not None and self._nodes.path(node) is None:
            # Without a name it can still be opened again: through /proc/self/fd of somebody who has it open.
            return os.open(proc_path(next(iter(inode.handles)).fd), kept | os.O_CLOEXEC)
        try:
            return self._descriptors.open(node, kept | _OPEN)
        except BlockingIOError:  # a lease: our own releaser is just making up its mind
            with self._descriptors.pinned(node) as fd:
                return await trio.to_thread.run_sync(os.open, proc_path(fd), kept | os.O_CLOEXEC, limiter=self._disk)

    def _find_out(self, handle: Handle) -> bool:
        """Whether the inode is a stub. Asked at each open: released files become stubs when nobody has them open."""
        inode = handle.inode
        if not inode.is_stub and self._hydrator.is_stub(handle.fd):
            inode.is_stub = inode.is_ours = True
            self._direct.leave_to_us(inode.node.ino, is_ours=True)
            status = os.fstat(handle.fd)
            inode.mtime_ns, inode.ctime_ns = status.st_mtime_ns, status.st_ctime_ns
        return inode.is_stub

    async def _let_writer_in(self, handle: Handle, *, empties: bool) -> None:
        """Make the file one that may be written. Asked of each first writer, marked or not: a file whose last bytes
        just came may have lost its mark and not be settled yet."""
        inode = handle.inode
        async with inode.turn:
            self._find_out(handle)
            path = self._path(inode.node)
            if empties:
                await self._waiting(self._hydrator.discard(path, handle.fd))
            elif inode.writers == 0:
                await self._waiting(self._hydrator.make_resident(path, handle.fd))
            inode.is_stub = False
            # No await since: the file is settled, and the writer counts before anyone looks.
            self._count_writer(handle)

    def _count_writer(self, handle: Handle) -> None:
        handle.is_writer = True
        handle.inode.writers += 1
        node = handle.inode.node
        self._hydrator.writer_opened(self._path(node), node.ino)

    def _opened(self, handle: Handle, flags: int) -> FileInfo:
        """Hand the handle to the kernel. Its pages of the file stay if they still are the file's."""
        status = os.fstat(handle.fd)
        inode, node = handle.inode, handle.inode.node
        if inode.backing_id is None:
            # What is being loaded has to come through us, until everybody has closed it.
            may_pass = not inode.is_stub and setid.may_pass(status.st_mode)
            if handle.is_writer and self._hydrator.is_tight():
                may_pass = False  # nobody can help a write that does not come by
            inode.backing_id = self._direct.join(
                node.ino, handle.fd, may_pass=may_pass, is_for_reading=not handle.is_writer
            )
        handle.told = (status.st_ctime_ns, status.st_size)
        if inode.backing_id:
            if handle.is_writer:
                if not setid.may_pass(status.st_mode) and handle.uid != status.st_uid:
                    # Somebody who reads it had it opened so before it got these bits, and nobody sees what this one
                    # will write.
                    self._bytes_change(node, handle.fd, handle.uid)
                if inode.writers == 1:
                    self._direct.forget_attributes(self._nodes.nodeid(node.ino))  # now they hold for a moment only
                node.cached = None
                inode.may_be_mapped |= flags & os.O_ACCMODE == os.O_RDWR
            return FileInfo(fh=self._handles.give(handle), keep_cache=False)
        seen = (inode.mtime_ns if inode.is_stub else status.st_mtime_ns, status.st_size)
        same = node.cached == seen
        node.cached = seen
        return FileInfo(fh=self._handles.give(handle), keep_cache=same)

    @replies
    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        parent = self._nodes.named(parent_inode)
        path = self._writable_path_in(parent, name)
        parent_fd = self._descriptors.directory(parent)
        try:
            with durable("mount.name"):
                fd = os.open(
                    name,
                    flags & _KEPT_FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    mode & 0o7777,
                    dir_fd=parent_fd,
                )
        except FileExistsError:
            # It came behind the mount after the kernel had looked. ESTALE makes the kernel look again, and then open
            # it with its own check of the mode, or say EEXIST.
            raise FUSEError(errno.ESTALE) from None
        try:
            self._give_to(ctx, parent_fd, fd, mode)
            entry = self._entry(parent, name, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        node = self._nodes.named(entry.st_ino)
        handle = self._handles.open(node, fd, ctx.uid)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._count_writer(handle)
        self._hydrator.changed(path)
        opened = self._opened(handle, flags)
        if handle.inode.backing_id and handle.is_writer:
            entry.attr_timeout = 0  # see _attributes, which knew of no handle yet
        return opened, entry

    # ------------------------------------------------------------- bytes

    @replies
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes | memoryview:
        handle = self._handles.file(fh)
        if handle.inode.is_stub:
            await self._ensure(handle, off, size)
        buffer = bytearray(size)
        try:
            got = os.preadv(handle.fd, [buffer], off, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EOPNOTSUPP}:
                raise
            got = 0
        if got < size and off + got < os.fstat(handle.fd).st_size:
            return await trio.to_thread.run_sync(os.pread, handle.fd, size, off, limiter=self._disk)
        return memoryview(buffer)[:got]

    async def _ensure(self, handle: Handle, off: int, size: int) -> None:
        inode = handle.inode
        inode.waiting += 1
        try:
            path = self._path(inode.node)
            if not await self._waiting(self._hydrator.ensure(path, handle.fd, off, size)) and inode.is_stub:
                self._is_resident(handle)
        finally:
            inode.waiting -= 1
            if inode.waiting == 0 and inode.idle is not None:
                inode.idle.set()
                inode.idle = None

    @staticmethod
    def _is_resident(handle: Handle) -> None:
        handle.inode.is_stub = False
        handle.inode.settled_ctime_ns = os.fstat(handle.fd).st_ctime_ns

    @replies
    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        handle = self._handles.file(fh)
        if self._hydrator.is_tight():
            await self._while_mounted(self._hydrator.slow_down())
        handle.wrote = True
        self._bytes_change(handle.inode.node, handle.fd, handle.uid)
        while True:
            began = trio.current_time()
            try:
                with durable("mount.data"):
                    if len(buf) <= WRITTEN_INLINE:
                        return os.pwrite(handle.fd, buf, off)
                    return await trio.to_thread.run_sync(os.pwrite, handle.fd, buf, off, limiter=self._disk)
            except OSError as error:
                if error.errno != errno.ENOSPC or not await self._waiting(self._hydrator.make_room(began)):
                    raise

    @replies
    async def flush(self, fh: FileHandleT) -> None:
        """A close(2). Unlike release it is waited for: who closed a file and then asks for what is pending shall
        find it."""
        self._flushed(self._handles.file(fh))

    def _flushed(self, handle: Handle) -> None:
        if handle.wrote or self._wrote_past_us(handle):
            handle.wrote = False
            self._hydrator.changed(self._path(handle.inode.node))

    @staticmethod
    def _wrote_past_us(handle: Handle) -> bool:
        if not handle.is_writer or not handle.inode.backing_id:
            return False
        status = os.fstat(handle.fd)
        now = (status.st_ctime_ns, status.st_size)
        before, handle.told = handle.told, now
        return now != before

    @replies
    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        fd = self._handles.file(fh).fd
        await trio.to_thread.run_sync(os.fdatasync if datasync else os.fsync, fd, limiter=self._disk)

    @replies
    async def release(self, fh: FileHandleT) -> None:
        self._released(fh)

    def _released(self, number: int) -> None:
        handle = self._handles.release(number)
        inode = handle.inode
        is_last = handle.is_writer and inode.writers == 1
        if is_last and inode.may_be_mapped and self._mappings.keep(handle):
            return
        self._closed(handle)

    def _closed(self, handle: Handle) -> None:
        self._writer_left(handle)
        self._handles.close(handle)

    def _writer_left(self, handle: Handle) -> None:
        if handle.is_writer:
            handle.is_writer = False
            handle.inode.writers -= 1
            self._hydrator.writer_closed(self._path(handle.inode.node), handle.inode.node.ino)

    def close_all(self) -> None:
        """The mount is gone, and with it the applications' handles."""
        self._mappings.give_up()
        self._handles.close_all(self._writer_left)

    # ------------------------------------------------------------- size

    async def _set_size(self, node: Node, size: int, fh: FileHandleT | None, uid: int) -> None:
        """truncate(2) and ftruncate(2)."""
        if fh is not None:
            handle = self._handles.file(fh)
            handle.wrote = True
            self._bytes_change(node, handle.fd, uid)
            with durable("mount.data"):
                os.ftruncate(handle.fd, size)  # it was opened for writing, so the file is no stub
            return
        async with self._opening(node, os.O_WRONLY, uid) as handle:
            await self._let_writer_in(handle, empties=size == 0)
            try:
                self._bytes_change(node, handle.fd, uid)
                with durable("mount.data"):
                    os.ftruncate(handle.fd, size)
            finally:
                self._writer_left(handle)
        self._handles.close(handle)
