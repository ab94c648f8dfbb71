"""User extended attributes <-> one value of an object's user metadata, for associations that ask for it.

S3's names of user metadata know no case and few characters, so that all attributes go into one value:
``name=base64,…``, sorted, names without ``user.`` and with all but letters, digits and ``-._~`` percent-encoded. Other
namespaces are the system's, and ours (`stub.RESERVED_PREFIX`) says what this host has of a file: neither travels.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import quote_from_bytes, unquote_to_bytes

from fsxsync.model.stub import RESERVED_PREFIX

USER = b"user."
NAME_MAX = 255
"""XATTR_NAME_MAX of xattr(7), the prefix included."""
TEXT_MAX = 2048
"""All user metadata that S3 takes is no longer."""


def travels(name: bytes) -> bool:
    """An attribute that may be written to an object, and taken from one."""
    return (
        name.startswith(USER)
        and len(USER) < len(name) <= NAME_MAX
        and b"\0" not in name
        and not name.startswith(RESERVED_PREFIX)
    )


def encode_xattrs(xattrs: Mapping[bytes, bytes]) -> str:
    """The value that holds them; '' for none. What does not travel is left out."""
    return ",".join(
        f"{quote_from_bytes(name.removeprefix(USER), safe='')}={base64.b64encode(value).decode()}"
        for name, value in sorted(xattrs.items())
        if travels(name)
    )


def decode_xattrs(text: str) -> dict[bytes, bytes] | None:
    """The inverse; None for what is no such value. An attribute that must not be set is left out."""
    found: dict[bytes, bytes] = {}
    if len(text) > TEXT_MAX:
        return None
    for item in text.split(",") if text else ():
        name, separator, value = item.partition("=")
        if not separator:
            return None
        try:
            decoded = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        whole = USER + unquote_to_bytes(name)
        if travels(whole):
            found[whole] = decoded
    return found
