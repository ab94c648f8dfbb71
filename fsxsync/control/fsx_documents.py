"""Values as FSx's documents (FSX-FACTS §1.2, §10)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fsxsync.control.protocol import MESSAGE_MAX
from fsxsync.model.association import Association, Event
from fsxsync.ports import Status

Document = dict[str, Any]

ACCOUNT = "000000000000"
REGION = "us-east-1"
"""There is no account and no region here; an ARN has to name some."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """The one file system that a daemon is."""

    file_system_id: str

    @classmethod
    def of_instance(cls, instance: str) -> Place:
        """``fs-`` and 17 hexadecimal digits, as real ids have, always the same for one state directory."""
        digits = instance.replace("-", "").lower()
        if not re.fullmatch(r"[0-9a-f]{17,}", digits):
            digits = hashlib.sha256(instance.encode()).hexdigest()
        return cls(f"fs-{digits[:17]}")

    def arn(self, resource: str, *parts: str) -> str:
        return f"arn:aws:fsx:{REGION}:{ACCOUNT}:{resource}/{'/'.join((self.file_system_id, *parts))}"

    @staticmethod
    def task_arn(task_id: str) -> str:
        """A task's names no file system (FSX-FACTS §4.1)."""
        return f"arn:aws:fsx:{REGION}:{ACCOUNT}:task/{task_id}"


def of_association(association: Association, place: Place) -> Document:
    document: Document = {
        "AssociationId": association.id,
        "ResourceARN": place.arn("association", association.id),
        "FileSystemId": place.file_system_id,
        "Lifecycle": association.lifecycle.value,
        "FileSystemPath": association.file_system_path,
        # FSx echoes what was given: people write a bucket bare and a prefix with its slash
        "DataRepositoryPath": association.uri if association.prefix else f"s3://{association.bucket}",
        "BatchImportMetaDataOnCreate": association.import_metadata,
        "ImportedFileChunkSize": association.chunk_size_mib,
        "S3": {},
        "Tags": [{"Key": key, "Value": value} for key, value in association.tags],
        "CreationTime": association.created_s,
    }
    for name, events in (
        ("AutoImportPolicy", association.policy.imports),
        ("AutoExportPolicy", association.policy.exports),
    ):
        if events:
            document["S3"][name] = {"Events": _event_types(events)}
    if association.failure:
        document["FailureDetails"] = {"Message": association.failure[:MESSAGE_MAX]}
    return document


def _event_types(events: Iterable[Event]) -> list[str]:
    chosen = set(events)
    return [event.value for event in Event if event in chosen]


def of_file_system(status: Status, place: Place) -> Document:
    """As much of it as a client needs to find the associations; what no host has is filled in plausibly."""
    return {
        "OwnerId": ACCOUNT,
        "CreationTime": status.started_s,
        "FileSystemId": place.file_system_id,
        "FileSystemType": "LUSTRE",
        "FileSystemTypeVersion": "2.15",
        "Lifecycle": "AVAILABLE",
        "StorageCapacity": max(1, (status.cache_bytes + status.cache_free_bytes) // GIB),
        "StorageType": "SSD",
        "VpcId": "vpc-00000000",
        "SubnetIds": [],
        "NetworkInterfaceIds": [],
        "DNSName": "localhost",
        "ResourceARN": place.arn("file-system"),
        "Tags": [],
        "LustreConfiguration": {
            "DeploymentType": "PERSISTENT_2",
            "MountName": "fsxsync",
            "DataCompressionType": "NONE",
        },
    }
