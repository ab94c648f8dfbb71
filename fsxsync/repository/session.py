"""Clients of S3 and SQS from an `Access`. Credentials come from boto3's own chain, and stay in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from botocore.loaders import Loader, create_loader
from botocore.model import OperationModel
from botocore.parsers import ResponseParser, ResponseParserFactory

from fsxsync.errors import BadCredentials, BadInput
from fsxsync.model.association import Access
from fsxsync.model.measures import UNANSWERED, Requests
from fsxsync.repository.translate import NonsenseError, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

_DEFAULT_REGION = "us-east-1"
_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 60
"""Also longer than SQS's longest poll (20 s)."""
_ATTEMPTS = 3
_CONNECTIONS = 32
_AWS_SUFFIXES = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

_making = threading.Lock()  # making a client is the one thing that boto3 does not do safely in threads

C = TypeVar("C", "S3Client", "SQSClient")


class Connection(Generic[C]):
    """A client made at its first use, so that what is wrong with it shows where somebody handles it."""

    def __init__(self, make: Callable[[], C]) -> None:
        self._make: Callable[[], C] = make
        self._client: C | None = None

    @contextmanager
    def ask(self, what: str) -> Iterator[C]:
        """The client, for one operation: ``what`` names it in the error that comes of it.

        Raises:
            FsxSyncError: whatever botocore raised, translated.
        """
        try:
            with translated(what):
                client = self._client or self._make()
                self._client = client
                yield client
        except BadCredentials:
            self.forget()
            raise

    def forget(self) -> None:
        """Make another client at the next use: one keeps the credentials that it found, or did not find, when it was
        made, and the next one sees what a person mended meanwhile."""
        self._client = None

    def close(self) -> None:
        """Close idle connections; the next use opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


def s3_client(access: Access) -> S3Client:
    """An S3 client, safe for use in threads. May ask the network for credentials (an instance's role).

    Raises:
        BotoCoreError: no such profile, bad credentials files. BadInput: the endpoint is no URL.
    """
    with _making, _endpoint_checked(access.endpoint_url):
        client = _s3(access, path_style=access.endpoint_url is not None)
        if access.endpoint_url is None and not _is_aws(client.meta.endpoint_url):
            # AWS_ENDPOINT_URL or the profile named another store: few of those have a host name per bucket.
            client = _s3(access, path_style=True)
        return client


def count_requests(client: S3Client, counted: Requests) -> None:
    """Note each request that ``client`` makes from now on, repeated ones too: the store bills them all alike."""

    def note(*, operation: OperationModel, response: tuple[Any, Any] | None, **_rest: object) -> None:
        status = str(response[0].status_code) if response is not None else UNANSWERED
        counted.note(operation.name, status, int(time.monotonic()))

    # botocore asks after each attempt; who answers None has no opinion.
    client.meta.events.register_first("needs-retry.s3", note)


def sqs_client(endpoint_url: str | None, region: str | None, access: Access) -> SQSClient:
    """An SQS client for one endpoint. Same rules as `s3_client`."""
    with _making, _endpoint_checked(endpoint_url):
        session = new_session(access.profile)
        return session.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name=region or access.region or session.region_name or _DEFAULT_REGION,
            config=_config(access, "v4"),
        )


def new_session(profile: str | None) -> boto3.session.Session:
    """A session whose clients share what botocore knows about the services with all others of this process.

    By itself each session reads and keeps botocore's descriptions anew, which is most of what a client costs: 100 ms
    and several megabytes for every association. Credentials and settings stay the session's own.

    Raises:
        BotoCoreError: no such profile, bad configuration files.
    """
    core = botocore.session.Session(profile=profile)
    loader = _descriptions(core.get_config_variable("data_path"))
    core.register_component("data_loader", loader)
    core.register_component("response_parser_factory", _Parsers())
    session = boto3.session.Session(botocore_session=core)
    loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # each boto3 session adds boto3's own once more
    return session


class _Parsers(ResponseParserFactory):
    """botocore's own. Those refuse what is no XML or JSON, and trip over numbers, times and shapes that are none."""

    def create_parser(self, protocol_name: str) -> ResponseParser:
        parser = super().create_parser(protocol_name)
        parse = parser.parse

        def parse_or_refuse(response: Any, shape: Any) -> Any:
            try:
                parsed: dict[str, Any] = {} | parse(response, shape)  # also TypeError: it is no document
            except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
                raise NonsenseError(str(error)) from error
            else:
                return parsed

        parser.parse = parse_or_refuse  # type: ignore[method-assign]
        return parser


@cache
def _descriptions(data_path: str | None) -> Loader:
    return create_loader(data_path)


def _s3(access: Access, *, path_style: bool) -> S3Client:
    session = new_session(access.profile)
    config = _config(
        access,
        "s3v4",  # also for presigning (SERVERS.md)
        s3={"addressing_style": "path"} if path_style else {},
        # We send our own CRC64NVME, and compare ETags and lengths: a second checksum would cost, and prove
        # nothing more. Several stores refuse the trailers that "when_supported" makes.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session.client(
        "s3",
        endpoint_url=access.endpoint_url,
        region_name=access.region or session.region_name or _DEFAULT_REGION,
        config=config,
    )


def _config(access: Access, signature_version: str, **more: Any) -> Config:
    return Config(
        signature_version=UNSIGNED if access.anonymous else signature_version,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=_CONNECTIONS,
        **more,
    )


@contextmanager
def _endpoint_checked(endpoint_url: str | None) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if isinstance(error, BotoCoreError):
            raise
        advice = "write it as http://host:port"
        raise BadInput(f"the endpoint '{endpoint_url}' can't be used", str(error), advice=advice) from error


def _is_aws(endpoint_url: str) -> bool:
    return (urlsplit(endpoint_url).hostname or "").endswith(_AWS_SUFFIXES)
