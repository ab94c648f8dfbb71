"""``fsxsync``: the group, and the one place that turns errors into a line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from fsxsync import __version__
from fsxsync.cli.context import Instance
from fsxsync.config import default_state_dir
from fsxsync.errors import FsxSyncError
from fsxsync.telemetry.log import escape, redact

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13
"""What a shell reports for SIGINT and SIGPIPE."""


_COMMANDS = {
    "serving": ("mount", "watch", "unmount", "demo"),
    "associations": ("associate", "associations", "association"),
    "files": ("state", "wait"),
    "checking": ("check",),
    "differing": ("diff",),
    "why": ("why",),
    "conflicts": ("conflicts",),
    "tasks": ("export", "import_", "release", "restore", "reconcile", "tasks", "task"),
    "status": ("status",),
    "top": ("top",),
    "events": ("events",),
}
"""Module -> what is in it. Only the one that is called is imported: all together take as long as a quick command."""
_MODULES = {name.rstrip("_"): (module, name) for module, names in _COMMANDS.items() for name in names}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module, name = _MODULES[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"fsxsync.cli.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, readable=False),
    metavar="DIR",
    help="The daemon's state directory. Default: $FSXSYNC_STATE_DIR, else /var/lib/fsxsync/default as root"
    " and ~/.local/state/fsxsync/default otherwise.",
)
@click.version_option(__version__, prog_name="fsxsync", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, state_dir: Path | None) -> None:
    """Keeps directories and object-store prefixes in sync, in both directions.

    \b
    Example:
      fsxsync mount /fsx --daemon
      fsxsync associate s3://bucket/datasets/ /datasets
      ls /fsx/datasets
    """
    is_named = state_dir is not None or bool(os.environ.get("FSXSYNC_STATE_DIR"))
    chosen = state_dir if state_dir is not None else default_state_dir(os.environ, os.geteuid())
    context.obj = Instance(state_dir=chosen.absolute(), is_named=is_named)


def main() -> NoReturn:
    """The program."""
    if "_FSXSYNC_COMPLETE" in os.environ:  # a shell asks for completions
        cli.main(prog_name="fsxsync")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; the exit code."""
    try:
        code = _run(list(arguments))
        if sys.stdout is not None:  # it is None where the shell closed it
            sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()  # the reader has seen enough
        return BROKEN_PIPE
    except OSError as error:
        if not _is_of_output(error):
            raise
        _drop_output()
        with suppress(OSError):
            _complain(f"the output can't be written: {error.strerror or error}; free some space there, or name another")
        return FAILED
    return code


def _is_of_output(error: OSError) -> bool:
    """It came where output is written: all of it goes through `click.echo`, and is flushed here."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_filename in {click.utils.__file__, __file__}


def _drop_output() -> None:
    """Python would complain at exit when it flushes what is left."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    try:
        with cli.make_context("fsxsync", _as_mount(arguments)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return WRONG_USAGE
    except click.ClickException as error:
        _complain(_sentence(error))
        return WRONG_USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except FsxSyncError as error:
        _complain(str(error))
        return error.exit_code
    except BaseExceptionGroup as group:
        return _of_group(group)
    return 0


def _of_group(group: BaseExceptionGroup[BaseException]) -> int:
    """A daemon that ends in several tasks at once: one line each if all was expected, a traceback if not."""
    expected, others = group.split(FsxSyncError)
    if others is not None or expected is None:
        raise group
    leaf: BaseException = expected
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    assert isinstance(leaf, FsxSyncError)
    _complain(str(leaf))
    return leaf.exit_code


def _complain(text: str) -> None:
    click.echo(f"fsxsync: {escape(redact(text))}", err=True)


def _sentence(error: click.ClickException) -> str:
    """click's message as one line in our form, with the way to the help."""
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "fsxsync"
    return f"wrong usage: {text[:1].lower()}{text[1:]}; see '{path} --help'"


def _as_mount(arguments: list[str]) -> list[str]:
    """mount(8) and /etc/fstab call ``fsxsync STATE_DIR MOUNTPOINT -o OPTIONS`` (mount.fuse3(8))."""
    if len(arguments) < 2 or not arguments[0].startswith("/") or not arguments[1].startswith("/"):
        return arguments
    state_dir, mountpoint, *rest = arguments
    return ["--state-dir", state_dir, "mount", "--daemon", mountpoint, *rest]


if __name__ == "__main__":
    main()
