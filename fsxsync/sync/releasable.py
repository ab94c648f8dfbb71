"""What lies here against releasing files of an association: asked for many at a time, in one moment (DESIGN §5)."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.release import Refusal, Use, refuse_release
from fsxsync.sync.served import Served
from fsxsync.tree.flags import FlagReader


class Candidate(NamedTuple):
    """A file that shall be released, as a walk saw it; ``path`` is relative to its association, ``base`` its row where
    somebody read it just now."""

    path: bytes
    local: Local
    base: Base | None = None


@dataclass(frozen=True, slots=True)
class Moment:
    """What is asked once for many files. Holds until the next await."""

    served: Served
    flags: FlagReader
    has_own: bool
    """Else only what files inherit counts, which is one for all in a directory."""
    is_any_pending: bool
    open_inodes: AbstractSet[int]
    _kept_in: dict[bytes, bool] = field(default_factory=dict)

    def is_open(self, ino: int) -> bool:
        return ino in self.open_inodes or ino in self.served.shared.writers

    def is_kept(self, path: bytes) -> bool:
        if self.has_own:
            return self.flags.of(self.served.tree_path(path)).norelease
        directory = path.rpartition(b"/")[0]
        if (is_kept := self._kept_in.get(directory)) is None:
            is_kept = self._kept_in[directory] = self.flags.inside(self.served.tree_path(directory)).norelease
        return is_kept

    def is_pending(self, path: bytes) -> bool:
        return self.is_any_pending and is_pending(self.served, path)


def moment_of(served: Served, flags: FlagReader | None = None) -> Moment:
    """This one. Without ``flags`` only what files inherit counts: marks ask for their own (`tree.releasing`)."""
    shared = served.shared
    is_any_pending = shared.catalog.changelog.count(served.id)[0] > 0
    return Moment(served, flags or shared.tree.flags(), flags is not None, is_any_pending, shared.front.open_inodes())


_FILE = Kind.FILE  # the enumeration is asked for its members in five times as long


def is_plain(local: Local, row: Base) -> bool:
    """A file with data and one name, as it was exported, as nearly all are. If it is idle too, `judge` has nothing
    against its release, and takes five times as long to say so."""
    return (
        local.nlink == 1
        and local.size > 0
        and not row.released
        and row.kind is _FILE
        and row.etag is not None
        and row.remote_size == row.size
        and row.matches_local(local)
    )


def is_idle(base: Base, moment: Moment) -> bool:
    """Nothing goes on at a file with one name, which is where its row says, that is against its release."""
    ino, path = base.ino, base.path
    return not (
        moment.is_open(ino) or ino in moment.served.shared.hydrating or moment.is_kept(path) or moment.is_pending(path)
    )


def is_pending(served: Served, path: bytes) -> bool:
    return any(entry.path == path for entry in served.shared.catalog.changelog.pending(served.id, path, 1))


def _use_of(path: bytes, local: Local, names: Sequence[Base], moment: Moment) -> Use:
    """What goes on at a file right now."""
    paths = {row.path for row in names} | {path}
    return Use(
        is_open=moment.is_open(local.ino),
        is_kept=any(map(moment.is_kept, paths)),
        is_loading=local.ino in moment.served.shared.hydrating,
        is_pending=any(map(moment.is_pending, paths)),
        is_moving=any(row.path != path and not _stands(moment.served, row, local) for row in names),
    )


def _stands(served: Served, row: Base, local: Local) -> bool:
    """The file is still found under the name that the row knows."""
    here = served.shared.tree.identify(served.tree_path(row.path))
    return here is not None and here.ino == local.ino


def judge(one: Candidate, base: Base | None, moment: Moment) -> tuple[list[Base], Refusal | None]:
    """The rows of all names of a file, and the first reason against its release that lies here. No await."""
    path, local, served = one.path, one.local, moment.served
    names = [base] if base is not None and base.ino == local.ino else []
    if local.nlink > 1 or not names:
        names += [row for row in served.shared.other_names(local.ino, served.id, path) if row.association == served.id]
    use = _use_of(path, local, names, moment)
    if base is None or base.ino != local.ino:
        was_it = any((row.size, row.mtime_ns) == (local.size, local.mtime_ns) for row in names)
        return [], refuse_release(local, (), replace(use, is_moving=use.is_moving and was_it))
    return names, _or_look_again(served, local, names, refuse_release(local, names, use))


def _or_look_again(served: Served, local: Local, names: Sequence[Base], refusal: Refusal | None) -> Refusal | None:
    """What lost a name that no row knows was told to nobody, and seems to be changed."""
    may_match = refusal is not None and any(row.may_match(local) and not row.released for row in names)
    if not may_match or len(names) != local.nlink:
        return refusal
    for row in names:
        served.add_hint(row.path, local=True)
    if not served.association.policy.exports:
        return refusal  # what changed stays changed
    return Refusal("ResourceBusy", "something happened to it: it is looked at once more")
