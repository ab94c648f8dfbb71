"""Data repository tasks: what one is asked to do, where it stands, and what may become of it (FSX-FACTS §4).

Paths of files are bytes below the tree's root. Times are nanoseconds since the epoch.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, replace

KEPT_NS = 14 * 86_400 * 10**9
"""How long a task is listed after its end."""
DAY_NS = 86_400 * 10**9


class TaskType(enum.Enum):
    """The values are FSx's words; the last two are ours."""

    EXPORT = "EXPORT_TO_REPOSITORY"
    IMPORT = "IMPORT_METADATA_FROM_REPOSITORY"
    RELEASE = "RELEASE_DATA_FROM_FILESYSTEM"
    RESTORE = "RESTORE_DATA"
    RECONCILE = "RECONCILE"

    @property
    def reads_listing(self) -> bool:
        """Its paths may be ``s3://`` prefixes."""
        return self in {TaskType.IMPORT, TaskType.RECONCILE}

    @property
    def may_export(self) -> bool:
        """Also where the association does not by itself."""
        return self in {TaskType.EXPORT, TaskType.RECONCILE}

    @property
    def report_name(self) -> str:
        return "report.csv" if self is TaskType.IMPORT else "failures.csv"


class TaskLifecycle(enum.Enum):
    PENDING = "PENDING"
    EXECUTING = "EXECUTING"
    FAILED = "FAILED"
    SUCCEEDED = "SUCCEEDED"
    CANCELED = "CANCELED"
    CANCELING = "CANCELING"

    @property
    def has_ended(self) -> bool:
        return self in {TaskLifecycle.FAILED, TaskLifecycle.SUCCEEDED, TaskLifecycle.CANCELED}


class Step(enum.Enum):
    """What happens to a task."""

    BEGIN = "begin"
    """Also once more, after a restart of the daemon."""
    CANCEL = "cancel"
    SUCCEED = "succeed"
    FAIL = "fail"
    """It came to its end, and something failed; or it could not go on."""
    STOP = "stop"
    """What was in flight when it was cancelled is finished."""


_L, _S = TaskLifecycle, Step
TRANSITIONS: dict[tuple[TaskLifecycle, Step], TaskLifecycle] = {
    (_L.PENDING, _S.BEGIN): _L.EXECUTING,
    (_L.PENDING, _S.CANCEL): _L.CANCELING,
    (_L.EXECUTING, _S.BEGIN): _L.EXECUTING,
    (_L.EXECUTING, _S.CANCEL): _L.CANCELING,
    (_L.EXECUTING, _S.SUCCEED): _L.SUCCEEDED,
    (_L.EXECUTING, _S.FAIL): _L.FAILED,
    (_L.CANCELING, _S.CANCEL): _L.CANCELING,
    # Who cancelled is told that it was, though all of it may be done by then.
    (_L.CANCELING, _S.SUCCEED): _L.CANCELED,
    (_L.CANCELING, _S.FAIL): _L.CANCELED,
    (_L.CANCELING, _S.STOP): _L.CANCELED,
}
"""What is not here can't happen: an ended task stays as it ended."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a task is asked to do. ``paths``: below the tree's root ('' is all of it), or ``s3://`` prefixes; none at
    all means everything. Names that are no UTF-8 are surrogates, as `os.fsdecode` makes them."""

    type: TaskType
    paths: tuple[str, ...] = ()
    report: str | None = None
    """``s3://…`` below which the completion report goes; the local copy is written anyhow."""
    idle_ns: int = 0
    """RELEASE: only files that nobody touched for longer than this, when the task was made."""
    deletes: bool = False
    """Bring deletes over too. FSx's tasks never do."""
    accept_deletes: bool = False
    """However many there are (DESIGN §3.6)."""
    owner_uid: int | None = None
    """Only files of this user are released or restored; None: everybody's."""
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Equal for orders that ask for the same."""
        return hashlib.sha256(repr(self).encode("utf-8", "backslashreplace")).hexdigest()[:16]

    def is_duplicate_of(self, other: Order) -> bool:
        """FSx refuses to do the same twice at once: same type, same paths (FSX-FACTS §4.4)."""
        return self.type is other.type and frozenset(self.paths) == frozenset(other.paths)

    def encode(self) -> str:
        return json.dumps(
            {
                "type": self.type.value,
                "paths": self.paths,
                "report": self.report,
                "idle_ns": self.idle_ns,
                "deletes": self.deletes,
                "accept_deletes": self.accept_deletes,
                "owner_uid": self.owner_uid,
                "tags": self.tags,
            }
        )

    @classmethod
    def decode(cls, text: str) -> Order:
        known = json.loads(text)
        return cls(
            type=TaskType(known["type"]),
            paths=tuple(known["paths"]),
            report=known["report"],
            idle_ns=known["idle_ns"],
            deletes=known["deletes"],
            accept_deletes=known["accept_deletes"],
            owner_uid=known["owner_uid"],
            tags=tuple((key, value) for key, value in known["tags"]),
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a task came: the number of its stage, and the sort key (catalog order) of the last path in it that is
    done with. Whatever comes later is done once more after a crash, which does no harm."""

    stage: int = 0
    after: bytes = b""


@dataclass(frozen=True, slots=True)
class Counts:
    """``total`` is an estimate until the task ends, then it is the sum of the two others; of a cancelled one it stays
    the estimate, which tells how much was left. ``moved``: bytes that were exported, freed or loaded."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    moved: int = 0

    def plus(self, *, succeeded: int = 0, failed: int = 0, moved: int = 0) -> Counts:
        done = self.succeeded + self.failed + succeeded + failed
        return Counts(max(self.total, done), self.succeeded + succeeded, self.failed + failed, self.moved + moved)

    def at_end(self) -> Counts:
        return replace(self, total=self.succeeded + self.failed)


@dataclass(frozen=True, slots=True)
class Task:
    """One task as it stands. ``failure`` says why it FAILED; ``token`` is the ClientRequestToken it came with."""

    id: str
    order: Order
    created_ns: int
    lifecycle: TaskLifecycle = TaskLifecycle.PENDING
    started_ns: int | None = None
    ended_ns: int | None = None
    updated_ns: int = 0
    counts: Counts = Counts()
    cursor: Cursor = Cursor()
    failure: str = ""
    token: str | None = None

    def step(self, step: Step, now_ns: int, *, failure: str = "") -> Task:
        """The task after that happened.

        Raises:
            KeyError: it can't, in this state.
        """
        after = TRANSITIONS[self.lifecycle, step]
        is_through = after.has_ended and after is not TaskLifecycle.CANCELED
        started_ns = self.started_ns
        if step is Step.BEGIN and started_ns is None:
            started_ns = now_ns
        return replace(
            self,
            lifecycle=after,
            started_ns=started_ns,
            ended_ns=now_ns if after.has_ended else None,
            updated_ns=now_ns,
            counts=self.counts.at_end() if is_through else self.counts,
            failure=failure if after is TaskLifecycle.FAILED else self.failure,
        )


FAILED = "failed"
WARNING = "succeeded with warning"


@dataclass(frozen=True, slots=True)
class Failure:
    """One row of a completion report. ``status`` is ``failed`` or ``succeeded with warning``; ``code`` one of FSx's."""

    path: bytes
    code: str
    message: str
    status: str = FAILED

    @property
    def is_warning(self) -> bool:
        return self.status == WARNING


REPORT_CODES = frozenset(
    {
        "FileSizeTooLarge",
        "InternalError",
        "OperationNotPermitted",
        "PathSizeTooLong",
        "ResourceBusy",
        "S3AccessDenied",
        "S3Error",
        "S3FileDeleted",
        "S3ObjectInUnsupportedTier",
        "S3ObjectNotFound",
        "S3ObjectPathNotPosixCompliant",
        "S3ObjectTypeMismatch",
        "S3ObjectUpdateInProgressFromFileRename",
        "S3SymlinkInUnsupportedTier",
        "SourceObjectDeletedBeforeReleasing",
    }
)
"""FSX-FACTS §4.5."""
_IN_FSX_WORDS = {
    "S3ImportBucketDoesNotExist": "S3Error",
    "S3ObjectChecksumMismatch": "S3Error",
    "S3ExportLocalObjectReleaseWithoutS3Source": "S3FileDeleted",
    "Conflict": "OperationNotPermitted",
    "BadRequest": "OperationNotPermitted",
}


def report_code(code: str) -> str:
    """An error's code in the words of a completion report."""
    return code if code in REPORT_CODES else _IN_FSX_WORDS.get(code, "InternalError")


def report_row(failure: Failure) -> bytes:
    """A line of a completion report: RFC 4180, and one more layer of quotes where a spreadsheet would take the path
    for a formula (FSX-FACTS §4.5). A name that is no UTF-8 stands there as its bytes."""
    path = failure.path
    if path[:1] in {b"@", b"+", b"-", b"="}:
        path = _quoted(path)
    return b",".join(map(_field, (path, failure.status.encode(), failure.code.encode()))) + b"\r\n"


def _field(value: bytes) -> bytes:
    return _quoted(value) if any(mark in value for mark in (b'"', b",", b"\r", b"\n")) else value


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"'
