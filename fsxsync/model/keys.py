"""Object key <-> path. Nothing is ever renamed on the way: what has no counterpart is refused."""

from __future__ import annotations

from fsxsync.errors import KeyNotPosix, NotExportable

COMPONENT_MAX = 255
"""Bytes in one name: NAME_MAX of every Linux file system we run on."""
KEY_MAX = 1024
"""Bytes in one key, the prefix included: S3's limit."""
_SURELY = KEY_MAX // 4
"""So many characters never have more bytes."""


def path_of(key: str, prefix: str) -> tuple[bytes, bool]:
    """Map an object key to (path below the association's directory, it is a directory).

    The key ``prefix`` itself is the directory: ``(b"", True)``. A trailing ``/`` marks a directory and is no
    component. Bytes, because the tree's names are bytes; UTF-8, because S3's keys are.

    Raises:
        KeyNotPosix: outside the prefix, an empty, ``.`` or ``..`` component, a NUL, a component over 255
            bytes, or a lone surrogate. The object stays where it is and is reported.

    Source: FSX-FACTS §2.4 (concrete rule), path_resolution(7).
    """
    if not key.startswith(prefix):
        raise _refused(key, f"it lies outside the prefix '{prefix}'")
    try:
        path = key[len(prefix) :].encode()
    except UnicodeEncodeError as error:  # JSON can spell what UTF-8 can't
        raise _refused(key, "it is no valid Unicode") from error
    if not path:
        return b"", True
    is_directory = path.endswith(b"/")
    if is_directory:
        path = path[:-1]
    if b"\0" in path:
        raise _refused(key, "it contains a NUL")
    for component in path.split(b"/"):
        if not component:
            raise _refused(key, "it has an empty part ('//')")
        if component in {b".", b".."}:
            raise _refused(key, f"it has the part '{component.decode()}'")
        if len(component) > COMPONENT_MAX:
            raise _refused(key, f"a part is longer than {COMPONENT_MAX} bytes")
    return path, is_directory


def key_of(path: bytes, prefix: str, *, directory: bool) -> str:
    """The inverse of `path_of`. ``path`` has no slash at either end; b"" is the association's directory.

    Raises:
        NotExportable: a name that is no UTF-8, or a key over 1,024 bytes (code ``PathSizeTooLong``).
    """
    if not path and not directory:
        raise NotExportable("the association's directory", "it can't be an object")
    try:
        key = prefix + path.decode()
    except UnicodeDecodeError as error:
        shown = path.decode("utf-8", "backslashreplace")
        # FSx publishes no code for this case (FSX-FACTS §13); its catch-all is the honest one.
        why = "the name is no UTF-8, and S3's keys are"
        raise NotExportable(f"'{shown}'", why, code="InternalError") from error
    if directory and path:
        key += "/"
    if len(key) > _SURELY and len(key.encode()) > KEY_MAX:
        raise NotExportable(f"'{key}'", f"its key is longer than {KEY_MAX} bytes", code="PathSizeTooLong")
    return key


def _refused(key: str, why: str) -> KeyNotPosix:
    return KeyNotPosix(f"the key {key!r}", why)
