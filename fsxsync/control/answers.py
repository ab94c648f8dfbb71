"""What an operation of ours may answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from fsxsync.control.documents import Document


@dataclass(frozen=True, slots=True)
class Answer:
    """``afterwards`` is called once the client has the answer."""

    document: Document
    afterwards: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """An answer of many documents, a line each, made while they are sent. Bytes are lines that were made already."""

    documents: AsyncGenerator[Document | bytes, None]
