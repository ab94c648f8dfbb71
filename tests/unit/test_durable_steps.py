"""Whatever outlives the daemon is a step that it can be made to die at (`fsxsync.crashpoint`), or there is a reason
why not: read from the source, so that a new effect without a step is found before a crash finds it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import fsxsync

SOURCE = Path(fsxsync.__file__).parent
ELSEWHERE = {
    "cli": "asks a daemon, or writes what a person asked it to write",
    "control": "sockets and tokens, made anew or in one rename",
    "daemon": "its lock and its log",
    "demo": "a person's part in the play",
    "telemetry": "the logs",
    "crashpoint.py": "the test's own file",
}
"""Rooms in which nothing is synced."""
OS = frozenset(
    {
        *("rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "link", "symlink", "mknod", "mkfifo"),
        *("chmod", "fchmod", "chown", "lchown", "fchown", "utime", "truncate", "ftruncate", "setxattr", "removexattr"),
        *("write", "pwrite", "writev", "pwritev", "posix_fallocate", "copy_file_range", "sendfile"),
    }
)
CORE = frozenset(
    {"renameat2", "create_stub", "fallocate", "mark_released", "punch_released", "unmark_many", "mount", "umount2"}
)
PATH = frozenset({"write_text", "write_bytes", "mkdir", "symlink_to", "hardlink_to", "rmdir"})
REQUESTS = (
    *("put_", "create_", "delete_", "complete_", "abort_", "copy_", "upload_", "restore_", "set_", "change_", "send_"),
    *("tag_", "untag_", "write_", "select_", "update_", "add_", "remove_"),
)
"""How boto3's names of what changes something begin."""
BETWEEN = "between two steps, each of which is a crash point: "
OWN_NAMES = "names of our own, which nobody imports or exports: "
REASONS = {
    "catalog/database.py Catalog.open": "the mode of the catalog's file, set whenever it is opened",
    "mount/base.py Base._give_to": BETWEEN + "the file is made, and nobody was told of it",
    "mount/connection.py ChannelConnection._mount": "a mount ends with its daemon",
    "mount/limits.py allow_many_reads_ahead": "a limit of the mount's, which ends with it",
    "mount/metadata.py Metadata._chown": "inside mount.metadata",
    "mount/metadata.py Metadata._chown_to_nobody": "inside mount.metadata",
    "mount/metadata.py Metadata._set_times": "inside mount.metadata",
    "mount/mountpoint.py detach": "a mount ends with its daemon",
    "mount/setid.py drop_set_id": BETWEEN + "right before mount.data, and true whether that comes or not",
    "repository/bookkeeping.py Bookkeeping.start_upload": "inside upload.start",
    "repository/bookkeeping.py Bookkeeping.complete_upload": "inside upload.complete",
    "repository/bookkeeping.py Bookkeeping.abort_upload": "inside upload.abort",
    "repository/bookkeeping.py Bookkeeping.restore": "inside object.restore",
    "repository/copying.py start": "inside upload.start",
    "repository/copying.py copy_part": "inside upload.part",
    "repository/probe.py _Probe.put_in": OWN_NAMES + "removed by probe.write",
    "repository/probe.py _Probe._refuses_damage.put.request": "inside probe.write",
    "repository/probe.py _Probe._makes_md5": OWN_NAMES + "removed by probe.write",
    "repository/probe.py _Probe._put": "inside probe.write",
    "repository/probe.py _Probe._complete": "inside probe.write",
    "repository/probe.py _Probe._copy": "inside probe.write",
    "repository/probe.py _Probe._delete": "inside probe.write",
    "repository/probe.py _Probe._delete_versions": "inside probe.write",
    "repository/queue.py SqsQueue.hold": "the queue forgets it after seconds",
    "sync/hydration.py Hydration.came_whole": BETWEEN + "after stub.chunk, and again when it is settled",
    "sync/hydration.py Hydration._flight": BETWEEN + "after stub.chunk, whose file keeps its mark and so is no change",
    "sync/task_report.py write_report": "the directory of a report, made before it: report.write",
    "tree/beneath.py keeping_times": BETWEEN + "no more than the time of a directory that was changed",
    "tree/moments.py Moments.writable": "an ordinary user's only: test_moments dies at each of its calls",
    "tree/moments.py Moments._write_note": "as Moments.writable",
    "tree/moments.py Moments.take_back": "as Moments.writable",
    "tree/moments.py Moments._take_back": "as Moments.writable",
    "tree/moments.py write_whole": "inside staging.write-note, or as Moments.writable",
    "tree/placing.py Places._dress": BETWEEN + "after tree.mkdir, which leaves a directory that only we may enter",
    "tree/placing.py Places.exchange_in": BETWEEN + "staging.write-note and tree.exchange; and test_tree",
    "tree/placing.py Places.move": "the state before it is that after tree.move; afterwards nothing has happened",
    "tree/placing.py Places.swap": "the state before it is that after tree.swap; afterwards nothing has happened",
    "tree/releasing.py _mark.mark": "called by each_durable",
    "tree/releasing.py _punch.punch": "called by each_durable",
    "tree/reserve.py Reserve.take": OWN_NAMES + "a file of no contents, made again",
    "tree/reserve.py allocate_ahead": "space for bytes that stub.chunk writes",
    "tree/settle_together.py _unmark": "called by each_durable",
    "tree/staging.py Staging.__init__": "the staging directory, made when the tree is opened",
    "tree/staging.py Staging.discard": OWN_NAMES + "what was made and is of no value, with a note that is found alone",
    "tree/staging.py _open_own": "the staging directory's mode, set whenever the tree is opened",
    "tree/staging.py check_xattrs": "an attribute of the root's, set and taken off whenever the tree is opened",
    "tree/stub_data.py punch_all": "inside stub.punch or stub.finish",
    "tree/stub_data.py put_back": BETWEEN + "after stub.punch: a marked file, whose time is no change",
    "tree/stubs.py _give": "inside tree.metadata",
    "tree/stubs.py _set_times": "inside tree.metadata",
    "tree/stubs.py unmark": BETWEEN + "stub.chunk and stub.unmark",
    "tree/tree.py Tree.open": "the root, made before anything is served",
    "tree/tree.py _can_rename": OWN_NAMES + "tried whenever the tree is opened",
    "tree/tree.py _claim": "who died right after it takes what it finds: test_a_new_catalog_takes_the_tree_as_it_is",
    "tree/xattrs.py write_xattrs": "inside tree.xattrs, or of a file in the staging directory",
}


class _Effects(ast.NodeVisitor):
    """Those of one file that stand in no ``with durable(…)``."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._inside: list[str] = []
        self._steps = 0
        self.bare: set[str] = set()

    def _scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        steps, self._steps = self._steps, 0
        self._inside.append(node.name)
        self.generic_visit(node)
        self._inside.pop()
        self._steps = steps

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _scope  # noqa: N815  ast's names

    def visit_With(self, node: ast.With) -> None:
        is_step = any(
            isinstance(item.context_expr, ast.Call)
            and isinstance(item.context_expr.func, ast.Name)
            and item.context_expr.func.id == "durable"
            for item in node.items
        )
        for item in node.items:
            self.visit(item)
        self._steps += is_step
        for line in node.body:
            self.visit(line)
        self._steps -= is_step

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        if not self._steps and _changes(node):
            self.bare.add(f"{self._where} {'.'.join(self._inside)}")


def _changes(node: ast.Attribute) -> bool:
    owner, name = node.value, node.attr
    if isinstance(owner, ast.Name) and owner.id == "os":
        return name in OS
    if isinstance(owner, ast.Name) and owner.id == "_core":
        return name in CORE
    if (owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")) in {"client", "_client"}:
        return name.startswith(REQUESTS)
    return name in PATH


def bare_effects() -> Iterator[str]:
    for file in sorted(SOURCE.rglob("*.py")):
        where = file.relative_to(SOURCE)
        if where.parts[0] in ELSEWHERE:
            continue
        seen = _Effects(str(where))
        seen.visit(ast.parse(file.read_text()))
        yield from seen.bare


def test_what_outlives_the_daemon_is_a_step_or_has_a_reason() -> None:
    assert set(bare_effects()) == set(REASONS)


def test_an_effect_is_known_when_it_is_seen() -> None:
    """The test above finds something."""
    seen = _Effects("x.py")
    seen.visit(
        ast.parse(
            "def f(client):\n"
            "    with durable('a'):\n        os.rename(a, b)\n"
            "    with other('a'):\n        _core.renameat2(a, b)\n"
            "def g(self):\n    with self.ask() as client:\n        client.put_object()\n        client.get_object()\n"
            "def h(self):\n    os.stat(a)\n"
        )
    )
    assert seen.bare == {"x.py f", "x.py g"}
