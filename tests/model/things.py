"""What stands at a path, on either side, and what everybody here does to files."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

TAG = 12
"""Bytes at the start of every content that tell it from all others."""


class Thing(NamedTuple):
    """What is at a path: file, directory or symlink, its bytes or target, its permissions where they are known.
    ``etag``: of an object."""

    kind: str
    content: bytes = b""
    mode: int | None = None
    lost: bool = False
    etag: str = ""
    owner: tuple[int, int] | None = None
    mtime_ns: int | None = None


def metadata_of(words: Mapping[str, str]) -> dict[str, Any]:
    """What an object says of owner and time, in FSx's words."""
    uid, gid, mtime = (words.get(name) for name in ("file-owner", "file-group", "file-mtime"))
    return {
        "owner": None if uid is None or gid is None else (int(uid), int(gid)),
        "mtime_ns": None if mtime is None else int(mtime.removesuffix("ns")),
    }


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def is_mix(content: bytes, new: bytes, old: bytes) -> bool:
    """The new bytes up to somewhere, and the old ones from there on."""
    at = next((at for at, (one, other) in enumerate(zip(content, new, strict=False)) if one != other), len(content))
    return content[at:] == old[at:]


def shown(content: bytes) -> tuple[bytes, int]:
    return content[:40], len(content)


def inode_of(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_file(path: Path, content: bytes, *, new: bool = False, opened: list[int] | None = None) -> None:
    """``opened`` gets the inode that was met."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb" if new else "wb") as stream:
        if opened is not None:
            opened.append(os.fstat(stream.fileno()).st_ino)
        stream.write(content)


def write_all(stream: io.FileIO, content: bytes) -> None:
    """On a disk that is nearly full a part may be taken without an error, which the next write tells."""
    while content:
        content = content[stream.write(content) or 0 :]


def replace_file(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    write_file(beside, content)
    rename_or_remove(beside, path)


def rename_or_remove(beside: Path, path: Path) -> None:
    """What can't be moved to its name is not left lying about: nobody would know it for what it is."""
    try:
        beside.rename(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
