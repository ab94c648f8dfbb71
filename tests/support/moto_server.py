"""moto's server (S3, SQS, SNS, EventBridge over real HTTP) as a process of its own on a free loopback port.

    with MotoServer() as moto:
        moto.client("s3").create_bucket(Bucket="b")

It ends with the block, and also if the test run is killed: it reads its standard input to the end.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

import boto3
from botocore.config import Config

from fsxsync.model.association import Access
from fsxsync.ports import Conditions

REGION = "us-east-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1,localhost",
}
"""What boto3's chain shall find, here and in processes that tests start; nothing of the machine's own."""

OBEYED = Conditions(
    put_if_match=True,
    put_if_none_match=True,
    complete_if_match=False,
    complete_if_none_match=True,
    copy_source_if_match=False,
    delete_if_match=True,
    checksum=False,
    etag_is_md5=True,
)
"""What a probe finds out of moto, in a bucket without versions."""

_FORGOTTEN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")

_PROCESS = Path(__file__).with_name("moto_process.py")


def clean_environment() -> dict[str, str]:
    """This process's environment with the credentials of `ENVIRONMENT` and no others."""
    return {name: value for name, value in os.environ.items() if name not in _FORGOTTEN} | ENVIRONMENT


@cache
def moto_of_the_run() -> MotoServer:
    """One for all tests of this process that change no setting of moto's; it ends with it."""
    server = MotoServer().__enter__()
    atexit.register(server.__exit__, None, None, None)
    return server


@cache
def session() -> boto3.session.Session:
    """The other users' session; each new one would read botocore's descriptions of the services anew, 0.15 s."""
    return boto3.session.Session()


class MotoServer:
    """A context manager; ``url`` is known once it is entered. ``env`` adds settings of moto's own."""

    lacks: ClassVar[frozenset[str]] = frozenset()
    """As `built_servers.BuiltServer.lacks`."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self._env = clean_environment() | (env or {})
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._clients: dict[tuple[Any, ...], Any] = {}
        self.url = ""

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", _PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._env,
            text=True,
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()  # it listens when it says so
        if not port:
            self.__exit__(None, None, None)
            raise RuntimeError("moto's server did not start")
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, log = self._process, self._log
        assert process is not None
        assert log is not None
        for client in self._clients.values():
            client.close()
        process.terminate()
        process.communicate()
        log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def access(self) -> Access:
        """For `open_store`; needs `ENVIRONMENT` in this process."""
        return Access(endpoint_url=self.url, region=REGION)

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of this server, as somebody else would use it: one for all who want the same."""
        wanted = (service, *sorted(config.items()))
        if wanted not in self._clients:
            self._clients[wanted] = self._made(service, config)
        return self._clients[wanted]

    def fill(self, bucket: str, objects: Mapping[str, bytes]) -> None:
        """Put many objects, as many requests would that cost twenty times as much."""
        encoded = {key: base64.b64encode(body).decode() for key, body in objects.items()}
        asked = json.dumps({"bucket": bucket, "objects": encoded}).encode()
        request = urllib.request.Request(f"{self.url}/fill", asked, method="POST")  # noqa: S310
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            said = json.load(answer)
        assert said == ["200 OK"] * len(objects)

    def _made(self, service: str, config: dict[str, Any]) -> Any:
        return session().client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **config),
        )
