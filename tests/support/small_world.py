"""The small world of the reconcile tests: three contents, two modes, one path."""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.stub import StubMark


@dataclass(frozen=True, slots=True)
class Version:
    content: int
    mode: int


def etag(content: int) -> str:
    return f"etag-{content}"


def digest(content: int) -> bytes:
    return bytes([content]) * 16


def base_of(version: Version | None, *, released: bool) -> Base | None:
    if version is None:
        return None
    return Base(
        association="dra-1",
        path=b"f",
        kind=Kind.FILE,
        ino=10,
        size=5,
        mtime_ns=version.content,
        ctime_ns=version.content,
        mode=version.mode,
        uid=0,
        gid=0,
        etag=etag(version.content),
        remote_size=5,
        last_modified_ns=1,
        posix=Posix(version.mode, 0, 0, None),
        released=released,
        content_hash=None if released else digest(version.content),
    )


def local_of(version: Version | None, *, base: Version | None, is_stub: bool, later: bool = True) -> Local | None:
    if version is None:
        return None
    untouched = base == version
    return Local(
        kind=Kind.FILE,
        ino=10,
        size=5,
        mtime_ns=version.content,
        ctime_ns=version.content if untouched else (900 if later else 100),
        mode=version.mode,
        uid=0,
        gid=0,
        stub=StubMark(etag(version.content), 5, "k") if is_stub else None,
        content_hash=None if is_stub else digest(version.content),
    )


def remote_of(version: Version | None) -> Remote | None:
    if version is None:
        return None
    return Remote(
        kind=Kind.FILE,
        etag=etag(version.content),
        size=5,
        last_modified_ns=500,
        posix=Posix(version.mode, 0, 0, None),
    )
