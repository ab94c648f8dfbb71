"""The daemon: start, serve, end. ``run_mount`` and ``run_watch`` are what the CLI calls."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from fsxsync.config import Settings, for_children, load
from fsxsync.control.server import serve_control
from fsxsync.daemon.background import run_in_background
from fsxsync.daemon.lock import lock_state_dir, open_state_dir
from fsxsync.daemon.notify import notify, watchdog_interval_s
from fsxsync.daemon.wiring import Parts, build
from fsxsync.errors import BadInput, FsxSyncError, InvariantBroken
from fsxsync.mount.session import Session, serve_mount
from fsxsync.sync import doubt
from fsxsync.sync.rescued import tell_rescued
from fsxsync.telemetry.log import setup_logging

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.001
"""How long a worker thread may hold the GIL while a FUSE request waits; Python's default of 5 ms is felt in `ls`."""

COLLECTED_EACH = 50_000
"""So many more objects that could be in a cycle start a collection. A batch of rows or entries is a thousand tuples
that go with it: with Python's default of 700 each is looked through several times, a quarter of what `diff` takes."""


def run_mount(
    state_dir: Path,
    mountpoint: Path,
    *,
    options: Mapping[str, str | bool],
    daemonize: bool,
    config_file: Path | None,
    flags: Mapping[str, object],
) -> int:
    """Serve the tree of ``state_dir`` at ``mountpoint`` until told to end; the exit code.

    Raises:
        FsxSyncError: it could not start.
    """
    settings = _settings(state_dir, config_file, {**flags, **_known(options)})
    session = Session()
    return _run(
        settings,
        state_dir,
        state_dir / "tree",
        daemonize=daemonize,
        eager=False,
        front=partial(
            _serve_front,
            session=session,
            mountpoint=mountpoint.absolute(),
            options=_for_the_kernel(options),
            passthrough=str(options.get("passthrough", PASSTHROUGH)),
        ),
        session=session,
    )


def run_watch(
    state_dir: Path,
    directory: Path,
    *,
    daemonize: bool,
    config_file: Path | None,
    flags: Mapping[str, object],
) -> int:
    """The same without FUSE: ``directory`` is the tree."""
    settings = _settings(state_dir, config_file, flags)
    directory = directory.absolute()
    if not directory.is_dir():
        raise BadInput(f"{directory} can't be watched", "there is no such directory", advice="make it first")
    state = state_dir.absolute()
    if state == directory or directory in state.parents or state in directory.parents:
        raise BadInput(
            f"{directory} can't be watched",
            f"the state directory {state} lies in it or around it",
            advice="name another --state-dir",
        )
    return _run(settings, state_dir, directory, daemonize=daemonize, eager=True, front=None, session=None)


def _settings(state_dir: Path, config_file: Path | None, flags: Mapping[str, object]) -> Settings:
    return load(config_file, os.environ, {**flags, "state_dir": str(state_dir)})


PASSTHROUGH = "auto"
"""Where ``-o passthrough=`` is not given: where it can't be had, the mount works without and says why."""

_OPPOSITES = {"ro": "rw", "nosuid": "suid", "nodev": "dev", "noexec": "exec", "noatime": "atime", "sync": "async"}


def _for_the_kernel(options: Mapping[str, str | bool]) -> list[str]:
    """mount(8)'s words; ``suid`` and ``dev`` have to be said, because libfuse mounts without them."""
    wanted = [name if options[name] else opposite for name, opposite in _OPPOSITES.items() if name in options]
    return [*wanted, "dirsync"] if options.get("dirsync") else wanted


def _known(options: Mapping[str, str | bool]) -> dict[str, object]:
    return {name: value for name, value in options.items() if name in {"allow_other", "attr_timeout_s"}}


Front = Callable[..., Awaitable[None]]


def _run(
    settings: Settings,
    state_dir: Path,
    tree_root: Path,
    *,
    daemonize: bool,
    eager: bool,
    front: Front | None,
    session: Session | None,
) -> int:
    state_dir = state_dir.absolute()
    open_state_dir(state_dir)

    def serve(ready: Callable[[], None]) -> int:
        lock = lock_state_dir(state_dir)
        try:
            setup_logging(settings.log_level)
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            os.umask(0)
            return _serve(settings, state_dir, tree_root, eager=eager, front=front, session=session, ready=ready)
        finally:
            os.close(lock)

    if daemonize:
        return run_in_background(serve, state_dir / "daemon.log")

    def say_ready() -> None:
        sys.stderr.write("ready\n")
        sys.stderr.flush()

    return serve(say_ready)


def _serve(
    settings: Settings,
    state_dir: Path,
    tree_root: Path,
    *,
    eager: bool,
    front: Front | None,
    session: Session | None,
    ready: Callable[[], None],
) -> int:
    parts = build(
        settings,
        state_dir,
        tree_root,
        eager=eager,
        mount=lambda: session.mountpoint if session else None,
        data_path=lambda: session.data_path if session else ("none", "no mount: the directory itself is the tree"),
    )
    try:
        trio.run(partial(_main, parts, state_dir, front, ready))
    except* FsxSyncError as failures:
        raise _leaf(failures) from None
    finally:
        _bring_to_disk(parts)
        parts.tree.close()
        left = sum(parts.catalog.changelog.count(row.id)[1] for row in parts.catalog.associations.all())
        parts.catalog.close()
        if left:
            sys.stderr.write(f"fsxsync: {left} changes are not exported yet; they are kept for the next start\n")
    return 0


def _bring_to_disk(parts: Parts) -> None:
    """What is in the tree, as umount(8) would: should the machine go down from here on, nobody need doubt it. Who is
    killed while that takes its time is believed only as long as the machine runs."""
    try:
        parts.tree.flush_all()
        doubt.end(parts.catalog.facts)
    except FsxSyncError as error:
        log.warning("the tree is not brought to the disk: %s", error)


def _leaf(group: BaseExceptionGroup[FsxSyncError]) -> FsxSyncError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, FsxSyncError):
        raise InvariantBroken(f"not an expected error: {error!r}")
    return error


async def _main(parts: Parts, state_dir: Path, front: Front | None, ready: Callable[[], None]) -> None:
    """The supervision tree (TASTE §2.3). Whoever ends first ends the daemon."""
    ending = trio.Event()
    tell_rescued(parts.shared)
    # The pool outlives all who wait for it.
    async with parts.pool.running(), trio.open_nursery() as nursery:
        nursery.start_soon(_end_on_signal, ending, name="signals")
        await nursery.start(parts.engine.run, name="engine")
        if front is not None:
            await nursery.start(partial(_front_task, front, parts, ending), name="mount")
        await nursery.start(
            partial(
                serve_control,
                parts.engine,
                state_dir / "control.sock",
                eventlog=parts.eventlog,
                instance=parts.instance,
                listen=parts.settings.api_listen,
                metrics_listen=parts.settings.metrics_listen,
                for_all_users=parts.settings.allow_other and front is not None,
            ),
            name="control",
        )
        nursery.start_soon(_end_on_request, parts, ending, name="stop requests")
        nursery.start_soon(_watchdog, parts, name="watchdog")
        gc.freeze()  # modules and what was built at the start stay, and need not be looked through
        gc.set_threshold(COLLECTED_EACH)
        ready()
        notify("READY=1")
        await ending.wait()
        notify("STOPPING=1")
        nursery.cancel_scope.cancel()


async def _front_task(
    front: Front,
    parts: Parts,
    ending: trio.Event,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await front(parts, task_status=task_status)
    ending.set()  # somebody unmounted from outside: there is nothing left to serve


async def _serve_front(
    parts: Parts,
    *,
    session: Session,
    mountpoint: Path,
    options: Sequence[str],
    passthrough: str,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    session.prepare(
        parts.tree.root,
        mountpoint,
        state_dir=Path(parts.settings.state_dir),
        attr_timeout_s=parts.settings.attr_timeout_s,
        allow_other=parts.settings.allow_other,
        options=options,
        passthrough=passthrough,
        stay_awake=parts.settings.stay_awake,
    )
    parts.shared.front = session.front
    await serve_mount(session, parts.engine.hydrator, task_status=task_status)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


async def _end_on_signal(ending: trio.Event) -> None:
    early: list[int] = []
    for each in _SIGNALS:
        # What the receiver gives the signals back to when this ends. Their own effect would be the end of a daemon that
        # is about to unmount; SIG_IGN would be handed on to fusermount.
        signal.signal(each, lambda number, _frame: early.append(number))
    with trio.open_signal_receiver(*_SIGNALS) as received:
        if any(number != signal.SIGHUP for number in early):
            ending.set()
        async for number in received:
            if number != signal.SIGHUP:
                ending.set()


async def _end_on_request(parts: Parts, ending: trio.Event) -> None:
    await parts.engine.stopped()
    ending.set()


async def _watchdog(parts: Parts) -> None:
    """Tell systemd that we live, but only after a real round trip through the mount (PEERS §3.24)."""
    interval_s = watchdog_interval_s()
    if interval_s is None:
        return
    while True:
        status, is_alive = parts.engine.status(), True
        if status.mount is not None:
            # By a process of its own, for the mount refuses ours. Of the file system: stat(2) could come from a cache.
            asked = ["stat", "--file-system", "--", status.mount]
            answered = await trio.run_process(
                asked, env=for_children(os.environ), capture_stdout=True, capture_stderr=True, check=False
            )
            is_alive = answered.returncode == 0  # if it never answers again systemd restarts us
        if is_alive:
            notify("WATCHDOG=1")
        await trio.sleep(interval_s)
