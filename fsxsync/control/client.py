"""The client of a daemon: HTTP over its unix socket. Standard library only, so that a command starts fast."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from fsxsync.control.listening import public_name, reachable, uid_behind
from fsxsync.control.protocol import CONTENT_TYPE, FSXSYNC, LAST_LINE, SOCKET_NAME, DaemonError, encode
from fsxsync.errors import NoDaemon

Document = dict[str, Any]
_PIECE_BYTES = 256 * 1024
_END = encode(LAST_LINE)


class _Connection(http.client.HTTPConnection):
    """There is no read time-out: creating an association over a million objects takes its time, and a daemon
    that dies closes the connection."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=None)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with reachable(self._path) as name:
                self.sock.connect(name)
        except PermissionError as refused:
            self._connect_as_anybody(refused)

    def _connect_as_anybody(self, refused: PermissionError) -> None:
        """By the socket for all users, if there is one; it must be the state directory's owner who listens there."""
        try:
            self.sock.connect(public_name(self._path.parent))
            if uid_behind(self.sock) not in {0, os.stat(self._path.parent).st_uid}:
                raise refused
        except OSError:
            raise refused from None


class Client:
    """Asks the daemon of one state directory.

    All methods raise NoDaemon (nobody answers) and DaemonError (what the daemon answered).
    """

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir

    def status(self) -> Document:
        return self.call("Status")

    def where(self) -> Document:
        """``mount`` and ``tree``, either of which may be None."""
        return self.call("Where")

    def associations(self) -> list[Document]:
        rows: list[Document] = self.call("Associations")["associations"]
        return rows

    def association(self, word: str) -> Document:
        """``word`` is an id or a path in the file system."""
        row: Document = self.call("Associations", association=word)["associations"][0]
        return row

    def associate(self, wanted: Mapping[str, object]) -> Document:
        made: Document = self.call("Associate", **wanted)["association"]
        return made

    def update(self, word: str, changes: Mapping[str, object], *, accept_deletes: bool) -> Document:
        more = {"changes": dict(changes)} if changes else {}
        made: Document = self.call("UpdateAssociation", association=word, accept_deletes=accept_deletes, **more)[
            "association"
        ]
        return made

    def delete(self, word: str, *, delete_data: bool, force: bool, hydrate: bool) -> Document:
        gone: Document = self.call(
            "DeleteAssociation", association=word, delete_data=delete_data, force=force, hydrate=hydrate
        )["association"]
        return gone

    def states(self, tree_paths: Sequence[bytes], *, recursive: bool) -> Iterator[Document]:
        """See `Operations._states`."""
        return _parsed(self.state_lines(tree_paths, recursive=recursive))

    def state_lines(self, tree_paths: Sequence[bytes], *, recursive: bool) -> Iterator[list[bytes]]:
        """The same as it comes: some lines of JSON at a time."""
        paths = [path.decode("utf-8", "surrogateescape") for path in tree_paths]
        return self._lines("State", paths=paths, recursive=recursive)

    def check(self, tree_paths: Sequence[bytes], *, verify: bool, repair: bool = False) -> Iterator[Document]:
        """See `Operations._findings`."""
        paths = [path.decode("utf-8", "surrogateescape") for path in tree_paths]
        return self.lines("Check", paths=paths, verify=verify, repair=repair)

    def why(self, tree_path: bytes) -> Document:
        return self.call("Why", path=tree_path.decode("utf-8", "surrogateescape"))

    def diff(self, tree_path: bytes) -> Iterator[Document]:
        """See `Operations._differences`."""
        return self.lines("Diff", path=tree_path.decode("utf-8", "surrogateescape"))

    def conflicts(self) -> list[Document]:
        rows: list[Document] = self.call("Conflicts")["conflicts"]
        return rows

    def resolve(self, tree_path: bytes, keep: str) -> list[Document]:
        """The conflicts that are closed now."""
        path = tree_path.decode("utf-8", "surrogateescape")
        rows: list[Document] = self.call("ResolveConflict", path=path, keep=keep)["resolved"]
        return rows

    def create_task(self, wanted: Mapping[str, object]) -> Document:
        """See `task_operations`; the same for the next four."""
        made: Document = self.call("CreateTask", **wanted)["task"]
        return made

    def plan_task(self, wanted: Mapping[str, object]) -> Iterator[Document]:
        return self.lines("PlanTask", **wanted)

    def tasks(self) -> Iterator[Document]:
        return (line["task"] for line in self.lines("Tasks"))

    def task(self, task_id: str, *, failures: int = 0) -> Document:
        found: Document = self.call("Task", task=task_id, failures=failures)["task"]
        return found

    def cancel_task(self, task_id: str) -> Document:
        told: Document = self.call("CancelTask", task=task_id)["task"]
        return told

    def wait(self, tree_path: bytes, timeout_s: float) -> list[Document]:
        """What is pending still; empty if nothing is."""
        path = tree_path.decode("utf-8", "surrogateescape")
        left: list[Document] = self.call("Wait", path=path, timeout_s=timeout_s)["pending"]
        return left

    def drain(self, timeout_s: float) -> int:
        return int(self.call("Drain", timeout_s=timeout_s)["pending"])

    def stop(self) -> None:
        self.call("Stop")

    # ------------------------------------------------------------- requests

    def call(self, operation: str, **members: object) -> Document:
        """One document for one request."""
        with closing(_Connection(self.state_dir / SOCKET_NAME)) as connection:
            response = self._ask(connection, operation, members)
            try:
                document: Document = json.loads(response.read())
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise self._lost() from error
        if response.status != http.client.OK:
            raise DaemonError(document)
        return document

    def lines(self, operation: str, **members: object) -> Iterator[Document]:
        """A document for each line of the answer, while they come."""
        return _parsed(self._lines(operation, **members))

    def _lines(self, operation: str, **members: object) -> Iterator[list[bytes]]:
        """The lines of the answer, as many at a time as have come."""
        with closing(_Connection(self.state_dir / SOCKET_NAME)) as connection:
            response = self._ask(connection, operation, members)
            try:
                if response.status != http.client.OK:
                    raise DaemonError(json.loads(response.read()))
                rest = b""
                while piece := response.read1(_PIECE_BYTES):
                    *lines, rest = (rest + piece).split(b"\n")
                    is_whole = bool(lines) and lines[-1] == _END
                    if is_whole:
                        del lines[-1]
                    if lines:
                        yield lines
                    if is_whole:
                        return
            except (OSError, ValueError, http.client.HTTPException) as error:
                raise self._lost() from error
        raise self._lost()  # read1() takes a chunked answer that was cut off for a short one

    def _ask(self, connection: _Connection, operation: str, members: Mapping[str, object]) -> http.client.HTTPResponse:
        headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": f"{FSXSYNC}.{operation}"}
        try:
            connection.connect()
        except PermissionError as error:
            raise NoDaemon(
                f"the daemon of {self.state_dir} can't be asked",
                "its socket belongs to somebody else",
                advice="run this as the user who runs the daemon; where it was mounted with --allow-other, others may "
                "release and restore what they own",
            ) from error
        except OSError as error:
            raise NoDaemon(f"no daemon answers for {self.state_dir}", error.strerror or str(error)) from error
        try:
            connection.request("POST", "/", encode(members), headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._lost() from error

    def _lost(self) -> NoDaemon:
        return NoDaemon(
            f"the daemon of {self.state_dir} ended before it answered",
            "its log says why",
            advice="start it again; what was pending is kept",
        )


def _parsed(batches: Iterator[list[bytes]]) -> Iterator[Document]:
    for lines in batches:
        yield from map(json.loads, lines)
