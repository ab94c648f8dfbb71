"""AWS JSON 1.1 as FSx speaks it (FSX-FACTS §10), and the only place where errors go to the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fsxsync.errors import BadInput, FsxSyncError

FSX = "AWSSimbaAPIService_v20180301"
FSXSYNC = "FsxSync_v1"
"""Operations that FSx lacks: ours, for our own client."""
CONTENT_TYPE = "application/x-amz-json-1.1"
LINES_CONTENT_TYPE = "application/x-ndjson"
LAST_LINE = {"end": True}
"""What says that an answer of lines is whole."""
BODY_MAX = 1 << 20
"""Bytes of a request; the longest lawful one, a state of many paths, has some hundred KiB."""
MESSAGE_MAX = 256
"""Characters of an ErrorMessage (FSX-FACTS §1.2)."""
SOCKET_NAME = "control.sock"

FSX_CODES = frozenset(
    {
        "BadRequest",
        "DataRepositoryAssociationNotFound",
        "DataRepositoryTaskEnded",
        "DataRepositoryTaskExecuting",
        "DataRepositoryTaskNotFound",
        "FileSystemNotFound",
        "IncompatibleParameterError",
        "InvalidDataRepositoryType",
        "ServiceLimitExceeded",
        "UnknownOperationException",
        "UnsupportedOperation",
        "SerializationException",
    }
)
"""Codes that a client of FSx's API may get; all else that it could mend itself is a BadRequest."""

Document = dict[str, Any]


class FileSystemNotFound(BadInput):
    code = "FileSystemNotFound"
    advice = "'aws fsx describe-file-systems' names the one file system of this daemon"


class IncompatibleParameter(BadInput):
    """The same ClientRequestToken came with other parameters."""

    code = "IncompatibleParameterError"
    advice = "use a new ClientRequestToken"

    def __init__(self, parameter: str, why: str) -> None:
        super().__init__(f"{parameter} can't be used", why)
        self.parameter = parameter


class InvalidDataRepositoryType(BadInput):
    code = "InvalidDataRepositoryType"


class UnknownOperation(BadInput):
    code = "UnknownOperationException"


class Malformed(BadInput):
    code = "SerializationException"
    advice = "send one JSON object"


class TooLarge(BadInput):
    code = "RequestEntityTooLargeException"


def encode(document: object) -> bytes:
    """ASCII only: a name that is no UTF-8 travels as lone surrogates and comes out as it was."""
    return json.dumps(document).encode("ascii")


def parse(body: bytes) -> Document:
    """Raises: Malformed."""
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Malformed("the request can't be read", f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise Malformed("the request can't be read", f"it is a JSON {type(document).__name__}")
    return document


def fault(error: FsxSyncError, service: str) -> tuple[int, Document]:
    """HTTP status and body of an expected error. Our own client gets all of it, FSx's clients what they know."""
    code = error.code
    if service == FSX and code not in FSX_CODES:
        code = "BadRequest"
    text = str(error)
    document: Document = {
        "__type": code,
        "Message": text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…",
    }
    if isinstance(error, IncompatibleParameter):
        document["Parameter"] = error.parameter
    if service != FSX:
        document |= {
            "What": error.what,
            "Why": error.why,
            "Advice": error.advice,
            "ExitCode": error.exit_code,
            "Errno": error.errno,
        }
    return (413 if isinstance(error, TooLarge) else 400), document


def bug(service: str) -> tuple[int, Document]:
    """The answer where we have made a mistake; the traceback is in the daemon's log only."""
    what, advice = "the daemon failed at this request", "its log has the traceback; please report it"
    document: Document = {
        "__type": "InternalServerError" if service == FSX else "InternalError",
        "Message": f"{what}; {advice}",
    }
    if service != FSX:
        document |= {"What": what, "Why": "", "Advice": advice, "ExitCode": 1}
    return 500, document


class DaemonError(FsxSyncError):
    """What the daemon answered: the same text, code and exit code as over there."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        super().__init__(
            str(document.get("What") or document.get("Message") or "the daemon refused the request"),
            str(document.get("Why", "")),
            advice=str(document.get("Advice", "")),
        )
        self.code = str(document.get("__type", "InternalError"))
        self.exit_code = int(document.get("ExitCode", 1))
        self.errno = int(document.get("Errno", self.errno))
