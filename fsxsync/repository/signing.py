"""Signs plain requests for one bucket, so that something faster than boto3 may send them.

Where a request goes (endpoint, host or path style, region) and with whose credentials stays botocore's answer; the
signature is awscrt's, the C library that botocore itself can use: 2,500 requests/s there, ten times as many here
(SERVERS.md). tests/unit/test_signing.py compares every signature with botocore's own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from awscrt import auth, http
from botocore.awsrequest import AWSResponse, HTTPHeaders
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import NoCredentialsError

from fsxsync.errors import BadCredentials, KeyRefused, RepositoryError
from fsxsync.model.association import Access
from fsxsync.ports import SignedRequest
from fsxsync.repository.requests import Request
from fsxsync.repository.session import Connection, new_session
from fsxsync.repository.translate import one_line, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NO_BODY = auth.AwsSignedBodyValue.EMPTY_SHA256
_ANY_BODY = auth.AwsSignedBodyValue.UNSIGNED_PAYLOAD
_APART_S = 240.0
_YEAR_S = 365 * 86400
"""S3 takes signatures up to 15 minutes off; a store may be stricter, and answers take their time."""
_ADDED = ("X-Amz-Date", "X-Amz-Content-Sha256", "X-Amz-Security-Token", "Authorization")
"""Headers that a signature consists of."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a bucket's objects are: ``path`` is encoded and ends in ``/``, a key follows it."""

    origin: str
    host: str
    path: str
    region: str
    service: str

    @property
    def encrypted(self) -> bool:
        return self.origin.startswith("https:")


class _Signed(NamedTuple):
    """What a signature depends on, beside the request."""

    place: Place
    payload: str
    second: int
    provider: auth.AwsCredentialsProvider


class Signer:
    """Signs requests for the objects of one bucket. Safe for use in threads.

    `sign` blocks where credentials have to be found or refreshed, and costs 20 µs else.
    """

    def __init__(
        self,
        bucket: str,
        access: Access,
        connection: Connection[S3Client],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``connection``: the bucket's S3Store's, whose client may know by now that the region is another one."""
        self.bucket = bucket
        self._access = access
        self._connection = connection
        self._clock = clock
        self._ahead_s = 0.0
        self._finding = threading.Lock()
        self._place: Place | None = None
        self._credentials: Credentials | None = None
        self._provided: tuple[ReadOnlyCredentials, auth.AwsCredentialsProvider] | None = None
        """The same keys as awscrt wants them: made anew when they change."""
        self._last: tuple[_Signed, auth.AwsSigningConfig] | None = None

    def place(self) -> Place:
        """Where the requests go; found out once, from botocore: the store is not asked.

        Raises:
            BadCredentials, BadInput, KeyRefused: as `S3Store`'s methods.
            RepositoryError: a bucket of a kind that has signatures of its own (directory buckets, S3 Express).
        """
        place = self._place
        if place is None:
            with self._finding:
                place = self._place or self._find_place()
                self._place = place
        return place

    def sign(self, request: Request, *, body_sha256: str | None = None) -> SignedRequest:
        """The request with its signature, to be sent within minutes.

        ``body_sha256``: in hex, where the caller knows it. Without it a body is not part of the signature, as in
        presigned URLs; TLS protects it. Over plain HTTP (``place().encrypted``) boto3 would hash every body.

        Raises:
            BadCredentials: there are none, or they can't be refreshed; the next call looks for others.
            KeyRefused: a header's value that HTTP can't carry.
            RepositoryError: see `place`.
        """
        place = self.place()
        path = place.path + quote(request.key, safe="/~")
        if request.query:
            path += "?" + "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in request.query)
        headers = [("Host", place.host), *request.headers]
        if self._access.requester_pays:
            headers.append(("x-amz-request-payer", "requester"))
        for name, value in headers:
            # A line's end would begin a header of somebody else's choice: etags come from outside.
            if not (value.isascii() and value.isprintable()):
                what = one_line(f"{request.method} of s3://{self.bucket}/{request.key}")
                raise KeyRefused(what, f"no {name} header can say {one_line(value)}")
        if not self._access.anonymous:
            payload = (body_sha256 or _ANY_BODY) if request.has_body else _NO_BODY
            headers = self._signed(place, request.method, path, headers, payload)
        return SignedRequest(request.method, place.origin + path, tuple(headers))

    def learn_time(self, date: str) -> bool:
        """Sign with the store's clock from now on: ``date`` is the Date header of its RequestTimeTooSkewed.

        False if that is the time we signed with already: then another signature is as wrong as the last one.
        """
        try:
            there = parsedate_to_datetime(date)
            ahead_s = there.replace(tzinfo=there.tzinfo or UTC).timestamp() - self._clock()
            datetime.fromtimestamp(self._clock() + ahead_s + _YEAR_S, UTC)  # it has to hold for a while
        except (ValueError, TypeError, OverflowError):
            return False
        if abs(ahead_s - self._ahead_s) < _APART_S:
            return False
        self._ahead_s = ahead_s
        return True

    @property
    def region(self) -> str | None:
        """That requests are signed for; None if it is not known at the moment."""
        place = self._place
        return None if place is None else place.region

    @property
    def is_ready(self) -> bool:
        """`sign` would neither ask the network for credentials nor make a client."""
        if self._place is None:
            return False
        if self._access.anonymous:
            return True
        if self._credentials is None:
            return False
        expires = getattr(self._credentials, "refresh_needed", None)
        return expires is None or not expires()

    def forget(self) -> None:
        """Ask botocore anew at the next request: the store refused the credentials, or sent us elsewhere."""
        self._place = self._credentials = None

    def renew(self) -> bool:
        """Look for credentials anew, as the store refused those that there are: True if there are others by now.

        Raises:
            BadCredentials: there are none at all.
        """
        if self._access.anonymous:
            return False
        before = self._keys()
        self._credentials = None
        if self._keys() == before:
            return False
        self._connection.forget()  # it has the old ones, too
        return True

    def _signed(
        self, place: Place, method: str, path: str, headers: list[tuple[str, str]], payload: str
    ) -> list[tuple[str, str]]:
        carrier = http.HttpHeaders(headers)
        request = http.HttpRequest(method, path, carrier)
        auth.aws_sign_request(request, self._config(place, payload)).result()
        # Only what it adds is asked for: each name and value that comes back costs.
        added = ((name, carrier.get(name)) for name in _ADDED)
        return [*headers, *((name, value) for name, value in added if value is not None)]

    def _config(self, place: Place, payload: str) -> auth.AwsSigningConfig:
        """That of the last request, if it was signed in the same second in the same way."""
        wanted = _Signed(place, payload, int(self._clock() + self._ahead_s), self._provider())
        last = self._last
        if last is None or last[0] != wanted:
            made = auth.AwsSigningConfig(
                credentials_provider=wanted.provider,
                region=place.region,
                service=place.service,
                date=datetime.fromtimestamp(wanted.second, UTC),
                use_double_uri_encode=False,  # S3's own way: the path as it is sent
                should_normalize_uri_path=False,
                signed_body_value=payload,
                signed_body_header_type=auth.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
            )
            self._last = last = wanted, made
        return last[1]

    def _provider(self) -> auth.AwsCredentialsProvider:
        """The credentials as they are now: whatever expires is refreshed before, by botocore."""
        try:
            keys = self._keys()
            if self._provided is None or self._provided[0] != keys:
                made = auth.AwsCredentialsProvider.new_static(keys.access_key, keys.secret_key, keys.token)
                self._provided = keys, made
            return self._provided[1]
        except RuntimeError as error:  # awscrt's: an empty key
            self._credentials = None
            raise BadCredentials(self._what, one_line(str(error))) from error

    def _keys(self) -> ReadOnlyCredentials:
        try:
            with translated(self._what):
                return self._chain().get_frozen_credentials()
        except BadCredentials:
            self._credentials = None
            self._connection.forget()
            raise
        except RuntimeError as error:  # botocore's: refreshed, and expired all the same
            self._credentials = None
            raise BadCredentials(self._what, one_line(str(error))) from error

    def _chain(self) -> Credentials:
        credentials = self._credentials
        if credentials is None:
            with self._finding:
                credentials = self._credentials or _find_credentials(self._access.profile)
                self._credentials = credentials
        return credentials

    def _find_place(self) -> Place:
        with self._connection.ask(self._what) as client:
            return find_place(client, self.bucket, anonymous=self._access.anonymous)

    @property
    def _what(self) -> str:
        return f"request to s3://{self.bucket}"


def _find_credentials(profile: str | None) -> Credentials:
    credentials = new_session(profile).get_credentials()
    if credentials is None:
        raise NoCredentialsError
    return credentials


# ---------------------------------------------------------------- where botocore would send it

_EVENT = "before-call.s3.HeadObject"
_PROBE_KEY = "k"
_asking: ContextVar[list[dict[str, Any]] | None] = ContextVar("_asking", default=None)


def find_place(client: S3Client, bucket: str, *, anonymous: bool) -> Place:
    """Where ``client`` would send a request for an object of ``bucket``. Nothing is sent.

    botocore has no call for this, but tells ``before-call`` handlers and takes an answer from them.

    Raises:
        BotoCoreError, RepositoryError: see `Signer.place`.
    """
    client.meta.events.register_first(_EVENT, _answer, unique_id="fsxsync-place")  # type: ignore[arg-type]
    asked: list[dict[str, Any]] = []
    token = _asking.set(asked)  # the client is shared, and other threads' requests have to pass
    try:
        client.head_object(Bucket=bucket, Key=_PROBE_KEY)
    finally:
        _asking.reset(token)
    if len(asked) != 1:
        raise RepositoryError(f"request to s3://{bucket}", "this botocore does not tell where requests go")
    context = asked[0]["context"]
    if not anonymous and context.get("auth_type") != "s3v4":
        raise RepositoryError(f"request to s3://{bucket}", "the bucket wants another kind of signature")
    signing = context.get("signing", {})
    url = urlsplit(asked[0]["url"])
    host = _host(url.hostname or "", url.port, url.scheme)
    return Place(
        origin=f"{url.scheme}://{host}",
        host=host,
        path=url.path.removesuffix(_PROBE_KEY),
        region=signing.get("region", client.meta.region_name),
        service=signing.get("signing_name", "s3"),
    )


def _answer(params: dict[str, Any], **_unused: object) -> tuple[AWSResponse, dict[str, Any]] | None:
    asked = _asking.get()
    if asked is None:
        return None
    asked.append(params)
    return AWSResponse(params["url"], 200, HTTPHeaders(), None), {}


def _host(name: str, port: int | None, scheme: str) -> str:
    """The Host header as every client writes it: without the default port."""
    name = f"[{name}]" if ":" in name else name
    return name if port in {None, _DEFAULT_PORTS.get(scheme)} else f"{name}:{port}"
