"""What the channel answers by itself, without waking anybody here: names, attributes and listings of the tree, opening
resident files for reading, and the ends of handles (c_ext/channel_direct.c).

It knows what it is told here, and notes what it has answered; `learning.Learning` takes that in before it decides
anything.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

from pyfuse3 import InodeT

from fsxsync import _core

log = logging.getLogger(__name__)

_NOTHING_TO_FORGET = frozenset({errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.EBADF})
"""The kernel does not know the inode, or does not any more; or the mount is gone."""


class Direct:
    """The channel as the handlers and their tables see it. Without a channel all of it does nothing: every request
    comes to a handler, and no file is in passthrough."""

    def __init__(self) -> None:
        self._channel: _core.Channel | None = None
        self._answers = False
        self._served: set[int] = set()

    def attach(self, channel: _core.Channel, root_fd: int, *, timeout_s: float, hidden: bytes) -> None:
        """``timeout_s``: how long the kernel may believe what it was told; ``hidden``: what starts so in the root is
        not for applications."""
        self._channel = channel
        try:
            channel.answer_directly(root_fd, int(timeout_s * 1e9), hidden)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            log.info("every request is answered in Python", extra={"why": "the file system tells no birth times"})
        else:
            self._answers = True

    def detach(self) -> None:
        """The channel is closed, and with it the kernel has forgotten all."""
        self._channel = None
        self._answers = False
        self._served.clear()

    def requests(self) -> int:
        """How many the kernel made since the start, whoever answered them; 0 without a channel."""
        if self._channel is None:
            return 0
        counted = self._channel.stats()
        return counted["requests"] + counted["answered"]

    def counts(self) -> Mapping[str, tuple[int, list[int]]]:
        """See `_core.Channel.counts`; empty without a channel."""
        return self._channel.counts() if self._channel is not None else {}

    # ------------------------------------------------------------- open files

    def join(self, ino: int, fd: int, *, may_pass: bool, is_for_reading: bool) -> int:
        """How the kernel serves an inode that is about to be opened, until as many have called `leave`: the number
        under which it reads and writes it by itself; 0: through us. Who opens it first decides.

        What the kernel keeps must not count as somebody who writes (`mappings.Mappings`), so it gets a descriptor for
        reading: ``fd`` itself or a new one. It opens the file anew for each handle, in that handle's own mode.
        """
        if self._channel is None:
            return 0
        own = -1
        try:
            if may_pass and not is_for_reading:
                own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            return self._channel.join(ino, own if own >= 0 else fd, may_pass)
        except OSError as error:
            log.warning("a file is served without passthrough", extra={"why": str(error)})
            return self._channel.join(ino, -1, False)
        finally:
            if own >= 0:
                os.close(own)

    def leave(self, ino: int) -> None:
        if self._channel is not None:
            self._channel.leave(ino)

    def leave_to_us(self, ino: int, *, is_ours: bool) -> None:
        """Whether there is more to say about an inode than the host tells."""
        if self._answers:
            assert self._channel is not None
            self._channel.leave_to_python(ino, is_ours)

    def forget_attributes(self, nodeid: InodeT) -> bool:
        """Make the kernel ask for an inode's attributes the next time, before this returns. Never waits for the
        kernel. False if there is no way but the queue of `invalidate.KernelCache`."""
        if self._channel is None:
            return False
        try:
            self._channel.invalidate_inode(nodeid, True)
        except OSError as error:
            if error.errno not in _NOTHING_TO_FORGET:
                raise
        return True

    # ------------------------------------------------------------- names

    def wants(self, ino: int) -> bool:
        """It could answer for that directory, and was not told of it."""
        return self._answers and ino not in self._served

    def serve(self, ino: int, fd: int, *, may_create: bool) -> None:
        """Names in that directory may be looked up through ``fd``, and files made in it if they ``may`` be, until
        `serve_no_more`."""
        if self._answers:
            assert self._channel is not None
            self._channel.serve(ino, fd, may_create)
            self._served.add(ino)

    def serve_no_more(self, ino: int) -> None:
        if ino in self._served:
            assert self._channel is not None
            self._served.discard(ino)
            self._channel.serve_no_more(ino)

    def forget_policies(self) -> None:
        """What may be made where has to be found out anew."""
        for ino in list(self._served):
            self.serve_no_more(ino)

    def keep_free(self, size: int) -> None:
        """With fewer bytes of the disk free the handlers make files, who ask `Hydrator.is_tight`."""
        if self._answers and self._channel is not None:
            self._channel.keep_free(size)

    def present(self, parent_ino: int, parent_fd: int, name: bytes, ino: int) -> int | None:
        """The kernel is about to learn that the inode stands there.

        What tells it from an earlier one of its number: the same here and in the channel. None where the handlers
        have to find that out by themselves. Raises OSError: ESTALE, it does not stand there any more.
        """
        if not self._answers:
            return None
        assert self._channel is not None
        generation = _core.birth_generation(parent_fd, name, ino)
        self._channel.present(parent_ino, name, ino, generation)
        return generation

    def is_absent(self, parent_ino: int, name: bytes) -> bool:
        """Whether the kernel may believe that there is no such name."""
        return self._answers and self._channel is not None and self._channel.is_absent(parent_ino, name)

    # ------------------------------------------------------------- the journal

    @property
    def journal_fd(self) -> int | None:
        """Readable while there is something to take in."""
        return self._channel.journal_fileno() if self._channel is not None and self._answers else None

    def drain(self) -> Iterable[tuple[Any, ...]]:
        """What was answered since the last call, oldest first: see `_core.Channel.drain`."""
        return self._channel.drain() if self._channel is not None else ()
