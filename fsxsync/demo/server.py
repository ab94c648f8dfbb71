"""An S3 and SQS server for the demo: moto's, in a process of its own on a free loopback port."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fsxsync.errors import BadInput

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo-secret", "AWS_DEFAULT_REGION": REGION}

# It ends when its standard input does, so that it never outlives the demo, however that ends.
_SERVE = """
import os, sys, threading
from werkzeug.serving import make_server
from moto.server import DomainDispatcherApplication, create_backend_app
from moto.moto_server.werkzeug_app import MotoRequestHandler

class Quiet(MotoRequestHandler):
    def log(self, *args):
        pass

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True,
                     request_handler=Quiet)
print(server.server_port, flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""


@contextmanager
def serving() -> Iterator[str]:
    """Run the server for the time of the block; its URL.

    Raises:
        BadInput: moto is not installed, or does not start.
    """
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        raise BadInput("the demo's S3 server", "moto is not installed", advice="pip install 'fsxsync[demo]'")
    process = subprocess.Popen(  # noqa: S603  our own interpreter
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **CREDENTIALS},
        start_new_session=True,  # Ctrl-C is for the demo, which unmounts first
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            raise BadInput("the demo's S3 server", "it did not start", advice="pip install 'fsxsync[demo]'")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()
