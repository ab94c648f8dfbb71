"""`fsxsync check` where no daemon runs: the lock is taken, so that none begins meanwhile, and nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import trio

from fsxsync.config import load
from fsxsync.daemon.lock import lock_state_dir
from fsxsync.daemon.wiring import Parts, build
from fsxsync.errors import NoDaemon
from fsxsync.model.finding import Finding, Tally
from fsxsync.sync.checking import Checker


def tree_of(state_dir: Path) -> Path:
    """The tree that a check without a daemon is about.

    Raises:
        NoDaemon: nothing that could be checked lies there.
    """
    tree = state_dir / "tree"
    if not (state_dir / "catalog.db").exists() or not tree.is_dir():
        raise NoDaemon(f"no daemon answers for {state_dir}", "and it holds no tree that could be checked without one")
    return tree


def check_offline(state_dir: Path, tree_paths: Sequence[bytes], *, verify: bool) -> Iterator[Finding | Tally]:
    """Every broken rule, the tally last. What was changed since the daemon ended is skipped: its next start sees it.

    Raises:
        DaemonRunning: one has just begun. NoDaemon: see `tree_of`. What `Checker.run` raises.
    """
    state_dir = state_dir.absolute()
    tree = tree_of(state_dir)
    with ExitStack() as stack:
        stack.callback(os.close, lock_state_dir(state_dir))
        settings = load(None, os.environ, {"state_dir": str(state_dir)})
        parts = build(settings, state_dir, tree, eager=False, mount=lambda: None, data_path=lambda: ("none", "offline"))
        stack.callback(parts.eventlog.close)
        stack.callback(parts.catalog.close)
        stack.callback(parts.tree.close)
        yield from trio.run(_checked, parts, tree_paths, verify)


async def _checked(parts: Parts, tree_paths: Sequence[bytes], verify: bool) -> list[Finding | Tally]:
    served = {
        association.id: parts.engine.served_alone(association) for association in parts.catalog.associations.all()
    }
    checker = Checker(
        parts.shared,
        served,
        settle=trio.lowlevel.checkpoint,
        is_scanned=lambda _association: True,
        verify=verify,
        is_offline=True,
    )
    async with parts.pool.running():
        return [told async for told in checker.run(tree_paths)]
