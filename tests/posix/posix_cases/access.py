"""access(2), faccessat(2)."""

from __future__ import annotations

import os

from posix_suite.identities import FOREIGN_GROUP, ROOT, STRANGER, TEAM, Identity
from posix_suite.observing import directory, in_c, outcome, touch
from posix_suite.registry import Observed, case

AT_FDCWD = -100
MODES = range(8)
WHAT = (os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK | os.X_OK)


def _access(path: str, mode: int) -> str:
    return outcome(in_c, "faccessat", AT_FDCWD, path.encode(), mode, 0)


def _answers(path: str) -> str:
    """One letter for each of `WHAT`: + or -."""
    return "".join("+" if os.access(path, what) else "-" for what in WHAT)


def _granted(bits: int, *, root: bool = False) -> str:
    if root:  # who needs an x bit for files
        return "++" + ("++" if bits & 1 else "--")
    return "".join("+" if bits & what == what else "-" for what in WHAT)


@case(
    root=[[_granted(bits, root=True)] * 4 for bits in MODES],
    user=[[_granted(bits)] * 4 for bits in MODES],
)
def access_of_files_by_each_class_of_user(me: Identity) -> Observed:
    owners = (
        (me.uid, FOREIGN_GROUP, 6),
        (STRANGER.uid, me.gid, 3),
        (STRANGER.uid, TEAM, 3),
        (STRANGER.uid, FOREIGN_GROUP, 0),
    )
    seen = []
    for bits in MODES:
        row = []
        for uid, gid, shift in owners:
            with ROOT.acting():
                # Root needs one x bit of anybody; the others of this class alone.
                touch("f", bits << shift)
                os.chown("f", uid, gid)
            row.append(_answers("f"))
            with ROOT.acting():
                os.unlink("f")
        seen.append(row)
    return seen


@case(root=["++++"] * 8, user=[_granted(bits) for bits in MODES])
def access_of_directories(me: Identity) -> Observed:
    seen = []
    for bits in MODES:
        directory(f"{bits}", bits << 6)
        seen.append(_answers(f"{bits}"))
    return seen


@case(["ENOENT", "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENOENT", "EINVAL", "ok"])
def access_of_what_is_not_there(me: Identity) -> Observed:
    touch("f")
    os.symlink("loop", "loop")
    os.symlink("missing", "dangling")
    wrong = ("missing", "", "f/x", "loop", "n" * 256, "dangling")
    return [*(_access(name, os.F_OK) for name in wrong), _access("f", 0o100), _access("f", os.F_OK)]


@case(root=["ok", "ok"], user=["EACCES", "EACCES"])
def access_below_a_closed_directory(me: Identity) -> Observed:
    os.mkdir("d")
    touch("d/f", 0o777)
    os.chmod("d", 0o600)
    return [_access("d/f", os.F_OK), _access("d/f", os.R_OK)]


@case([False, True, False])
def access_asks_for_the_real_user_unless_told_otherwise(me: Identity) -> Observed:
    """Somebody with the stranger's effective id, who is really the one who owns the file."""
    touch("f", 0o400)
    if me is ROOT:
        os.chown("f", STRANGER.uid, STRANGER.gid)
    with ROOT.acting():
        os.setresuid(STRANGER.uid, -1, 0)  # really the stranger, in effect root
        really = os.access("f", os.W_OK)
        in_effect = os.access("f", os.W_OK, effective_ids=True)
        os.setresuid(0, STRANGER.uid, 0)  # really root, in effect the stranger
        reversed_effect = os.access("f", os.W_OK, effective_ids=True)
    return [really, in_effect, reversed_effect]
