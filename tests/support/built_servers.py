"""Real S3 servers as processes of their own on a free loopback port; scripts/build-server has their programs.

    with VersityServer(directory) as server:
        server.client("s3").create_bucket(Bucket="b")

They end with the block, and also if the test run is killed. They serve what `MotoServer` serves as far as S3 goes, and
have its interface; what they do otherwise stands in `lacks`.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Self

import pytest
from botocore.config import Config
from support.certificates import Authority
from support.moto_server import ENVIRONMENT, REGION, clean_environment, session

from fsxsync.model.association import Access

BUILD = Path(__file__).parents[2] / "scripts/build-server"
HOST = "127.0.0.1"
_START_S = 30.0
_TRIES = 5


def built_program(name: str, *, build: bool = False) -> Path | None:
    """The server's program; None if it was not built yet, which ``build`` does. Raises CalledProcessError then."""
    command = [str(BUILD), *([] if build else ["--cached"]), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=build)  # noqa: S603
    return Path(done.stdout.strip()) if done.returncode == 0 else None


class BuiltServer:
    """A context manager; ``url`` is known once it is entered. Keeps its objects below ``directory``."""

    name: ClassVar[str]
    lacks: ClassVar[frozenset[str]] = frozenset({"flat keys", "queues", "storage classes"})
    """What S3 does and this server does not, in the words of the marker ``needs``: ``flat keys`` (any key is one, also
    ``a//b``, ``../c``, and ``d/e`` beside ``d``), ``control characters`` (in listed keys), ``queues`` (and events to
    them), ``storage classes``."""

    def __init__(self, directory: Path, *, authority: Authority | None = None) -> None:
        self._directory = directory
        self._authority = authority
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self.url = ""

    def command(self, program: Path, address: str) -> list[str]:
        """How to start it. ``address`` is HOST:PORT."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Its settings beside those of the process."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        program = built_program(self.name)
        if program is None:
            raise RuntimeError(f"{self.name} is not there: scripts/build-server {self.name}")
        self._log = tempfile.TemporaryFile()
        for _ in range(_TRIES):  # somebody else may take the port before the server does
            address = f"{HOST}:{_free_port()}"
            self._process = subprocess.Popen(  # noqa: S603
                ["setpriv", "--pdeathsig", "KILL", *self.command(program, address)],  # noqa: S607
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                env=clean_environment() | self.environment(),
            )
            if self._answers(address):
                self.url = f"{'https' if self._authority else 'http'}://{address}"
                return self
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace")[-2000:]
        self.__exit__(None, None, None)
        raise RuntimeError(f"{self.name} did not start: {said}")

    def _answers(self, address: str) -> bool:
        """Wait until it takes connections; False if it ended before."""
        assert self._process is not None
        host, _, port = address.rpartition(":")
        deadline = time.monotonic() + _START_S
        while self._process.poll() is None:
            try:
                socket.create_connection((host, int(port)), 1).close()
            except OSError:
                if time.monotonic() > deadline:
                    self._process.kill()
                    self._process.wait()
                    return False
                time.sleep(0.02)
            else:
                return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, log = self._process, self._log
        assert process is not None
        assert log is not None
        process.terminate()
        process.wait()
        log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def bundle(self) -> Path | None:
        """The certificates that its clients must trust; None without TLS."""
        return self._authority.bundle if self._authority else None

    @property
    def access(self) -> Access:
        """For `open_store`; needs `ENVIRONMENT` in this process."""
        return Access(endpoint_url=self.url, region=REGION)

    def client(self, service: str, **config: Any) -> Any:
        """A boto3 client of this server, as somebody else would use it. Skips a test that needs more than S3."""
        if service != "s3":
            pytest.skip(f"{self.name} has no {service.upper()}")
        return session().client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            verify=None if self.bundle is None else str(self.bundle),
            config=Config(
                s3={"addressing_style": "path"},
                signature_version="s3v4",
                retries={"total_max_attempts": 1},
                # Over TLS versitygw 1.8.0 refuses one in 200 bodies that end in a checksum (400, "parsing the HTTP
                # request"), which boto3 sends when it is free to.
                **({"request_checksum_calculation": "when_required"} if self._authority else {}),
                **config,
            ),
        )


class VersityServer(BuiltServer):
    """versitygw over a directory, which must be on a file system with user extended attributes."""

    name = "versitygw"
    lacks = BuiltServer.lacks | {"control characters"}

    def command(self, program: Path, address: str) -> list[str]:
        data, versions = self._directory / "data", self._directory / "versions"
        for directory in (data, versions):
            directory.mkdir(parents=True, exist_ok=True)
        tls: list[str] = []
        if self._authority is not None:
            chain = str(self._authority.server_chain(HOST))
            tls = ["--cert", chain, "--key", chain]
        return [
            *(str(program), "--port", address, "--quiet", "--keep-alive", *tls),
            *("posix", "--versioning-dir", str(versions), str(data)),
        ]

    def environment(self) -> dict[str, str]:
        return {
            "ROOT_ACCESS_KEY": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            "ROOT_SECRET_KEY": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            "VGW_REGION": REGION,
        }


class MinioServer(BuiltServer):
    """MinIO over a directory."""

    name = "minio"

    def command(self, program: Path, address: str) -> list[str]:
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        return [str(program), "server", "--quiet", "--address", address, str(data)]

    def environment(self) -> dict[str, str]:
        return {
            "MINIO_ROOT_USER": ENVIRONMENT["AWS_ACCESS_KEY_ID"],
            "MINIO_ROOT_PASSWORD": ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
            "MINIO_CI_CD": "1",  # it may keep its data on the root file system
        }


SERVERS: dict[str, type[BuiltServer]] = {made.name: made for made in (VersityServer, MinioServer)}


def server_class(name: str) -> type[BuiltServer]:
    """What SERVER means: ``versitygw``, ``minio``, or ``versitygw-tls``. Raises ValueError."""
    kind, _, variant = name.partition("-")
    if kind not in SERVERS or variant not in {"", "tls"}:
        raise ValueError(f"no server is called {name!r}: versitygw, minio, versitygw-tls")
    return SERVERS[kind]


def chosen_server(name: str, directory: Path) -> BuiltServer:
    """The server that SERVER names, not started yet."""
    return server_class(name)(directory, authority=Authority(directory) if name.endswith("-tls") else None)


def skip_what_it_lacks(item: pytest.Item, server: type[BuiltServer]) -> None:
    """Skip a test that is marked with a need which the server does not meet."""
    needed = {word for marker in item.iter_markers("needs") for word in marker.args}
    if lacking := needed & server.lacks:
        pytest.skip(f"{server.name} has no {', '.join(sorted(lacking))}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
