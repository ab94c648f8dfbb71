"""FSx's own operations: what boto3, the aws command and Terraform ask (FSX-FACTS §1.2, §10)."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import trio

from fsxsync.control import fsx_documents
from fsxsync.control.fsx_documents import Document, Place
from fsxsync.control.fsx_tasks import FsxTasks
from fsxsync.control.members import ARCHIVE_PATH_MAX, Members
from fsxsync.control.protocol import (
    FileSystemNotFound,
    IncompatibleParameter,
    InvalidDataRepositoryType,
)
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.control.wanted import POLL_S
from fsxsync.errors import AssociationNotFound
from fsxsync.model.association import (
    Association,
    Event,
    Lifecycle,
    Policy,
    parse_directory,
    parse_s3_uri,
)
from fsxsync.ports import Administration

FILE_SYSTEM_ID = r"fs-[0-9a-f]{8,}"
ASSOCIATION_ID = r"dra-[0-9a-f]{8,}"
TOKEN = r"[A-Za-z0-9_.-]+"  # noqa: S105 - the pattern of a ClientRequestToken
EVENT_TYPES = tuple(event.value for event in Event)
FILTERS = ("file-system-id", "file-cache-id", "data-repository-type")
TAG = r"[\w\s.:/=+\-@]*"
PAGE_MAX = 100
DELETE_ANSWER_S = 2.0
"""How long a delete is waited for before DELETING is answered: long enough to say what speaks against it."""


class FsxApi:
    """``operations`` by name; each takes the request's members and returns the response's document."""

    def __init__(self, administration: Administration, place: Place, undisturbed: Undisturbed) -> None:
        self._administration = administration
        self._place = place
        self._undisturbed = undisturbed
        self._creating = trio.Lock()
        self.operations: Mapping[str, Callable[[Members], Awaitable[Document]]] = {
            "CreateDataRepositoryAssociation": self._create,
            "DescribeDataRepositoryAssociations": self._describe,
            "UpdateDataRepositoryAssociation": self._update,
            "DeleteDataRepositoryAssociation": self._delete,
            "DescribeFileSystems": self._describe_file_systems,
            **FsxTasks(administration.tasks, place, self._check_file_system).operations,
        }

    # ------------------------------------------------------------- create

    async def _create(self, members: Members) -> Document:
        self._check_file_system(members.required_text("FileSystemId", FILE_SYSTEM_ID, longest=21))
        wanted = _wanted(members)
        token = members.text("ClientRequestToken", TOKEN, longest=63)
        return await self._undisturbed.run("CreateDataRepositoryAssociation", partial(self._create_once, wanted, token))

    async def _create_once(self, wanted: Association, token: str | None) -> Document:
        """One at a time, as FSx does: a retry with the same token finds what the first one made."""
        async with self._creating:
            if token is not None:
                mark = f"{token}:{_fingerprint(wanted)}"
                known = self._by_token(token)
                if known is not None and known.client_token != mark:
                    raise IncompatibleParameter("ClientRequestToken", "it was used with other parameters before")
                if known is not None:
                    return {"Association": fsx_documents.of_association(known, self._place)}
                wanted = replace(wanted, client_token=mark)
            made = await self._administration.create(wanted, wait=False)
        return {"Association": fsx_documents.of_association(made, self._place)}

    def _by_token(self, token: str) -> Association | None:
        for association in self._administration.associations():
            if association.client_token is not None and association.client_token.startswith(token + ":"):
                return association
        return None

    def _check_file_system(self, file_system_id: str) -> None:
        if file_system_id != self._place.file_system_id:
            raise FileSystemNotFound(
                f"file system {file_system_id}", f"this daemon serves {self._place.file_system_id}"
            )

    # ------------------------------------------------------------- describe

    async def _describe(self, members: Members) -> Document:
        ids = members.texts("AssociationIds", ASSOCIATION_ID, most=50, longest=23)
        filters = members.inners("Filters", most=10) or ()
        size = members.whole("MaxResults", 1, 25) or PAGE_MAX
        after = _position(members)
        rows = sorted(self._administration.associations(), key=_order)
        if ids:
            known = {row.id for row in rows}
            for wanted in ids:
                if wanted not in known:
                    raise AssociationNotFound(f"association {wanted}", "there is none of that id")
            rows = [row for row in rows if row.id in ids]
        passed = [self._passes(one) for one in filters]  # every filter is checked, though one may decide
        rows = rows if all(passed) else []
        rows = [row for row in rows if after is None or _order(row) > after]
        answer: Document = {"Associations": [fsx_documents.of_association(row, self._place) for row in rows[:size]]}
        if len(rows) > size:
            answer["NextToken"] = _token(rows[size - 1])
        return answer

    def _passes(self, one: Members) -> bool:
        """All associations are of the one file system and of type S3, so a filter lets pass all or none."""
        name = one.required_text("Name")
        if name not in FILTERS:
            raise one.refuse("Name", f"'{name}' is none of {', '.join(FILTERS)}")
        values = one.texts("Values", r"[0-9a-zA-Z*.\\/?\-_]+", most=20, longest=128) or ()
        if name == "data-repository-type":
            for value in values:
                if value not in {"S3", "NFS"}:
                    raise InvalidDataRepositoryType(f"'{value}' is no type", "known are S3 and NFS")
            return "S3" in values
        if name == "file-cache-id":
            return False
        for value in values:
            if re.fullmatch(FILE_SYSTEM_ID, value):
                self._check_file_system(value)
        return any(fnmatch.fnmatchcase(self._place.file_system_id, value) for value in values)

    # ------------------------------------------------------------- update, delete

    async def _update(self, members: Members) -> Document:
        before = self._association(members)
        members.text("ClientRequestToken", TOKEN, longest=63)
        after = replace(
            before,
            chunk_size_mib=members.whole("ImportedFileChunkSize", 1, 512000) or before.chunk_size_mib,
            policy=_policy(members, before.policy),
        )
        if before.read_only and after.policy.exports:
            raise members.refuse("AutoExportPolicy", "the association is read-only")
        made = await self._undisturbed.run(
            "UpdateDataRepositoryAssociation", partial(self._administration.update, after)
        )
        return {"Association": fsx_documents.of_association(made, self._place)}

    async def _delete(self, members: Members) -> Document:
        association = self._association(members)
        members.text("ClientRequestToken", TOKEN, longest=63)
        with_data = bool(members.flag("DeleteDataInFileSystem"))
        if association.lifecycle is not Lifecycle.DELETING:
            work = self._undisturbed.start(
                "DeleteDataRepositoryAssociation",
                partial(
                    self._administration.delete,
                    association.id,
                    delete_data=with_data,
                    force=False,
                    hydrate=False,
                ),
            )
            await work.result_within(DELETE_ANSWER_S)
        return {
            "AssociationId": association.id,
            "Lifecycle": Lifecycle.DELETING.value,
            "DeleteDataInFileSystem": with_data,
        }

    def _association(self, members: Members) -> Association:
        wanted = members.required_text("AssociationId", ASSOCIATION_ID, longest=23)
        for association in self._administration.associations():
            if association.id == wanted:
                return association
        raise AssociationNotFound(f"association {wanted}", "there is none of that id")

    # ------------------------------------------------------------- the file system

    async def _describe_file_systems(self, members: Members) -> Document:
        for wanted in members.texts("FileSystemIds", FILE_SYSTEM_ID, most=50, longest=21) or ():
            self._check_file_system(wanted)
        members.whole("MaxResults", 1, 2**31 - 1)
        members.text("NextToken", longest=255)
        return {"FileSystems": [fsx_documents.of_file_system(self._administration.status(), self._place)]}


def _wanted(members: Members) -> Association:
    bucket, prefix = parse_s3_uri(members.required_text("DataRepositoryPath", longest=ARCHIVE_PATH_MAX))
    policy = _policy(members, Policy(frozenset(), frozenset()))
    return Association(
        id="",
        directory=parse_directory(members.text("FileSystemPath") or "/"),
        bucket=bucket,
        prefix=prefix,
        policy=policy,
        poll_s=POLL_S,
        import_metadata=bool(members.flag("BatchImportMetaDataOnCreate")),
        chunk_size_mib=members.whole("ImportedFileChunkSize", 1, 512000) or 1024,
        tags=_tags(members),
    )


def _policy(members: Members, before: Policy) -> Policy:
    s3 = members.inner("S3")
    if s3 is None:
        return before
    return replace(
        before,
        imports=_events(s3, "AutoImportPolicy", before.imports),
        exports=_events(s3, "AutoExportPolicy", before.exports),
    )


def _events(s3: Members, name: str, before: frozenset[Event]) -> frozenset[Event]:
    policy = s3.inner(name)
    if policy is None:
        return before
    words = policy.texts("Events", "|".join(EVENT_TYPES), most=len(EVENT_TYPES)) or ()
    return frozenset(Event(word) for word in words)


def _tags(members: Members) -> tuple[tuple[str, str], ...]:
    tags: dict[str, str] = {}
    for tag in members.inners("Tags", most=50) or ():
        key = tag.required_text("Key", TAG, longest=128)
        if key in tags:
            raise members.refuse("Tags", f"the key '{key}' stands there twice")
        tags[key] = tag.text("Value", TAG, longest=256, may_be_empty=True) or ""
    return tuple(tags.items())


def _fingerprint(wanted: Association) -> str:
    """Stays the same while an association lives, though its policy may be updated."""
    policy = wanted.policy
    told = (
        wanted.directory,
        wanted.bucket,
        wanted.prefix,
        sorted(event.value for event in policy.imports),
        sorted(event.value for event in policy.exports),
        wanted.import_metadata,
        wanted.chunk_size_mib,
        wanted.tags,
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]


Order = tuple[float, str]


def _order(association: Association) -> Order:
    return association.created_s, association.id


def _token(last: Association) -> str:
    return base64.b64encode(f"{last.created_s!r} {last.id}".encode()).decode()


def _position(members: Members) -> Order | None:
    token = members.text("NextToken", longest=255)
    if token is None:
        return None
    try:
        created, association_id = base64.b64decode(token, validate=True).decode().split(" ")
        return float(created), association_id
    except ValueError as error:  # of base64, UTF-8, split and float alike
        raise members.refuse("NextToken", "it is none that was given out here") from error
