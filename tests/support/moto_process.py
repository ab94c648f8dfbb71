"""moto's server itself, for `moto_server.MotoServer`: a process that says its port and ends with its standard input.

Every test asks it some hundred times, and most of what an answer costs is no part of it: each of these does in another
way what moto does, with the same outcome.
"""

from __future__ import annotations

import base64
import io
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote

# Read when moto is imported. Nobody here is a browser, and no bucket's name stands in the host's.
os.environ |= {"MOTO_DISABLE_GLOBAL_CORS": "1", "S3_IGNORE_SUBDOMAIN_BUCKETNAME": "1"}

import moto.moto_api._internal
import moto.sqs.models as sqs
from moto import backends
from moto.core import serialize
from moto.moto_server.werkzeug_app import MotoRequestHandler
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

_names = frozenset(backends.list_of_moto_modules())
backends.list_of_moto_modules = lambda: _names  # it asks the disk at each request, a third of what one costs


class _Dispatcher(DomainDispatcherApplication):
    """It finds the service by two hundred patterns, twice in each request."""

    def __init__(self) -> None:
        super().__init__(create_backend_app)
        self.get_backend_for_host = cache(super().get_backend_for_host)  # type: ignore[method-assign]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/fill":
            return self._fill(environ, start_response)
        answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer

    def _fill(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """A PUT for each of many objects that came in one request: `MotoServer.fill`."""
        asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        said: list[str] = []
        for key, encoded in asked["objects"].items():
            path, body = f"/{asked['bucket']}/{key}", base64.b64decode(encoded)
            put = {
                "REQUEST_METHOD": "PUT",
                "PATH_INFO": path.encode().decode("latin-1"),  # PEP 3333
                "RAW_URI": quote(path),
                "REQUEST_URI": quote(path),
                "CONTENT_TYPE": "",
                "CONTENT_LENGTH": str(len(body)),
                "wsgi.input": io.BytesIO(body),
            }
            b"".join(super().__call__({**environ, **put}, lambda status, *_: said.append(status)))
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(said).encode()]


class _Handler(MotoRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Quiet, and without a line that nobody reads."""

    def log(self, kind: str, message: str, *arguments: Any) -> None:
        """Quiet."""


def _random_string(length: int = 20, include_digits: bool = True, lower_case: bool = False) -> str:
    """Each answer has a request id of 52, which moto draws one by one."""
    drawn = secrets.token_hex(length)[:length]
    return drawn if lower_case else drawn.upper()


def _now(then: Any = None) -> float:
    assert then is None
    return time.time()


def _now_ms(then: Any = None) -> float:
    return _now(then) * 1000


def _is_kept(queue: sqs.SQSBackend, name: str, message: sqs.Message) -> bool:
    """moto counts the messages of a queue, several times over, for each one that it gives away."""
    kept_s: int = queue.get_queue(name).message_retention_period  # type: ignore[attr-defined]
    return bool(kept_s + message.sent_timestamp / 1000 > time.time())


moto.moto_api._internal.mock_random.get_random_string = _random_string
sqs.unix_time, sqs.unix_time_millis = _now, _now_ms  # asked of each message in a queue, for each that comes or goes
# A listing has the time of each object as text, which is read to be written once more.
serialize.parse_to_aware_datetime = lru_cache(10_000)(serialize.parse_to_aware_datetime)
sqs.camelcase_to_underscores = cache(sqs.camelcase_to_underscores)
sqs.SQSBackend.is_message_valid_based_on_retention_period = _is_kept


def main() -> None:
    server = make_server("127.0.0.1", 0, _Dispatcher(), threaded=True, request_handler=_Handler)
    print(server.server_port, flush=True)  # noqa: T201 - it listens when it says so
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
