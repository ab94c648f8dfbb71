"""The seams between the rooms: what each side may ask of the other, and nothing else. A page a seam."""

from __future__ import annotations

from fsxsync.ports.administration import Administration, AssociationStatus, FileState, PendingItem, Status
from fsxsync.ports.events import HELD_S, EventQueue, EventRoute, ObjectHint, QueueMessage
from fsxsync.ports.front import Front, Hydrator
from fsxsync.ports.journal import PASSING, Begun, Intent, SentPart, Unrecorded, UploadJournal
from fsxsync.ports.mover import ChunkJob, Mover
from fsxsync.ports.store import (
    Conditions,
    Fetched,
    Listed,
    ObjectHeaders,
    ObjectStore,
    StoreFactory,
    UploadedPart,
    Written,
)
from fsxsync.ports.tasks import Planned, TaskBoard
from fsxsync.ports.wire import Answer, End, FileRange, Priority, SignedRequest, Sink, Wire

__all__ = [
    "HELD_S",
    "PASSING",
    "Administration",
    "Answer",
    "AssociationStatus",
    "Begun",
    "ChunkJob",
    "Conditions",
    "End",
    "EventQueue",
    "EventRoute",
    "Fetched",
    "FileRange",
    "FileState",
    "Front",
    "Hydrator",
    "Intent",
    "Listed",
    "Mover",
    "ObjectHeaders",
    "ObjectHint",
    "ObjectStore",
    "PendingItem",
    "Planned",
    "Priority",
    "QueueMessage",
    "SentPart",
    "SignedRequest",
    "Sink",
    "Status",
    "StoreFactory",
    "TaskBoard",
    "Unrecorded",
    "UploadJournal",
    "UploadedPart",
    "Wire",
    "Written",
]
