"""The API as a Starlette application: one route, to which every operation is posted."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

import trio
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fsxsync.control.documents import Document
from fsxsync.control.fsx import FsxApi
from fsxsync.control.fsx_documents import Place
from fsxsync.control.listening import is_loopback
from fsxsync.control.members import Members
from fsxsync.control.operations import Answer, Lines, Operations
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
) -> Starlette:
    """``own_operations`` False leaves FSx's alone: over TCP anybody on this host may call."""
    operations = Operations(administration, undisturbed) if own_operations else None
    fsx = FsxApi(administration, Place.of_instance(instance), undisturbed)
    endpoint = _Endpoint(fsx, operations, eventlog)
    return Starlette(routes=[Route("/", endpoint=endpoint, methods=["POST"])])


class _Endpoint:
    def __init__(self, fsx: FsxApi, operations: Operations | None, eventlog: EventLog) -> None:
        self._fsx = fsx
        self._operations = operations
        self._eventlog = eventlog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; end it where it waits if the client hangs up."""
        body = await _read(receive)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await self._serve(scope, body, send)
                nursery.cancel_scope.cancel()
        except* InvariantBroken as broken:
            raise _leaf(broken) from None  # bare: a group would be taken for a failed request, and logged

    async def _serve(self, scope: Scope, body: bytes | None, send: Send) -> None:
        headers = Headers(scope=scope)
        service, _, operation = headers.get("x-amz-target", "").partition(".")
        reply = _Reply(send)
        try:
            _check_host(scope, headers)
            answer = await self._answer(service, operation, body)
            if isinstance(answer, Lines):
                await reply.lines(answer.documents)
                return
            try:
                await reply.document(200, answer.document)
            finally:  # a client that has its answer is gone at once, which cancels us within the last send
                if answer.afterwards is not None:
                    answer.afterwards()
        except FsxSyncError as error:
            await reply.document(*fault(error, service))
        except Exception as error:
            log.exception("bug in a request", extra={"operation": operation})
            self._eventlog.emit(
                code="InternalError", flow="daemon", message=f"{operation}: {type(error).__name__}: {error}"
            )
            await reply.document(*bug(service))

    async def _answer(self, service: str, operation: str, body: bytes | None) -> Answer | Lines:
        if body is None:
            raise TooLarge("the request can't be read", f"it is longer than {BODY_MAX} bytes, or too slow")
        if service == FSX and operation in self._fsx.operations:
            return Answer(await self._fsx.operations[operation](Members(parse(body), operation)))
        if service == FSXSYNC and self._operations is not None and operation in self._operations.operations:
            return await self._operations.operations[operation](Members(parse(body), operation))
        raise UnknownOperation(f"{service}.{operation}", "there is no such operation here", advice="check X-Amz-Target")


class _Reply:
    """The response of one request: it can begin only once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = False
        self._lines = bytearray()

    async def document(self, status: int, document: Mapping[str, object]) -> None:
        body = encode(document)
        if self._begun:  # amid lines: the failure is the last of them
            await self._send(
                {"type": "http.response.body", "body": self._lines + encode({"error": document}) + b"\n" + _END}
            )
            return
        await self._begin(status, CONTENT_TYPE, (b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.body", "body": body})

    async def lines(self, documents: AsyncGenerator[Document, None]) -> None:
        await self._begin(200, LINES_CONTENT_TYPE)
        async with aclosing(documents):
            async for document in documents:
                self._lines += encode(document) + b"\n"
                if len(self._lines) >= _FLUSH_BYTES:
                    part, self._lines = self._lines, bytearray()
                    await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": self._lines + _END})

    async def _begin(self, status: int, content_type: str, *more: tuple[bytes, bytes]) -> None:
        self._begun = True
        headers = [
            (b"content-type", content_type.encode()),
            (b"x-amzn-requestid", str(uuid.uuid4()).encode()),
            *more,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _check_host(scope: Scope, headers: Headers) -> None:
    """A page in a browser may reach a loopback port under a name of its own (DNS rebinding)."""
    if scope.get("client") and not is_loopback(headers.get("host", "")):
        raise BadInput("the request is refused", "its Host is not this host")


async def _read(receive: Receive) -> bytes | None:
    """The body; None if it is too long or too slow. A long one is read to its end all the same: the server
    reads nothing else from the connection while somebody owes it a part of the body."""
    body = bytearray()
    length = 0
    with trio.move_on_after(BODY_TIMEOUT_S) as limit:
        while True:
            message = await receive()
            part = message.get("body", b"")
            length += len(part)
            if length <= BODY_MAX:
                body += part
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
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
