"""POSIX metadata <-> an object's user metadata: written as FSx writes it, read in every dialect in the wild.

FSx, DataSync and NFS gateways share ``file-*`` keys (FSX-FACTS §3); s3fs and rclone have their own, which are
read where the first are missing. A field that makes no sense is ignored on its own: the rest still counts.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping

from fsxsync.model.identity import Kind, Posix
from fsxsync.model.xattrs import decode_xattrs, encode_xattrs

PERMISSIONS = "file-permissions"
OWNER = "file-owner"
GROUP = "file-group"
ATIME = "file-atime"
MTIME = "file-mtime"
USER_AGENT = "user-agent"
XATTRS = "fsxsync-xattrs"
"""Nobody's key but ours: FSx keeps no extended attributes."""
USER_METADATA_MAX = 2048
"""S3's limit in bytes for all names and values; the prefix of the names is counted in, for some stores do so."""
_PREFIX = "x-amz-meta-"
_OURS = frozenset({PERMISSIONS, OWNER, GROUP, ATIME, MTIME, USER_AGENT})

_TYPE_BITS = {Kind.FILE: 0o100000, Kind.DIRECTORY: 0o040000, Kind.SYMLINK: 0o120000}
_TYPE_MASK = 0o170000
_IMPORTED_MODE = 0o1777
_IMPORTED_DIRECTORY_MODE = 0o3777
"""All permission bits but those that give a program another user's or group's rights: who may write to a bucket shall
not have them here. FSx drops setuid alone (FSX-FACTS §2.4). On a directory setgid hands the group down, no more."""
_SYMLINK_MODE = 0o777

_OCTAL = re.compile(r"[0-7]{1,7}")
_ID = re.compile(r"[0-9]{1,10}")
_FILE_TIME = re.compile(r"(-?[0-9]{1,19})(ns)?")
_SECONDS = re.compile(r"(-?)([0-9]{1,11})(?:\.([0-9]{1,18}))?")
_ID_MAX = 2**32 - 2
"""(uid_t)-1 means "leave it alone" to chown(2)."""
_TIME_MAX_NS = 2**63 - 1

_TYPES = mimetypes.MimeTypes()  # the built-in table only: the same answer on every host
_BY_ENCODING = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
}
_BINARY = "application/octet-stream"


def to_user_metadata(kind: Kind, posix: Posix) -> dict[str, str]:
    """User metadata as FSx for Lustre writes it; fields that are None are left out."""
    meta = {USER_AGENT: "aws-fsx-lustre"}
    mode = _SYMLINK_MODE if posix.mode is None and kind is Kind.SYMLINK else posix.mode
    if mode is not None:
        meta[PERMISSIONS] = f"{_TYPE_BITS[kind] | (mode & 0o7777):07o}"
    if posix.uid is not None:
        meta[OWNER] = str(posix.uid)
    if posix.gid is not None:
        meta[GROUP] = str(posix.gid)
    if posix.atime_ns is not None:
        meta[ATIME] = f"{posix.atime_ns}ns"
    if posix.mtime_ns is not None:
        meta[MTIME] = f"{posix.mtime_ns}ns"
    if posix.xattrs:
        meta[XATTRS] = posix.xattrs
    return meta


def again_user_metadata(before: Mapping[str, str], kind: Kind, posix: Posix) -> dict[str, str]:
    """User metadata of an object whose POSIX metadata changes: what is somebody else's stays. Extended attributes stay
    where ``posix`` says nothing of them, and go where there is no room for them beside the others."""
    named = posix.xattrs is not None
    kept = {name: value for name, value in before.items() if not (is_ours(name) or (named and name.lower() == XATTRS))}
    after = kept | to_user_metadata(kind, posix)
    if not fits(after):
        after.pop(XATTRS, None)
    return after


def fits(meta: Mapping[str, str]) -> bool:
    """S3 takes that much user metadata."""
    return sum(len(_PREFIX) + len(name) + len(value.encode()) for name, value in meta.items()) <= USER_METADATA_MAX


def from_user_metadata(meta: Mapping[str, str], *, key: str) -> tuple[Kind, Posix]:
    """What an object says about itself. Names count without regard to case, as HTTP's do.

    A key that ends in ``/`` is a directory whatever the type bits say: a published walkthrough of FSx has a
    directory with ``0100664`` (FSX-FACTS §3).
    """
    fields = {name.lower(): value.strip() for name, value in meta.items()}
    is_directory = key.endswith("/")
    mode = _permissions(fields.get(PERMISSIONS))
    if mode is None:
        mode = _foreign_mode(fields.get("mode"), is_directory=is_directory)
    kind = Kind.FILE
    if is_directory:
        kind = Kind.DIRECTORY
    elif mode is not None and mode & _TYPE_MASK == _TYPE_BITS[Kind.SYMLINK]:
        kind = Kind.SYMLINK
    return kind, Posix(
        mode=None if mode is None else mode & (_IMPORTED_DIRECTORY_MODE if is_directory else _IMPORTED_MODE),
        uid=_first(_id(fields.get(OWNER)), _id(fields.get("uid"))),
        gid=_first(_id(fields.get(GROUP)), _id(fields.get("gid"))),
        mtime_ns=_first(_file_time(fields.get(MTIME)), _seconds(fields.get("mtime"))),
        atime_ns=_first(_file_time(fields.get(ATIME)), _seconds(fields.get("atime"))),
        xattrs=_xattrs(fields.get(XATTRS)),
    )


def is_ours(name: str) -> bool:
    """`to_user_metadata` writes the user metadata key ``name``; all others are somebody else's."""
    return name.lower() in _OURS


def guess_content_type(path: bytes, kind: Kind = Kind.FILE) -> str:
    """The media type to store an object under, by its name; the same on every host.

    A compressed file is what its outer layer is: ``a.tar.gz`` is gzip, and no browser shall unpack it.
    """
    if kind is Kind.DIRECTORY:
        return "binary/octet-stream"  # as the examples of FSX-FACTS §3
    if kind is not Kind.FILE:
        return _BINARY
    name = path.rpartition(b"/")[2].decode("utf-8", "replace")
    _, *suffixes = name.split(".")
    if not suffixes:
        return _BINARY
    # Only the suffixes: guess_type takes a URL, and a name may look like one with a scheme.
    kind_of_name, encoding = _TYPES.guess_type("x." + ".".join(suffixes[-2:]).replace(":", "_"))
    if encoding is not None:
        return _BY_ENCODING.get(encoding, _BINARY)
    return kind_of_name or _BINARY


def _first(one: int | None, other: int | None) -> int | None:
    return one if one is not None else other


def _xattrs(text: str | None) -> str | None:
    found = None if text is None else decode_xattrs(text)
    return None if found is None else encode_xattrs(found)


def _permissions(text: str | None) -> int | None:
    """st_mode in octal: ``0100644``, ``100644`` and, without type bits, ``0644``."""
    if text is None or not _OCTAL.fullmatch(text):
        return None
    mode = int(text, 8)
    return mode if mode <= _TYPE_MASK | 0o7777 else None


def _foreign_mode(text: str | None, *, is_directory: bool) -> int | None:
    """s3fs writes st_mode in decimal (33188), rclone in octal (100644): the type bits tell which it is."""
    if text is None or not _ID.fullmatch(text):
        return None
    candidates = [int(text)]
    if _OCTAL.fullmatch(text):
        candidates.append(int(text, 8))
    wanted = (Kind.DIRECTORY,) if is_directory else (Kind.FILE, Kind.SYMLINK)
    types = {_TYPE_BITS[kind] for kind in wanted}
    return next((mode for mode in candidates if mode & ~0o7777 in types), None)


def _id(text: str | None) -> int | None:
    if text is None or not _ID.fullmatch(text):
        return None
    value = int(text)
    return value if value <= _ID_MAX else None


def _file_time(text: str | None) -> int | None:
    """``1595002920000000000ns``; without ``ns`` the number means milliseconds (FSX-FACTS §3)."""
    matched = _FILE_TIME.fullmatch(text or "")
    if matched is None:
        return None
    return _in_range(int(matched[1]) * (1 if matched[2] else 10**6))


def _seconds(text: str | None) -> int | None:
    """``1595002920.123456789``, exactly: a float would lose the nanoseconds."""
    matched = _SECONDS.fullmatch(text or "")
    if matched is None:
        return None
    nanoseconds = int(matched[2]) * 10**9 + int((matched[3] or "0").ljust(9, "0")[:9])
    return _in_range(-nanoseconds if matched[1] else nanoseconds)


def _in_range(time_ns: int) -> int | None:
    return time_ns if abs(time_ns) <= _TIME_MAX_NS else None
