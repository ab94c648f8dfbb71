"""Handlers that read directories."""

from __future__ import annotations

import itertools
import os

import pyfuse3
import trio
from pyfuse3 import FileHandleT, InodeT, ReaddirToken, RequestContext

from fsxsync import _core
from fsxsync.mount.base import Base
from fsxsync.mount.handles import DirectoryHandle, Entry
from fsxsync.mount.nodes import Node
from fsxsync.mount.replies import replies

AHEAD_BYTES = 32 * 1024
"""Read from the host at once; what the kernel's buffer does not take is kept for its next request."""

_AFTER_DOTS = ((1 << 62) + 0x5AFE, (1 << 62) + 0x5AFF)
"""Offsets behind '.' and '..', which come last: the host's own are not told to us. ext4's offsets are 63-bit hashes,
others count up from 0; none of them is likely to meet these."""


class Listing(Base):
    """opendir, readdir, releasedir, fsyncdir."""

    @replies
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        node = self._nodes.named(inode)
        fd = self._descriptors.open(node, os.O_RDONLY | os.O_DIRECTORY)
        return self._handles.open_directory(node, fd)

    @replies
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Offsets are the host's own: they stay good while names come and go around them."""
        handle = self._handles.directory(fh)
        if start_id in _AFTER_DOTS:
            self._reply_dots(handle.node, _AFTER_DOTS.index(start_id) + 1, token)
            return
        while entries := self._from(handle, start_id):
            for position, (name, _, _, after) in enumerate(entries):
                if not self._reply(handle, name, after, token):
                    handle.ahead, handle.ahead_from = entries[position:], start_id
                    return
                start_id = after
            handle.ahead = []
        self._reply_dots(handle.node, 0, token)

    def _reply_dots(self, node: Node, first: int, token: ReaddirToken) -> None:
        """What closes a listing. The kernel keeps no inode of these entries, so they count no lookup."""
        dots = zip((b".", b".."), (node, node.parent or node), _AFTER_DOTS, strict=True)
        for name, shown, after in itertools.islice(dots, first, None):
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = self._nodes.nodeid(shown.ino)
            entry.st_mode = pyfuse3.ModeT(shown.kind)
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, after):
                return

    @staticmethod
    def _from(handle: DirectoryHandle, offset: int) -> list[Entry]:
        if handle.ahead and handle.ahead_from == offset:
            return handle.ahead
        return _core.getdents(handle.fd, offset, AHEAD_BYTES)

    def _reply(self, handle: DirectoryHandle, name: bytes, after: int, token: ReaddirToken) -> bool:
        """Put one entry into the reply; False if there is no room for it."""
        try:
            status = os.stat(name, dir_fd=handle.fd, follow_symlinks=False)
        except FileNotFoundError:
            return True  # removed since the host listed it
        parent = handle.node
        if status.st_dev != self._descriptors.dev or self._descriptors.is_hidden(parent, name):
            return True
        node = self._met(parent, name, status, handle.fd)
        taken = pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), self._attributes(status, node), after)
        if taken:
            node.lookups += 1
        else:
            self._nodes.drop_if_unused(node)
        return taken

    @replies
    async def releasedir(self, fh: FileHandleT) -> None:
        self._handles.release_directory(fh)

    @replies
    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        fd = self._handles.directory(fh).fd
        await trio.to_thread.run_sync(os.fdatasync if datasync else os.fsync, fd, limiter=self._disk)
