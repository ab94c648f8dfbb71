"""How a task goes on: a bar on a terminal, a line now and then elsewhere. On stderr: stdout has the ids only."""

from __future__ import annotations

import sys
import time

import click

from fsxsync.cli import output
from fsxsync.control.client import Client, Document

LOOK_S = 0.1
LOOK_MAX_S = 1.0
LOOK_SHARE = 0.05
"""Of the time that a task has taken: so much later than it ended it is seen to, where no bar has to move."""
LINE_S = 10.0
"""How often a line is printed where there is no terminal: a log of an hour's task stays readable."""
BAR = 24


def follow(client: Client, task_id: str, *, is_quiet: bool) -> Document:
    """Return when the task has ended. Interrupted, it leaves the task alone. ``is_quiet``: a bar at most."""
    started_s = told_s = time.monotonic()
    is_terminal = sys.stderr.isatty() and (is_quiet or sys.stdout.isatty())
    try:
        while True:
            task = client.task(task_id)
            now_s = time.monotonic()
            if task["ended"]:
                if is_terminal or not is_quiet:
                    _last(task, now_s - started_s, is_terminal=is_terminal)
                return task
            if is_terminal:
                click.echo(f"\r{progress(task, now_s - started_s)}\x1b[K", nl=False, err=True)
            elif not is_quiet and now_s - told_s >= LINE_S:
                told_s = now_s
                click.echo(progress(task, now_s - started_s, bar=False), err=True)
            pause_s = LOOK_S if is_terminal else LOOK_SHARE * (now_s - started_s)
            time.sleep(min(max(pause_s, LOOK_S), LOOK_MAX_S))
    except KeyboardInterrupt:
        click.echo(f"\nfsxsync: {task_id} goes on; 'fsxsync task cancel {task_id}' ends it", err=True)
        raise


def progress(task: Document, elapsed_s: float, *, bar: bool = True) -> str:
    """One line: how much, how fast, how long still."""
    done, total = task["succeeded"] + task["failed"], task["total"]
    share = min(done / total, 1.0) if total else 0.0
    parts = [f"{done}/{total} files"]
    if bar:
        filled = int(share * BAR)
        parts.insert(0, f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%}")
    if task["bytes"]:
        parts.append(output.size(task["bytes"]))
    if done and elapsed_s > 0:
        parts.append(f"{done / elapsed_s:.0f} files/s")
        if task["bytes"]:
            parts.append(f"{output.size(task['bytes'] / elapsed_s)}/s")
        if done < total:
            parts.append(f"{output.age((total - done) * elapsed_s / done)} left")
    if task["failed"]:
        parts.append(f"{task['failed']} failed")
    if not done:
        parts.append(task["lifecycle"].lower())
    return "  ".join(parts)


def _last(task: Document, elapsed_s: float, *, is_terminal: bool) -> None:
    """What it came to."""
    told = (
        f"{task['lifecycle'].lower()}: {task['succeeded']} succeeded, {task['failed']} failed,"
        f" {output.size(task['bytes'])} in {output.age(elapsed_s)}"
    )
    click.echo(f"\r{told}\x1b[K" if is_terminal else told, err=True)
