"""One tree of errors: every class is something a caller can act on.

FsxSyncError                       errno, FSx code, advice, exit code
├── BadInput                       the caller's words are off (exit 2)
│   ├── AssociationOverlap         path or prefix lies in another association's
│   ├── KeyNotPosix                an object key that is no path in the tree
│   ├── NotExportable              a file that S3 can't hold (kind, name, length)
│   └── TaskTokenUsed              a request's token came with another request before
├── AssociationNotFound
├── NoDaemon                       nobody answers on this state directory (exit 3)
├── DaemonRunning                  somebody else serves this state directory
├── StillPending                   changes are left after a time-out
├── ConflictMoved                  a conflict is not what it was listed as: nothing was done, list it again
├── TaskNotFound, TaskEnded, TaskExecuting, TaskUnsupported
├── TaskFailed                     a task could not go on, or some of its files failed
├── MountError
│   ├── MountPointUnusable         missing, not a directory, busy, not empty
│   └── FuseUnavailable            no /dev/fuse, or no right to use it
├── CatalogError
│   └── CatalogCorrupt
├── TreeError
│   ├── NoUserXattrs               the file system can't mark stubs
│   ├── IgnoreListUnreadable       an association's ignore list says nothing that can be obeyed
│   ├── TreeMoved                  the root or an association's directory is not the one we know
│   ├── LocalChanged               the file is no longer what was judged: look again
│   ├── PathEscapes                a path would leave the tree
│   ├── StubDamaged                a stub whose data was touched by something other than us
│   └── NoSpace
└── RepositoryError
    ├── AccessDenied               … ObjectLocked: a retention or legal hold forbids it for now
    ├── BadCredentials, BucketMissing, EndpointUnreachable, Throttled
    ├── QueueMissing               the event queue is gone
    ├── EventsOverlap              somebody else's notification takes the same events
    ├── ObjectChanged              the object is no longer what was judged: look again
    ├── ObjectMissing
    ├── ObjectDamaged              the bytes that came don't fit the object's checksum
    ├── ObjectArchived             a storage class that must be restored first
    ├── ObjectEncrypted            with a key that only its owner has (SSE-C)
    ├── OptionRefused              the bucket does not take what the association asks of every object
    ├── TypeClash                  a file here, a directory there
    └── KeyRefused                 the store does not take this key or request … ObjectTooLarge: nor so many bytes

InvariantBroken is a BaseException on purpose: no `except Exception` may swallow a bug that could cost data.
"""

from __future__ import annotations

import errno as _errno


class InvariantBroken(BaseException):
    """A rule that the design calls unbreakable was broken; the daemon ends and a restart converges."""


class FsxSyncError(Exception):
    """Base of everything expected to go wrong. Reads as ``what: why; what to do``."""

    errno: int = _errno.EIO
    code: str = "InternalError"
    advice: str = ""
    exit_code: int = 1
    flow: str = ""
    """The event log's flow it happened in, where whoever was at work knew: an export, an import."""

    def __init__(self, what: str, why: str = "", *, advice: str | None = None) -> None:
        super().__init__(what, why)
        self.what = what
        self.why = why
        if advice is not None:
            self.advice = advice

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text}; {self.advice}" if self.advice else text


class BadInput(FsxSyncError):
    errno = _errno.EINVAL
    code = "BadRequest"
    exit_code = 2


class AssociationOverlap(BadInput):
    advice = "associations must not contain each other; choose another path or prefix"


class KeyNotPosix(BadInput):
    code = "S3ObjectPathNotPosixCompliant"
    advice = "the object stays where it is; give it a key without empty, '.' or '..' parts to see it as a file"


class NotExportable(BadInput):
    """Carries the report code of FSX-FACTS §4.5 as ``code``."""

    code = "OperationNotPermitted"
    advice = "the file stays local"

    def __init__(self, what: str, why: str = "", *, code: str | None = None, advice: str | None = None) -> None:
        super().__init__(what, why, advice=advice)
        if code is not None:
            self.code = code


class AssociationNotFound(FsxSyncError):
    errno = _errno.ENOENT
    code = "DataRepositoryAssociationNotFound"
    advice = "'fsxsync associations' lists what there is"


class NoDaemon(FsxSyncError):
    exit_code = 3
    advice = "start one with 'fsxsync mount' or 'fsxsync watch', or name another --state-dir"


class DaemonRunning(FsxSyncError):
    errno = _errno.EBUSY
    advice = "'fsxsync status' asks it, 'fsxsync unmount' ends it"


class StillPending(FsxSyncError):
    errno = _errno.ETIMEDOUT
    advice = "'fsxsync status' says what holds it up"


class ConflictMoved(FsxSyncError):
    errno = _errno.EAGAIN
    code = "ResourceBusy"
    advice = "nothing was lost; 'fsxsync conflicts' shows how it is now, then decide again"


class TaskNotFound(FsxSyncError):
    errno = _errno.ENOENT
    code = "DataRepositoryTaskNotFound"
    advice = "'fsxsync tasks' lists what there is; tasks are kept for 14 days after their end"


class TaskEnded(FsxSyncError):
    errno = _errno.EALREADY
    code = "DataRepositoryTaskEnded"
    advice = "nothing was in flight any more; what it did stays done"


class TaskExecuting(FsxSyncError):
    errno = _errno.EBUSY
    code = "DataRepositoryTaskExecuting"
    advice = "wait for it, or cancel it with 'fsxsync task cancel ID'"


class TaskTokenUsed(BadInput):
    """The same ClientRequestToken came with another order."""

    code = "IncompatibleParameterError"
    advice = "use a new ClientRequestToken"


class TaskUnsupported(FsxSyncError):
    errno = _errno.EOPNOTSUPP
    code = "UnsupportedOperation"


class TaskFailed(FsxSyncError):
    advice = "'fsxsync task show ID' lists what failed"


class MountError(FsxSyncError):
    pass


class MountPointUnusable(MountError):
    errno = _errno.EBUSY
    exit_code = 1


class FuseUnavailable(MountError):
    errno = _errno.ENODEV
    advice = "load the module with 'modprobe fuse' and install fuse3, or use 'fsxsync watch'"


class CatalogError(FsxSyncError):
    pass


class CatalogCorrupt(CatalogError):
    advice = (
        "stop the daemon, move catalog.db* out of the state directory and associate again: "
        "the tree and the repository hold all data, and equal files are adopted without transfer"
    )


class TreeError(FsxSyncError):
    pass


class NoUserXattrs(TreeError):
    errno = _errno.EOPNOTSUPP
    advice = "use a state directory on ext4, xfs or btrfs"


class IgnoreListUnreadable(TreeError):
    advice = "mend or remove it; until then nothing of this association travels"


class TreeMoved(TreeError):
    code = "S3ExportLocalObjectNotMatchDra"
    advice = "mount the right file system there and restart; nothing was deleted"


class LocalChanged(TreeError):
    """Not shown to users: the path goes back to the changelog."""

    errno = _errno.EAGAIN
    code = "ResourceBusy"


class KeptHere(TreeError):
    """norelease is set on the file itself."""

    code = "OperationNotPermitted"


class PathEscapes(TreeError):
    errno = _errno.EXDEV


class StubDamaged(TreeError):
    code = "S3ExportLocalObjectReleaseWithoutS3Source"
    advice = "write to released files through the mount; remove the file to get the object's version back"


class NoSpace(TreeError):
    errno = _errno.ENOSPC
    code = "NoDiskSpace"
    advice = "free some space on the file system of the state directory"


class RepositoryError(FsxSyncError):
    code = "S3Error"


class AccessDenied(RepositoryError):
    errno = _errno.EACCES
    code = "S3AccessDenied"
    advice = "grant s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, s3:DeleteObject on the prefix"


class ObjectLocked(AccessDenied):
    """S3 Object Lock, or a store that knows something like it."""

    advice = "it is tried again now and then; end the retention or the legal hold if it shall happen sooner"


class BadCredentials(RepositoryError):
    errno = _errno.EACCES
    code = "S3AccessDenied"
    advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a --profile"


class BucketMissing(RepositoryError):
    errno = _errno.ENOENT
    code = "S3ImportBucketDoesNotExist"
    advice = "create the bucket, or check the spelling, the region and the endpoint"


class QueueMissing(RepositoryError):
    errno = _errno.ENOENT
    code = "EventQueueDoesNotExist"
    advice = "create the queue, or check the URL and the region"


class EventsOverlap(RepositoryError):
    errno = _errno.EEXIST
    code = "EventNotificationOverlap"
    advice = (
        "S3 sends an event to one target only: remove that notification, share its events through SNS or EventBridge"
        " and name a queue of your own with --events sqs:QUEUE_URL, or use --poll"
    )


class EndpointUnreachable(RepositoryError):
    errno = _errno.EHOSTUNREACH
    advice = "check --endpoint-url and the network; pending changes are kept and tried again"


class Throttled(RepositoryError):
    errno = _errno.EAGAIN


class ObjectChanged(RepositoryError):
    """A condition (If-Match, If-None-Match) failed: the object is not the version that was judged."""

    errno = _errno.ESTALE
    code = "S3Error"


class ObjectMissing(RepositoryError):
    errno = _errno.ENOENT
    code = "S3ObjectNotFound"


class ObjectDamaged(RepositoryError):
    errno = _errno.EIO
    code = "S3ObjectChecksumMismatch"
    advice = "the data is not used; compare the object with another copy of it, and upload it again"


class ObjectArchived(RepositoryError):
    errno = _errno.ENODATA
    code = "S3ObjectInUnsupportedTier"
    advice = (
        "restore the object (aws s3api restore-object) and try again, or let reading ask for that:"
        " fsxsync association update ID --restore-archived standard"
    )

    def __init__(self, what: str, why: str = "", *, advice: str | None = None, key: str | None = None) -> None:
        """``key`` where somebody wanted the bytes: a restore of that object would help."""
        super().__init__(what, why, advice=advice)
        self.key = key


class ObjectEncrypted(RepositoryError):
    errno = _errno.EACCES
    code = "S3ObjectEncryptedByCustomer"
    advice = "fsxsync holds no keys: copy the object onto itself with SSE-S3 or SSE-KMS to have it as a file"


class OptionRefused(RepositoryError):
    code = "S3OptionRefused"


class TypeClash(RepositoryError):
    errno = _errno.ENOTDIR
    code = "S3ObjectTypeMismatch"
    advice = "rename or remove one of the two; both are left as they are"


class KeyRefused(RepositoryError):
    errno = _errno.EINVAL
    advice = "the file stays local; rename it to a name the store takes"


class ObjectTooLarge(KeyRefused):
    code = "FileSizeTooLarge"
    advice = "the file stays local; the store takes no object of that size"
