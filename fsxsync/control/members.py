"""Reading the members of a request: type, length, range and pattern, each with a sentence if it is off.

botocore checks required members, types and minimum lengths only (FSX-FACTS §10): all limits are ours to hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping

from fsxsync.errors import BadInput

NAMESPACE_MAX = 4096
ARCHIVE_PATH_MAX = 4357


class Members:
    """One JSON object of a request. ``where`` names it in messages. All methods raise BadInput."""

    def __init__(self, members: Mapping[str, object], where: str) -> None:
        self._members = members
        self._where = where

    def refuse(self, name: str, why: str) -> BadInput:
        return BadInput(f"{name} of {self._where}", why, advice="correct the request")

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def only(self, known: Collection[str]) -> None:
        """FSx ignores members that it doesn't know; a mistyped option of ours shall not be ignored."""
        for name in self._members:
            if name not in known:
                raise self.refuse(name, f"there is no such member, known are {', '.join(sorted(known))}")

    def text(
        self,
        name: str,
        pattern: str | None = None,
        *,
        longest: int = NAMESPACE_MAX,
        may_be_empty: bool = False,
    ) -> str | None:
        value = self._members.get(name)
        if value is None or (value == "" and may_be_empty):
            return value
        return self._text(name, value, pattern, longest)

    def _text(self, name: str, value: object, pattern: str | None, longest: int) -> str:
        if not isinstance(value, str):
            raise self.refuse(name, "is no string")
        if not 1 <= len(value) <= longest:
            raise self.refuse(name, f"has {len(value)} characters, allowed are 1 to {longest}")
        try:
            value.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise self.refuse(name, "has characters that are neither text nor bytes of a name") from error
        if "\0" in value:
            raise self.refuse(name, "has a NUL character")
        if pattern is not None and not re.fullmatch(pattern, value):
            raise self.refuse(name, f"'{value}' does not match {pattern}")
        return value

    def required_text(self, name: str, pattern: str | None = None, *, longest: int = NAMESPACE_MAX) -> str:
        value = self.text(name, pattern, longest=longest)
        if value is None:
            raise self.refuse(name, "is missing")
        return value

    def word(self, name: str, words: Collection[str]) -> str | None:
        value = self.text(name)
        if value is not None and value not in words:
            raise self.refuse(name, f"'{value}' is none of {', '.join(words)}")
        return value

    def flag(self, name: str) -> bool | None:
        value = self._members.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(name, "is neither true nor false")
        return value

    def whole(self, name: str, low: int, high: int) -> int | None:
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refuse(name, f"is no whole number from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float) -> float | None:
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise self.refuse(name, f"is no number from {low:g} to {high:g}")
        if not low <= value <= high:
            raise self.refuse(name, f"is not from {low:g} to {high:g}")
        return float(value)

    def texts(
        self,
        name: str,
        pattern: str | None = None,
        *,
        most: int,
        longest: int = NAMESPACE_MAX,
        may_be_empty: bool = False,
    ) -> tuple[str, ...] | None:
        values = self._list(name, most)
        if values is None:
            return None
        return tuple(
            "" if may_be_empty and value == "" else self._text(name, value, pattern, longest) for value in values
        )

    def inner(self, name: str) -> Members | None:
        value = self._members.get(name)
        if value is None:
            return None
        return self._inner(name, value)

    def inners(self, name: str, *, most: int) -> tuple[Members, ...] | None:
        values = self._list(name, most)
        if values is None:
            return None
        return tuple(self._inner(name, value) for value in values)

    def _list(self, name: str, most: int) -> list[object] | None:
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.refuse(name, "is no list")
        if len(value) > most:
            raise self.refuse(name, f"has {len(value)} entries, allowed are {most}")
        return value

    def _inner(self, name: str, value: object) -> Members:
        if not isinstance(value, dict):
            raise self.refuse(name, "is no object")
        return Members(value, f"{name} of {self._where}")
