"""One request over the wire, until it is answered for good: signed, sent, repeated, sent elsewhere, or refused.

Refusals become the same errors as boto3's (translate.py), and the same corrections are made: the store's clock, the
bucket's region and fresh credentials are each tried once.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from xml.etree import ElementTree as ET

import trio
from botocore.exceptions import ClientError

from fsxsync.errors import AccessDenied, BadCredentials, BucketMissing, EndpointUnreachable, FsxSyncError, Throttled
from fsxsync.model.measures import UNANSWERED, Requests
from fsxsync.ports import Answer, End, FileRange, Priority, SignedRequest, Sink, Wire
from fsxsync.repository.requests import Request
from fsxsync.repository.signing import Signer
from fsxsync.repository.translate import code_of, translate

ATTEMPTS = 5
"""Then the caller's own patience begins: the path goes back to the changelog, and the association is MISCONFIGURED."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_REDIRECTS = frozenset({301, 302, 307, 308})
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_NAMELESS = frozenset({400, 403})
"""A refused HEAD has no body, and so no code: these may be the clock's, the region's or the credentials' fault."""


class Asker:
    """The requests of one bucket. Runs in the trio thread."""

    def __init__(
        self, wire: Wire, signer: Signer, ask_bucket: Callable[[], None], counted: Requests | None = None
    ) -> None:
        """``ask_bucket``: blocking; has botocore find out where the bucket is."""
        self._wire = wire
        self._signer = signer
        self._ask_bucket = ask_bucket
        self._counted = counted or Requests()
        self._mending = trio.Lock()
        self._mended = 0
        """So many corrections were made: who was refused for something signed before the last one signs anew."""

    async def ask(
        self,
        request: Request,
        *,
        what: str,
        priority: Priority = Priority.REQUEST,
        body: bytes | FileRange = b"",
        body_crc64nvme: int | None = None,
        into: FileRange | None = None,
        object_offset: int | None = None,
        finish: bool = False,
    ) -> Answer:
        """The answer, a 2xx. ``finish``: what was sent is answered even if the caller is cancelled, but it is not
        sent again then. The rest is as in `ports.Wire.send`.

        Raises:
            RepositoryError: what the store refused, or that it can't be reached. Also what `Wire.send` says of files.
        """
        suspected: set[str] = set()
        attempt = 0
        while True:
            mended = self._mended
            signed = await self._sign(request, body)
            try:
                with trio.CancelScope(shield=finish):
                    answer = await self._wire.send(
                        signed,
                        what=what,
                        priority=priority,
                        body=body,
                        body_crc64nvme=body_crc64nvme,
                        into=into,
                        object_offset=object_offset,
                    )
            except EndpointUnreachable:
                self._note(request, None, body, into)
                attempt += 1
                if attempt >= ATTEMPTS:
                    raise
            else:
                self._note(request, answer, body, into)
                refusal = _refusal(answer, request.method)
                if refusal is None:
                    return answer
                error = translate(refusal, what)
                if await self._correct(answer, refusal, error, suspected, mended):
                    continue
                attempt += 1
                if not isinstance(error, Throttled) or attempt >= ATTEMPTS:
                    raise error from refusal
            await trio.sleep(backoff_s(attempt, random.random()))  # noqa: S311  jitter is no secret

    async def get_many(
        self,
        wanted: Sequence[Request],
        *,
        priority: Priority,
        begin: Callable[[int, End], Sink | None],
        came: Callable[[int, Answer | None], None],
    ) -> None:
        """GETs of whole objects, each tried once. ``begin(number, end)`` says where it goes to when its turn has come;
        None: nowhere. ``came(number, answer)`` follows; None: no 2xx came, and `ask` finds out why.

        Raises:
            RepositoryError: there is nothing to sign with; what was begun came to nothing.
        """
        if not self._signer.is_ready:
            await self._sign(wanted[0], b"")

        sizes: dict[int, int] = {}

        def prepare(number: int, end: End) -> tuple[SignedRequest, Sink] | None:
            if not self._signer.is_ready:  # credentials have to be refreshed, and that takes its time
                return None
            try:
                signed = self._signer.sign(wanted[number])
            except FsxSyncError:
                return None  # who asks for it alone is told
            sink = begin(number, end)
            if sink is None:
                return None
            sizes[number] = sink.size
            return signed, sink

        def take(number: int, answer: Answer | None) -> None:
            taken = answer is not None and 200 <= answer.status < 300
            status = UNANSWERED if answer is None else str(answer.status)
            down = sizes.pop(number) if taken else 0 if answer is None else len(answer.body)
            self._counted.note(wanted[number].operation, status, int(time.monotonic()), down=down)
            came(number, answer if taken else None)

        await self._wire.get_many(len(wanted), priority, prepare, take)

    def _note(self, request: Request, answer: Answer | None, body: bytes | FileRange, into: FileRange | None) -> None:
        now_s = int(time.monotonic())
        if answer is None:
            self._counted.note(request.operation, UNANSWERED, now_s)
            return
        taken = 200 <= answer.status < 300
        up = (body.length if isinstance(body, FileRange) else len(body)) if taken else 0
        down = into.length if taken and into is not None else len(answer.body)
        self._counted.note(request.operation, str(answer.status), now_s, down=down, up=up)

    async def _sign(self, request: Request, body: bytes | FileRange) -> SignedRequest:
        if not self._signer.is_ready:
            return await trio.to_thread.run_sync(self._sign_now, request, body)
        return self._sign_now(request, body)

    def _sign_now(self, request: Request, body: bytes | FileRange) -> SignedRequest:
        digest: str | None = None
        if request.has_body and isinstance(body, bytes) and not self._signer.place().encrypted:
            digest = hashlib.sha256(body).hexdigest()
        return self._signer.sign(request, body_sha256=digest)

    async def _correct(
        self, answer: Answer, refusal: ClientError, error: FsxSyncError, suspected: set[str], mended: int
    ) -> bool:
        """Mend what may have been wrong, each cause once a request: True if it is worth another try."""
        for cause, mend in self._causes(answer, refusal, error):
            if cause in suspected:
                continue
            suspected.add(cause)
            async with self._mending:
                if self._mended == mended:  # else another request was refused before this one, and saw to it
                    if not await mend():
                        continue
                    self._mended += 1
            return True
        return False

    def _causes(
        self, answer: Answer, refusal: ClientError, error: FsxSyncError
    ) -> Iterator[tuple[str, Callable[[], Awaitable[bool]]]]:
        """What a refusal may come of, and what mends it: True if that changed something."""
        code = code_of(refusal)
        is_nameless = answer.status in _NAMELESS and code == str(answer.status)
        if code in _SKEWED or is_nameless:
            yield "clock", partial(self._learn_time, answer.header("date") or "")
        region = answer.header("x-amz-bucket-region")
        moved = region is not None and answer.status in _NAMELESS and region != self._signer.region
        if answer.status in _REDIRECTS or code in _ELSEWHERE or moved:
            yield "place", partial(self._look_elsewhere, error.what)
        if isinstance(error, BadCredentials) or is_nameless:
            yield "credentials", self._renew_credentials

    async def _learn_time(self, date: str) -> bool:
        return self._signer.learn_time(date)

    async def _renew_credentials(self) -> bool:
        return await trio.to_thread.run_sync(self._signer.renew)

    async def _look_elsewhere(self, what: str) -> bool:
        before = self._signer.region
        try:
            await trio.to_thread.run_sync(self._ask_bucket)
        except AccessDenied:
            pass  # it may not be looked at, but by now botocore knows where it is
        except BucketMissing:
            raise
        except FsxSyncError as error:
            raise type(error)(what, error.why, advice=error.advice) from error
        self._signer.forget()
        return (await trio.to_thread.run_sync(self._signer.place)).region != before


def backoff_s(attempt: int, jitter: float) -> float:
    """How long to wait before attempt ``attempt`` + 1, ``attempt`` from 1; ``jitter`` from 0 to 1 keeps many
    clients apart that failed at the same moment."""
    return float(jitter * min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S))


def _refusal(answer: Answer, method: str) -> ClientError | None:
    """The error that an answer tells, also within a 200 (a copy that failed after it had begun to answer)."""
    taken = 200 <= answer.status < 300
    if taken and method != "PUT":
        return None
    root = document(answer.body)
    is_error = root is not None and _name(root) == "Error"
    if taken and not is_error:
        return None
    told = {_name(child): child.text or "" for child in root} if root is not None and is_error else {}
    status = 500 if taken else answer.status
    return ClientError(
        {
            "Error": {"Code": told.get("Code") or str(status), "Message": told.get("Message", "")},
            "ResponseMetadata": {
                "HTTPStatusCode": status,
                "HTTPHeaders": dict(answer.headers),
                "RequestId": answer.header("x-amz-request-id") or "",
                "HostId": answer.header("x-amz-id-2") or "",
                "RetryAttempts": 0,
            },
        },
        method,
    )


def document(body: bytes) -> ET.Element | None:
    """The XML of an answer; None if it is none."""
    try:
        return ET.fromstring(body.strip())  # noqa: S314  expat bounds what entities may grow to
    except (ET.ParseError, ValueError, LookupError):  # an encoding that is none of XML's, or nobody's
        return None


def _name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]
