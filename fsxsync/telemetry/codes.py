"""The event log's codes, in FSx's own words where FSx has them (FSX-FACTS §5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Level = Literal["INFO", "WARN", "ERROR"]
Flow = Literal["import", "export", "restore", "association", "daemon"]

LEVELS: tuple[Level, ...] = ("INFO", "WARN", "ERROR")


@dataclass(frozen=True, slots=True)
class Code:
    """``type`` is for people. ``flow`` is where the code usually comes from."""

    level: Level
    flow: Flow
    type: str


_FSX: Mapping[str, Code] = {
    "S3ImportListObjectError": Code("ERROR", "import", "List objects failure"),
    "S3ImportUnsupportedTierWarning": Code("WARN", "import", "Unsupported S3 storage class"),
    "S3ImportSymlinkInUnsupportedTierWarning": Code("ERROR", "import", "Unsupported symlink storage class"),
    "S3ImportAccessDenied": Code("ERROR", "import", "S3 access denied"),
    "S3ImportDeleteAccessDenied": Code("ERROR", "import", "Delete access denied"),
    "S3ImportObjectPathNotPosixCompliant": Code("ERROR", "import", "Non-POSIX compliant object"),
    "S3ImportObjectTypeMismatch": Code("ERROR", "import", "Object type mismatch"),
    "S3ImportDirectoryMetadataUpdateError": Code("ERROR", "import", "Directory metadata update failure"),
    "S3ImportObjectDeleted": Code("ERROR", "import", "S3 object not found"),
    "S3ImportBucketDoesNotExist": Code("ERROR", "import", "S3 bucket not found (import)"),
    "S3ImportDeleteBucketDoesNotExist": Code("ERROR", "import", "S3 bucket not found (local delete)"),
    "S3ImportDirectoryCreateError": Code("ERROR", "import", "Directory creation failure"),
    "NoDiskSpace": Code("ERROR", "import", "Disk space full"),
    "S3ExportInternalError": Code("ERROR", "export", "Internal error exporting object"),
    "S3ExportAccessDenied": Code("ERROR", "export", "Access denied"),
    "S3ExportPathSizeTooLong": Code("ERROR", "export", "Export path too long"),
    "S3ExportFileSizeTooLarge": Code("ERROR", "export", "File too large"),
    "S3ExportResourceBusy": Code("ERROR", "export", "Resource busy"),
    "S3ExportLocalObjectReleaseWithoutS3Source": Code("WARN", "export", "File released, object missing: skipped"),
    "S3ExportLocalObjectNotMatchDra": Code("WARN", "export", "Data repository path mismatch: skipped"),
    "InternalAutoExportError": Code("ERROR", "export", "Internal failure (auto export)"),
    "S3CompletionReportUploadFailure": Code("ERROR", "export", "Completion report upload failure"),
    "S3CompletionReportValidateFailure": Code("ERROR", "export", "Completion report validation failure"),
}
"""FSx's machine codes of 2022 with the types of 2026."""

_FSX_WITHOUT_CODE: Mapping[str, Code] = {
    "S3ImportFileNameTooLong": Code("ERROR", "import", "File name too long (255 bytes)"),
    "S3ExportKmsKeyNotFound": Code("ERROR", "export", "KMS key not found"),
    "S3RestoreAccessDenied": Code("ERROR", "restore", "Access denied"),
    "S3RestoreUnsupportedTierWarning": Code("WARN", "restore", "Unsupported storage class"),
    "S3RestoreObjectDeleted": Code("ERROR", "restore", "S3 object not found"),
    "S3RestoreBucketDoesNotExist": Code("ERROR", "restore", "S3 bucket not found"),
}
"""Types that FSx documents without a machine code; the codes are ours, built like its own."""

_REPORT: Mapping[str, Code] = {
    "S3AccessDenied": Code("ERROR", "import", "S3 access denied"),
    "S3Error": Code("ERROR", "import", "S3 request failure"),
    "S3FileDeleted": Code("ERROR", "import", "S3 object not found"),
    "S3ObjectInUnsupportedTier": Code("WARN", "import", "Unsupported S3 storage class"),
    "S3ObjectNotFound": Code("ERROR", "import", "S3 object not found"),
    "S3ObjectPathNotPosixCompliant": Code("ERROR", "import", "Non-POSIX compliant object"),
    "S3ObjectTypeMismatch": Code("ERROR", "import", "Object type mismatch"),
    "S3SymlinkInUnsupportedTier": Code("ERROR", "import", "Unsupported symlink storage class"),
    "FileSizeTooLarge": Code("ERROR", "export", "File too large"),
    "INTERNAL_ERROR": Code("ERROR", "export", "Internal error exporting object"),
    "InternalError": Code("ERROR", "daemon", "Internal error"),
    "OperationNotPermitted": Code("WARN", "export", "File can't be exported"),
    "PathSizeTooLong": Code("WARN", "export", "Export path too long"),
    "ResourceBusy": Code("ERROR", "export", "Resource busy"),
}
"""Codes of completion reports (FSX-FACTS §4.5), which `fsxsync.errors` carries too."""

_OURS: Mapping[str, Code] = {
    "Conflict": Code("WARN", "import", "Both sides changed"),
    "ConflictResolved": Code("INFO", "import", "A person chose a version"),
    "ExtendedAttributesLeft": Code("WARN", "export", "Extended attributes left behind"),
    "InotifyOverflow": Code("WARN", "export", "Change records lost, tree is scanned"),
    "MachineWentDown": Code("WARN", "association", "The tree may have lost what was done last"),
    "MassDeleteStopped": Code("ERROR", "association", "Too much is gone at once: nothing is deleted"),
    "PoisonMessage": Code("WARN", "import", "Unreadable queue message dropped"),
    "S3ObjectChecksumMismatch": Code("ERROR", "restore", "Data does not fit the object's checksum"),
    "S3ObjectEncryptedByCustomer": Code("ERROR", "import", "Object encrypted with its customer's own key"),
    "S3ObjectRestoreRequested": Code("INFO", "restore", "Restore of an archived object requested"),
    "S3ObjectRestored": Code("INFO", "restore", "Archived object restored"),
    "S3OptionRefused": Code("ERROR", "association", "The bucket refuses an option"),
    "StrayMessage": Code("INFO", "import", "Queue message for no association"),
    "EventQueueDoesNotExist": Code("ERROR", "import", "Event queue not found"),
    "EventNotificationOverlap": Code("ERROR", "association", "Another notification takes the same events"),
    "EventRouteBroken": Code("ERROR", "import", "The bucket's notification is gone"),
    "FileRecovered": Code("WARN", "daemon", "A file was out of its place when the daemon died"),
    "EventsDropped": Code("WARN", "daemon", "Events could not be written"),
}

_AS_EVENT: Mapping[tuple[str, str], str] = {
    ("import", "S3AccessDenied"): "S3ImportAccessDenied",
    ("import", "S3FileDeleted"): "S3ImportObjectDeleted",
    ("import", "S3ObjectNotFound"): "S3ImportObjectDeleted",
    ("import", "S3ObjectInUnsupportedTier"): "S3ImportUnsupportedTierWarning",
    ("import", "S3SymlinkInUnsupportedTier"): "S3ImportSymlinkInUnsupportedTierWarning",
    ("import", "S3ObjectPathNotPosixCompliant"): "S3ImportObjectPathNotPosixCompliant",
    ("import", "S3ObjectTypeMismatch"): "S3ImportObjectTypeMismatch",
    ("export", "S3AccessDenied"): "S3ExportAccessDenied",
    ("export", "S3Error"): "S3ExportInternalError",
    ("export", "S3ObjectNotFound"): "S3ExportInternalError",
    ("export", "FileSizeTooLarge"): "S3ExportFileSizeTooLarge",
    ("export", "PathSizeTooLong"): "S3ExportPathSizeTooLong",
    ("export", "ResourceBusy"): "S3ExportResourceBusy",
    ("export", "InternalError"): "S3ExportInternalError",
    ("export", "INTERNAL_ERROR"): "S3ExportInternalError",
    ("restore", "S3AccessDenied"): "S3RestoreAccessDenied",
    ("restore", "S3ObjectNotFound"): "S3RestoreObjectDeleted",
    ("restore", "S3FileDeleted"): "S3RestoreObjectDeleted",
    ("restore", "S3ObjectInUnsupportedTier"): "S3RestoreUnsupportedTierWarning",
    ("restore", "S3ImportBucketDoesNotExist"): "S3RestoreBucketDoesNotExist",
}
"""The same failure in the words of a completion report, which an error carries, and in those of the event log, which
say in which direction it happened (FSX-FACTS §5.3)."""

CODES: Mapping[str, Code] = {**_FSX, **_FSX_WITHOUT_CODE, **_REPORT, **_OURS}


def as_event(code: str, flow: str) -> str:
    """What the event log calls a failure that happened in that flow."""
    return _AS_EVENT.get((flow, code), code)


def type_of(code: str) -> str:
    """The type for people; the code itself where it is not known."""
    known = CODES.get(code)
    return known.type if known is not None else code
