"""The other user of the bucket, and the events of what happens there."""

from __future__ import annotations

import json
import random
import time
import urllib.parse
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from model.sides import Sides
from model.steps import step
from model.things import TAG


class BucketUser(Sides):
    """Who works in the bucket without fsxsync."""

    @step
    def put(self, path: str, size: int, mode: int | None = None, owner: int | None = None) -> None:
        self._put(path, self._content(size), _words(mode, owner))

    @step
    def put_parts(self, path: str, sizes: Sequence[int], mode: int | None = None, owner: int | None = None) -> None:
        """Upload in parts: the object's ETag is no digest of its bytes."""
        body = self._content(sum(sizes))
        place = {"Bucket": self.bucket, "Key": self.prefix + path}
        begun = self.s3.create_multipart_upload(**place, Metadata=_words(mode, owner))
        upload = place | {"UploadId": begun["UploadId"]}
        parts, at = [], 0
        for number, size in enumerate(sizes, 1):
            answer = self.s3.upload_part(**upload, PartNumber=number, Body=body[at : at + size])
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            at += size
        with self.store.still():
            self._drop(self.remote(path))
            answer = self.s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
            self._made(path, answer["ETag"].strip('"'), answer)
        self.by_digest[answer["ETag"].strip('"')] = body
        self.theirs.setdefault(path, set()).add(body)

    @step
    def put_symlink(self, path: str) -> None:
        self._put(path, self._content(TAG), {"file-permissions": "0120777"})

    @step
    def put_marker(self, path: str, mode: int | None = None, owner: int | None = None) -> None:
        self._put(path + "/", b"", _words(mode, owner, kind=0o040000))

    def _wait_until_listed_as_new(self, path: str) -> None:
        """Where listings alone tell of changes, they must be able to tell of this one: by the second, and of the one
        after our last write nobody knows on which side of the answer it began. In the store's lock."""
        if self.options.get("import") != []:
            return
        with suppress(self.s3.exceptions.ClientError):
            there = self.s3.head_object(Bucket=self.bucket, Key=self.prefix + path)
            time.sleep(max(0.0, there["LastModified"].timestamp() + 2.02 - time.time()))

    def _put(self, path: str, body: bytes, metadata: dict[str, str]) -> None:
        with self.store.still():
            if not body:
                self._wait_until_listed_as_new(path)
            self._drop(self.remote(path))
            self._put_object(path, body, metadata)
            if not body:  # it may replace another empty one: metadata only, see `change_metadata`
                self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Put"))

    def _put_object(self, path: str, body: bytes, metadata: dict[str, str]) -> None:
        answer = self.s3.put_object(Bucket=self.bucket, Key=self.prefix + path, Body=body, Metadata=metadata)
        self.theirs.setdefault(path, set()).add(body)
        self._made(path, answer["ETag"].strip('"'), answer)

    def _made(self, path: str, etag: str, answer: Any) -> None:
        self.store.history.add(self.place_of(path), etag, by_ours=False, version_id=answer.get("VersionId"))

    @step
    def delete(self, path: str) -> None:
        with self.store.still():
            self._drop(self.remote(path))
            answer = self.s3.delete_object(Bucket=self.bucket, Key=self.prefix + path)
            self._made(path, "", answer)
            if answer.get("DeleteMarker"):  # moto forgets to tell of these
                self.held.append(_record(self.bucket, self.prefix + path, "ObjectRemoved:DeleteMarkerCreated"))

    @step
    def change_metadata(self, path: str, mode: int, owner: int | None = None) -> None:
        """A copy of the object onto itself with other permissions. This event is not lost: a listing shows neither
        metadata nor parts of a second, so that it can't make up for a change right after another one."""
        with self.store.still():
            self._wait_until_listed_as_new(path)
            thing = self.remote(path)
            if thing is not None and thing.kind == "file":
                self.theirs.setdefault(path, set()).add(thing.content)  # uploaded in parts, it gets another ETag
                answer = self.s3.copy_object(
                    Bucket=self.bucket,
                    Key=self.prefix + path,
                    CopySource={"Bucket": self.bucket, "Key": self.prefix + path},
                    MetadataDirective="REPLACE",
                    Metadata=_words(mode, owner),
                )
                self._made(path, answer["CopyObjectResult"]["ETag"].strip('"'), answer)
                self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Copy"))

    # ------------------------------------------------------------- events

    def _collect(self) -> None:
        """Take the store's notifications: nobody but us brings them to the daemon."""
        while True:
            answer = self.sqs.receive_message(QueueUrl=self.collector, MaxNumberOfMessages=10, WaitTimeSeconds=0)
            messages = answer.get("Messages", [])
            if not messages:
                return
            for message in messages:
                body = json.loads(message["Body"])
                if "Records" in body:
                    self.held.append(body)
                self.sqs.delete_message(QueueUrl=self.collector, ReceiptHandle=message["ReceiptHandle"])

    def announce(self, path: str) -> None:
        """An object's metadata was changed."""
        self._send_surely(_record(self.bucket, self.prefix + path, "ObjectCreated:Copy"))

    def _send_surely(self, body: dict[str, Any]) -> None:
        self.sure.append(body)
        self._send([body])

    def _send(self, bodies: list[dict[str, Any]]) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.store.queue, MessageBody=json.dumps(body))

    @step
    def deliver(self, order: str = "forward") -> None:
        """Bring the events to the daemon: ``forward``, ``backward``, ``shuffled``, ``double``, or ``stale``,
        which keeps them too."""
        self._collect()
        bodies = self.held[::-1] if order == "backward" else list(self.held)
        if order == "shuffled":
            random.Random(next(self.numbers)).shuffle(bodies)  # noqa: S311
        self._send(bodies * 2 if order == "double" else bodies)
        if order != "stale":
            self.held.clear()

    @step
    def lose_events(self) -> None:
        """They never arrive; the next start's listing makes up for it."""
        self._collect()
        self.events_lost = self.events_lost or bool(self.held)
        self.held.clear()


def _record(bucket: str, key: str, name: str) -> dict[str, Any]:
    there = {"bucket": {"name": bucket}, "object": {"key": urllib.parse.quote_plus(key)}}
    return {
        "Records": [{"eventSource": "aws:s3", "eventName": name, "eventTime": "2026-11-23T17:52:29.000Z", "s3": there}]
    }


def _words(mode: int | None, owner: int | None, kind: int = 0o100000) -> dict[str, str]:
    """What an object says of itself; that it was changed at a round time where it names an owner."""
    words = {} if mode is None else {"file-permissions": f"{kind | mode:07o}"}
    if owner is not None:
        words |= {
            "file-owner": str(owner),
            "file-group": str(owner),
            "file-mtime": f"{1_500_000_000 + owner}000000000ns",
        }
    return words
