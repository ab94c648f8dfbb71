"""The API as a Starlette application: one route, to which every operation is posted."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fsxsync.control.answers import Answer, Lines
from fsxsync.control.authentication import Credentials, check_any
from fsxsync.control.documents import Document
from fsxsync.control.fsx import FsxApi
from fsxsync.control.fsx_documents import Place
from fsxsync.control.listening import is_loopback
from fsxsync.control.members import Members
from fsxsync.control.operations import Operations
from fsxsync.control.peer import NotYours, limited_to
from fsxsync.control.protocol import (
    BODY_MAX,
    CONTENT_TYPE,
    FSX,
    FSXSYNC,
    LAST_LINE,
    LINES_CONTENT_TYPE,
    TooLarge,
    UnknownOperation,
    bug,
    encode,
    fault,
    parse,
)
from fsxsync.control.task_operations import FOR_EVERYBODY
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.errors import BadInput, FsxSyncError, InvariantBroken
from fsxsync.ports import Administration
from fsxsync.telemetry.eventlog import EventLog

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 30.0
"""A request is some hundred bytes from this host: a client that is slower has forgotten it."""
_FLUSH_BYTES = 32 * 1024
"""Lines are sent in pieces of this size; one by one they would cost a system call each."""

_END = encode(LAST_LINE) + b"\n"


def create_app(
    administration: Administration,
    *,
    instance: str,
    undisturbed: Undisturbed,
    eventlog: EventLog,
    own_operations: bool = True,
    credentials: Sequence[Credentials] = (),
) -> Starlette:
    """``own_operations`` False leaves FSx's alone. ``credentials``: those that have to sign, over TCP, where anybody on
    this host may call."""
    operations = Operations(administration, undisturbed) if own_operations else None
    fsx = FsxApi(administration, Place.of_instance(instance), undisturbed)
    endpoint = _Endpoint(fsx, operations, eventlog, credentials)
    return Starlette(routes=[Route("/", endpoint=endpoint, methods=["POST"])])


class _Endpoint:
    def __init__(
        self, fsx: FsxApi, operations: Operations | None, eventlog: EventLog, credentials: Sequence[Credentials]
    ) -> None:
        self._fsx = fsx
        self._operations = operations
        self._eventlog = eventlog
        self._credentials = credentials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; end it where it waits if the client hangs up."""
        try:
            body = await _read(receive)
        except _HungUp:  # half a request is none
            return
        reply = _Reply(send)
        answered = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await self._prepare(scope, body, reply)
                answered = True
                nursery.cancel_scope.cancel()
        except* InvariantBroken as broken:
            raise _leaf(broken) from None  # bare: a group would be taken for a failed request, and logged
        if answered:
            # Not in the nursery: within the last send the server readies the connection for its next request.
            await reply.finish()

    async def _prepare(self, scope: Scope, body: bytes | None, reply: _Reply) -> None:
        """All of the answer but its last part."""
        headers = Headers(scope=scope)
        service, _, operation = headers.get("x-amz-target", "").partition(".")
        try:
            _check_host(scope, headers)
            if self._credentials:
                check_any(self._credentials, scope["method"], scope["path"], headers, body or b"", now_s=time.time())
            answer = await self._answer(service, operation, body)
            if isinstance(answer, Lines):
                await reply.lines(answer.documents)
            else:
                reply.document(200, answer.document, answer.afterwards)
        except FsxSyncError as error:
            reply.document(*fault(error, service))
        except Exception as error:
            log.exception("bug in a request", extra={"operation": operation})
            self._eventlog.emit(
                code="InternalError", flow="daemon", message=f"{operation}: {type(error).__name__}: {error}"
            )
            reply.document(*bug(service))

    async def _answer(self, service: str, operation: str, body: bytes | None) -> Answer | Lines:
        if body is None:
            raise TooLarge("the request can't be read", f"it is longer than {BODY_MAX} bytes, or too slow")
        if limited_to() is not None and (service != FSXSYNC or operation not in FOR_EVERYBODY):
            raise NotYours(f"{operation} is refused", "you are neither root nor the user who runs the daemon")
        if service == FSX and operation in self._fsx.operations:
            return Answer(await self._fsx.operations[operation](Members(parse(body), operation)))
        if service == FSXSYNC and self._operations is not None and operation in self._operations.operations:
            return await self._operations.operations[operation](Members(parse(body), operation))
        raise UnknownOperation(f"{service}.{operation}", "there is no such operation here", advice="check X-Amz-Target")


class _Reply:
    """The response of one request, sent in one piece at its end, or in parts if it has many lines."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._has_begun = False
        self._status = 200
        self._content_type = CONTENT_TYPE
        self._waiting = bytearray()
        self._afterwards: Callable[[], None] | None = None

    def document(
        self, status: int, document: Mapping[str, object], afterwards: Callable[[], None] | None = None
    ) -> None:
        if self._content_type == LINES_CONTENT_TYPE:  # it failed amid lines: that is the last of them
            self._waiting += encode({"error": document}) + b"\n" + _END
            return
        self._status, self._afterwards = status, afterwards
        self._waiting += encode(document)

    async def lines(self, documents: AsyncGenerator[Document | bytes, None]) -> None:
        self._content_type = LINES_CONTENT_TYPE
        async with aclosing(documents):
            async for document in documents:
                self._waiting += document if isinstance(document, bytes) else encode(document) + b"\n"
                if len(self._waiting) >= _FLUSH_BYTES:
                    await self._flush(is_last=False)
        self._waiting += _END

    async def finish(self) -> None:
        try:
            await self._flush(is_last=True)
        finally:
            if self._afterwards is not None:
                self._afterwards()

    async def _flush(self, *, is_last: bool) -> None:
        body, self._waiting = bytes(self._waiting), bytearray()
        if not self._has_begun:
            self._has_begun = True
            headers = [
                (b"content-type", self._content_type.encode()),
                (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
            ]
            if is_last:
                headers.append((b"content-length", str(len(body)).encode()))
            await self._send({"type": "http.response.start", "status": self._status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": not is_last})


def _check_host(scope: Scope, headers: Headers) -> None:
    """A page in a browser may reach a loopback port under a name of its own (DNS rebinding)."""
    if scope.get("client") and not is_loopback(headers.get("host", "")):
        raise BadInput("the request is refused", "its Host is not this host")


class _HungUp(Exception):
    pass


async def _read(receive: Receive) -> bytes | None:
    """The body; None if it is too long or too slow. A long one is read to its end all the same: the server
    reads nothing else from the connection while somebody owes it a part of the body."""
    body = bytearray()
    length = 0
    with trio.move_on_after(BODY_TIMEOUT_S) as limit:
        while True:
            message = await receive()
            part = message.get("body", b"")
            if message["type"] == "http.disconnect":
                raise _HungUp
            length += len(part)
            if length <= BODY_MAX:
                body += part
            if not message.get("more_body", False):
                break
    return None if limit.cancelled_caught or length > BODY_MAX else bytes(body)


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _leaf(group: BaseExceptionGroup[InvariantBroken]) -> InvariantBroken:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, InvariantBroken)
    return error
