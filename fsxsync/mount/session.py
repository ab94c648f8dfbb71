"""One mount, from the check of its mount point to its end. pyfuse3 has one session a process, and so have we."""

from __future__ import annotations

import logging
import os
import stat
import string
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote_from_bytes

import pyfuse3
import trio

from fsxsync.errors import FuseUnavailable, MountError
from fsxsync.mount.base import Served
from fsxsync.mount.connection import ChannelConnection, Connection, PlainConnection
from fsxsync.mount.deathwatch import Deathwatch
from fsxsync.mount.descriptors import STAGING_PREFIX, Descriptors
from fsxsync.mount.direct import Direct
from fsxsync.mount.handles import Handles
from fsxsync.mount.invalidate import KernelCache
from fsxsync.mount.limits import allow_many_open_files, allow_many_reads_ahead
from fsxsync.mount.measuring import Measuring
from fsxsync.mount.mountpoint import check_fuse, check_mountpoint, clear_dead_mount
from fsxsync.mount.nodes import Nodes
from fsxsync.mount.operations import TreeOperations
from fsxsync.mount.passthrough import why_not
from fsxsync.mount.replies import UNWANTED
from fsxsync.ports import Front, Hydrator

_PLAIN = "".join(set(string.printable) - set("%,\\" + string.whitespace))

MIN_TASKS = 8
"""Idle tasks kept for the next requests; starting one takes longer than answering a getattr."""
MAX_TASKS = 4096
"""Requests at the same time. Readers that wait for the network must never be all of them, or stat waits as well."""


log = logging.getLogger(__name__)

SMALL_MACHINE = 8
"""Processors. On a larger one too many would be awake for one that asks."""


class Session:
    """What the daemon holds of its mount. ``front`` is what sync talks to; it does nothing before the mount is up.

    ``data_path`` is which way the bytes of resident files go, and why, as ``fsxsync status`` shows it.
    """

    def __init__(self) -> None:
        self.mountpoint: str | None = None
        self.data_path = ("none", "nothing is mounted")
        self._insists = False
        self._cache = KernelCache()
        self.front: Front = self._cache
        self._prepared: _Prepared | None = None

    def prepare(
        self,
        tree_root: Path,
        mountpoint: Path,
        *,
        state_dir: Path,
        attr_timeout_s: float,
        allow_other: bool,
        options: Iterable[str] = (),
        passthrough: str = "auto",
        stay_awake: str = "auto",
    ) -> None:
        """Check the mount point and open the tree. ``options`` are mount(8)'s words: ``ro``, ``noexec`` …
        ``passthrough`` is one of `passthrough.WORDS`, ``stay_awake`` is as in `config.Settings`.

        Raises:
            MountPointUnusable, FuseUnavailable: a person has to mend something.
        """
        check_fuse()
        check_mountpoint(mountpoint, apart_from=(tree_root, state_dir))
        allow_many_open_files()
        refusal = "it is switched off" if passthrough == "off" else why_not(tree_root)
        self._insists = passthrough == "on"
        if refusal:
            self.go_without(refusal)
        else:
            self.data_path = ("passthrough", "")
        self._prepared = _Prepared(
            tree_root, mountpoint, state_dir, attr_timeout_s, allow_other=allow_other, options=options
        )
        self._prepared.passes_through = not refusal
        is_small = (os.cpu_count() or 1) <= SMALL_MACHINE
        self._prepared.stays_awake = stay_awake == "on" or (stay_awake == "auto" and is_small)
        self._cache.attach(
            self._prepared.nodes, self._prepared.handles, self._prepared.direct, self._prepared.measuring
        )

    def go_without(self, why: str) -> None:
        """Note why there is no passthrough. Raises FuseUnavailable: it was asked for."""
        if self._insists:
            raise FuseUnavailable(
                "passthrough=on", why, advice="mount with -o passthrough=auto, and all works, only slower"
            )
        self.data_path = ("fuse", f"no passthrough: {why}")

    def take_prepared(self) -> _Prepared:
        """What `prepare` made, for one mount."""
        prepared, self._prepared = self._prepared, None
        if prepared is None:
            raise MountError("mounting", "nothing is prepared")
        return prepared

    @property
    def cache(self) -> KernelCache:
        return self._cache


class _Prepared:
    """Tables and options of a mount to be."""

    def __init__(
        self,
        tree_root: Path,
        mountpoint: Path,
        state_dir: Path,
        attr_timeout_s: float,
        *,
        allow_other: bool,
        options: Iterable[str],
    ) -> None:
        root_fd = os.open(tree_root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.mountpoint = mountpoint
        self.attr_timeout_s = attr_timeout_s
        self.nodes = Nodes(os.fstat(root_fd).st_ino, stat.S_IFDIR)
        self.direct = Direct()
        self.measuring = Measuring(self.direct.counts)
        self.handles = Handles(self.direct)
        self.passes_through = False
        self.stays_awake = False
        self.descriptors = Descriptors(self.nodes, root_fd, self.direct)
        self.options = {"default_permissions", "subtype=fsxsync", f"fsname=fsxsync:{_quoted(state_dir)}", *options}
        if allow_other:
            self.options.add("allow_other")

    def operations(self, hydrator: Hydrator, front: Front) -> TreeOperations:
        return TreeOperations(
            Served(
                nodes=self.nodes,
                descriptors=self.descriptors,
                handles=self.handles,
                hydrator=hydrator,
                front=front,
                attr_timeout_s=self.attr_timeout_s,
                is_root=os.geteuid() == 0,
                direct=self.direct,
                measuring=self.measuring,
            )
        )


def _quoted(path: Path) -> str:
    """A path in an option: pyfuse3 takes ASCII only, and libfuse's parser has a meaning for commas and backslashes."""
    return quote_from_bytes(os.fsencode(path), safe=_PLAIN)


async def serve_mount(
    session: Session, hydrator: Hydrator, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Mount and serve until somebody unmounts from outside, or until cancelled; then nothing stays mounted.

    The process's umask must be 0: the kernel has applied the caller's already.

    Raises:
        FuseUnavailable: the kernel or fusermount3 refused.
    """
    logging.getLogger("pyfuse3").addFilter(UNWANTED)
    prepared = session.take_prepared()
    operations = prepared.operations(hydrator, session.front)
    try:
        connection = _mount(session, operations, prepared)
        session.cache.notify_through(connection.notifier)
        session.cache.learn_through(operations.catch_up)
        session.mountpoint = str(prepared.mountpoint)
        try:
            await _serve(session.cache, operations, connection, prepared.mountpoint, task_status)
        finally:
            session.mountpoint = None
            connection.close()
            operations.catch_up()  # the last closes
            prepared.direct.detach()
            clear_dead_mount(prepared.mountpoint)  # what close() left, or whoever aborted the connection from outside
    finally:
        operations.close_all()
        prepared.descriptors.close()


def _keep_awake(connection: ChannelConnection) -> None:
    try:
        connection.channel.stay_awake()
    except OSError as error:  # in a container, say
        log.info("processors are not kept awake", extra={"reason": f"/dev/cpu_dma_latency: {error.strerror}"})


def _mount(session: Session, operations: TreeOperations, prepared: _Prepared) -> Connection:
    if prepared.passes_through:
        try:
            connection = ChannelConnection(operations, prepared.mountpoint, prepared.options)
        except (RuntimeError, OSError) as error:
            session.go_without(f"mounting for it failed ({error})")
        else:
            prepared.direct.attach(
                connection.channel,
                prepared.descriptors.root_fd,
                timeout_s=prepared.attr_timeout_s,
                hidden=STAGING_PREFIX,
            )
            if prepared.stays_awake:
                _keep_awake(connection)
            return connection
    try:
        return PlainConnection(operations, prepared.mountpoint, prepared.options)
    except RuntimeError as error:
        advice = "see the lines above"
        if "allow_other" in prepared.options and os.geteuid() != 0:
            advice = "--allow-other without root needs the line 'user_allow_other' in /etc/fuse.conf"
        raise FuseUnavailable(f"mounting at {prepared.mountpoint}", str(error), advice=advice) from error


async def _serve(
    cache: KernelCache,
    operations: TreeOperations,
    connection: Connection,
    mountpoint: Path,
    task_status: trio.TaskStatus[None],
) -> None:
    """Requests are answered until everything else has ended: a notification under way may need an answer to end."""
    unmounted = trio.Event()
    serving = trio.CancelScope(shield=True)

    async def answer_requests() -> None:
        try:
            with serving:
                await pyfuse3.main(min_tasks=MIN_TASKS, max_tasks=MAX_TASKS)
        finally:
            unmounted.set()

    async def watch_end() -> None:
        await connection.watch_end()
        unmounted.set()

    with ExitStack() as to_the_end:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_requests, name="requests")
            try:
                async with trio.open_nursery() as helpers:
                    try:
                        helpers.start_soon(cache.run, name="invalidations")
                        helpers.start_soon(operations.watch_mappings, name="mappings")
                        helpers.start_soon(operations.learn, name="what the channel answered")
                        helpers.start_soon(watch_end, name="end of the connection")
                        # It asks through the mount, from a thread: only we can answer. So then the mount is up.
                        control = await trio.to_thread.run_sync(
                            allow_many_reads_ahead, mountpoint, abandon_on_cancel=True
                        )
                        to_the_end.enter_context(closing(Deathwatch(control)))
                        task_status.started()
                        await unmounted.wait()
                    finally:
                        operations.end_waiting()
                        helpers.cancel_scope.cancel()
            finally:
                serving.cancel()
