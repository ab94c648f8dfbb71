"""What the control server asks of sync. Implementation: sync/engine.py; fake: tests/fakes/administration.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from fsxsync.model.association import Association
from fsxsync.model.difference import Difference
from fsxsync.model.finding import Finding, Tally
from fsxsync.model.identity import Kind
from fsxsync.model.measures import Histogram, Measures
from fsxsync.model.open_conflict import Conflict, Keep
from fsxsync.model.task import Task
from fsxsync.model.why import Evidence
from fsxsync.ports.store import Conditions
from fsxsync.ports.tasks import TaskBoard


class FileState(NamedTuple):
    """One row of ``fsxsync state`` (CLI.md). ``flags`` in Lustre's words and order; ``bits`` their value.

    A tuple: they are made by the hundred thousand.
    """

    path: str
    bits: int
    flags: tuple[str, ...]
    kind: Kind
    resident_bytes: int
    size: int
    etag: str | None
    version_id: str | None
    key: str | None
    association: str | None
    pending: bool
    error: str | None


@dataclass(frozen=True, slots=True)
class PendingItem:
    path: str
    association: str
    age_s: float
    attempts: int
    error: str | None
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class AssociationStatus:
    """An association with its counters, as ``associations`` and ``status`` show it."""

    association: Association
    pending: int
    pending_imports: int
    pending_exports: int
    oldest_pending_s: float
    conflicts: int
    errors: int
    not_exportable: int
    imported: int
    exported: int
    conditions: Conditions | None = None
    import_lag_s: float = 0.0
    """Age of the oldest change in the repository that is not here yet, as far as it is known (FSx:
    AgeOfOldestQueuedMessage for AutoImport)."""
    source: str = ""
    """``sqs``, ``poll`` or ``none``, and when it was last read."""
    ignored: tuple[str, ...] = ()
    """The patterns of the ignore list that are obeyed now."""
    recent_errors: tuple[PendingItem, ...] = ()
    held: int = 0
    """Paths that wait for something in the repository: an archived object, one under a lock."""
    restoring: int = 0
    """Archived objects whose restore was asked for."""
    lost: int = 0
    """Released files whose objects are gone."""
    export_lag_s: float = 0.0
    """Age of the oldest change in the tree that is not in the repository yet (FSx: AgeOfOldestQueuedMessage for
    AutoExport)."""
    cache_bytes: int = 0
    down_per_s: float = 0.0
    up_per_s: float = 0.0
    """Bytes a second, of the last ten seconds."""
    counts: Measures = field(default_factory=Measures)


@dataclass(frozen=True, slots=True)
class Status:
    """``fsxsync status``; ``needs_person`` makes its exit code 1."""

    version: str
    state_dir: str
    tree: str
    mount: str | None
    data_path: str
    data_path_reason: str
    watch: str
    pid: int
    started_s: float
    associations: tuple[AssociationStatus, ...]
    open_for_writing: int
    cache_bytes: int
    cache_free_bytes: int
    transfers: Mapping[str, float] = field(default_factory=dict)
    needs_person: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    """Those that have not ended, the oldest of them."""
    operations: Mapping[tuple[str, str], Histogram] = field(default_factory=dict)
    opens: tuple[int, int] = (0, 0)
    """See `ports.Front`."""


class Administration(Protocol):
    """What the control server may ask of the daemon. All raise FsxSyncError. Implemented by sync/engine.py."""

    @property
    def tasks(self) -> TaskBoard: ...

    async def create(self, association: Association, *, wait: bool) -> Association:
        """``association.id`` is '' on the way in. Validates (overlap, bucket, permission), makes the directory,
        probes the store, imports the listing; with ``wait`` returns when it is AVAILABLE, or raises what is wrong
        (nothing is left behind then); without, returns it CREATING at once after the cheap checks."""

    async def update(self, association: Association) -> Association: ...

    def accept_deletes(self, association_id: str) -> None:
        """Go on with a stopped mass delete: believe the next listing, or the scan of the tree that was refused,
        however much is gone (DESIGN §3.6)."""

    async def delete(self, association_id: str, *, delete_data: bool, force: bool, hydrate: bool) -> Association:
        """Drains first. Returns it DELETING (or gone). Never deletes an object (DESIGN §3.6)."""

    def associations(self) -> tuple[Association, ...]: ...

    def status(self) -> Status: ...

    def state(self, tree_paths: Sequence[bytes], *, recursive: bool) -> AsyncIterator[Sequence[FileState]]:
        """Of each path, and with ``recursive`` of all below it, some hundreds at a time."""

    def check(
        self, tree_paths: Sequence[bytes], *, verify: bool, repair: bool = False
    ) -> AsyncIterator[Finding | Tally]:
        """Every broken rule at these paths and below them (b"" is everything), the tally last. ``verify`` reads the
        files that are here, and compares them with what was synced and with their objects. ``repair`` brings in order
        what can be without losing anything, and says of each what became of it."""

    async def why(self, tree_path: bytes) -> Evidence:
        """All there is to know of one path, its object looked at now; changes nothing."""

    def diff(self, tree_path: bytes) -> AsyncIterator[Difference]:
        """Every path at and below this one where tree and repository differ; changes nothing."""

    def conflicts(self) -> tuple[Conflict, ...]:
        """The open ones of all associations; ``path`` and ``kept_as`` are below the tree's root."""

    async def resolve(self, tree_path: bytes, keep: Keep) -> tuple[Conflict, ...]:
        """Carry a person's choice out, for the conflicts of that path or of the copy there; those closed now. One
        that can't be closed stays as it is; ConflictMoved: it is not what `conflicts` showed."""

    async def wait(self, tree_path: bytes, timeout_s: float) -> tuple[PendingItem, ...]:
        """Empty when nothing is pending below the path and the sources have been read up to now."""

    async def drain(self, timeout_s: float) -> int:
        """Stop taking in new imports, wait for pending exports; the number of changes left."""

    def stop(self) -> None:
        """End the daemon as SIGTERM would."""
