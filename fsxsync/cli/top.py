"""``top``: what the daemon is doing, live. One screen that is drawn over, row by row in its place: nothing jumps."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click

from fsxsync.cli import output
from fsxsync.cli.context import Instance
from fsxsync.cli.frame import Line, frame
from fsxsync.control.client import Client, Document
from fsxsync.errors import NoDaemon

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

WIDTH = 80
"""Of what is printed where there is no terminal."""
HEIGHT = 24
_QUIT = frozenset(b"qQ\x03\x04")
_INTERRUPTED = b"q"


@click.command(short_help="Watch the daemon work.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.2, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print one picture and end. So it does where stdout is no terminal.")
@click.pass_obj
def top(instance: Instance, /, *, interval_s: float, once: bool) -> None:
    """Show transfers, queues and errors of each association, again and again. q or Ctrl-C ends it.

    Rates are those of the last ten seconds. Colours are left out if NO_COLOR is set.

    \b
    Example:
      fsxsync top
      fsxsync top --once | grep MISCONFIGURED
    """
    client = instance.client
    told = client.status()  # without a daemon the terminal is left as it is
    if once or not sys.stdout.isatty():
        for line in frame(told, width=WIDTH, height=None, now_s=time.time(), note=""):
            click.echo(line.text.rstrip())
        return
    try:
        _watch(client, told, interval_s)
    except KeyboardInterrupt:
        return


def _watch(client: Client, told: Document, interval_s: float) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.live import Live  # noqa: PLC0415

    console = Console()
    with ExitStack() as undo:
        keys = undo.enter_context(_keys())
        signals = undo.enter_context(_signals())
        live = undo.enter_context(Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False))
        next_s, lost_s, note = time.monotonic() + interval_s, 0.0, ""
        while True:
            _draw(live, told, note)
            while time.monotonic() < next_s:
                ready, _, _ = select.select([*keys, signals], [], [], max(0.0, next_s - time.monotonic()))
                if signals in ready:
                    if _INTERRUPTED in os.read(signals, 4096):
                        return
                    _draw(live, told, note)
                if keys and keys[0] in ready:
                    typed = os.read(keys[0], 64)
                    if not typed:
                        keys = []
                    if _QUIT & set(typed):
                        return
            next_s = time.monotonic() + interval_s
            try:
                told, lost_s, note = client.status(), 0.0, ""
            except NoDaemon:
                lost_s = lost_s or time.monotonic()
                note = f"no daemon answers since {output.age(time.monotonic() - lost_s)}; these are its last numbers"


def _draw(live: Live, told: Document, note: str) -> None:
    from rich.console import ConsoleDimensions  # noqa: PLC0415

    # Asked of the terminal each time: rich would believe COLUMNS and LINES, which no resize changes.
    width, height = os.get_terminal_size(sys.stdout.fileno())
    live.console.size = size = ConsoleDimensions(width or WIDTH, height or HEIGHT)
    lines = frame(told, width=size.width, height=size.height, now_s=time.time(), note=note)
    live.update(_group(lines), refresh=True)


def _group(lines: list[Line]) -> Group:
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    return Group(*(Text(line.text, style=line.style, no_wrap=True, overflow="crop") for line in lines))


@contextmanager
def _keys() -> Iterator[list[int]]:
    """Where single keys can be read, without Enter and without an echo: [] if stdin is no terminal."""
    if not sys.stdin.isatty():
        yield []
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield [fd]
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that is readable when the terminal has got another size, or when somebody wants us to end: the
    exception alone is lost where it meets a finalizer."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def told(word: bytes) -> None:
        try:
            os.write(writer, word)
        except BlockingIOError:
            return  # it is readable anyway

    def interrupted(_number: int, _frame: object) -> None:
        told(_INTERRUPTED)
        raise KeyboardInterrupt

    before = {
        signal.SIGWINCH: signal.signal(signal.SIGWINCH, lambda _number, _frame: told(b"x")),
        signal.SIGINT: signal.signal(signal.SIGINT, interrupted),
    }
    try:
        yield reader
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
