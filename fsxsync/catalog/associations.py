"""Associations, each as one JSON document: a field more or less needs no migration."""

from __future__ import annotations

import json
import types
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from fsxsync.catalog.changelog import Changelog
from fsxsync.catalog.conflicts import Conflicts
from fsxsync.catalog.connection import Connection, corrupt
from fsxsync.catalog.files import Files
from fsxsync.catalog.numbers import Numbers
from fsxsync.catalog.problems import Problems
from fsxsync.catalog.uploads import Uploads
from fsxsync.model.association import Association

_PUT = """INSERT INTO associations (association, document) VALUES (?, ?)
    ON CONFLICT (association) DO UPDATE SET document = excluded.document"""
_GET = "SELECT document FROM associations WHERE association = ?"
_ALL = "SELECT document FROM associations ORDER BY association"  # a handful of rows
_DELETE = "DELETE FROM associations WHERE association = ?"

_Value = TypeVar("_Value")


class Associations:
    def __init__(
        self,
        connection: Connection,
        numbers: Numbers,
        *,
        files: Files,
        changelog: Changelog,
        uploads: Uploads,
        problems: Problems,
        conflicts: Conflicts,
    ) -> None:
        self._connection = connection
        self._numbers = numbers
        self._files = files
        self._changelog = changelog
        self._uploads = uploads
        self._problems = problems
        self._conflicts = conflicts

    def put(self, association: Association) -> None:
        """Write one in place of what was known under its id."""
        with self._connection.transaction():
            self._numbers.revive(association.id)
            number = self._numbers.get_or_make(association.id)
            self._connection.run(_PUT, (number, json.dumps(encode(association))))

    def get(self, association_id: str) -> Association | None:
        row = self._connection.row(_GET, (self._numbers.get(association_id),))
        return self._decode(row[0]) if row is not None else None

    def all(self) -> list[Association]:
        """In order of creation."""
        return [self._decode(row[0]) for row in self._connection.rows(_ALL)]

    def delete(self, association_id: str) -> None:
        """Forget an association and everything known below it, in one transaction. What late tasks still
        write for it is dropped."""
        number = self._numbers.get(association_id)
        with self._connection.transaction():
            self._files.delete_all(association_id)
            self._changelog.delete_all(association_id)
            self._uploads.delete_all(association_id)
            self._problems.delete_all(association_id)
            self._conflicts.delete_all(association_id)
            self._connection.run(_DELETE, (number,))
            self._numbers.drop(association_id)

    def _decode(self, document: str) -> Association:
        try:
            return decode(Association, json.loads(document))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise corrupt(self._connection.path, f"an association can't be read: {error}") from error


def encode(value: Any) -> Any:
    """A value of `model` as JSON's types. Bytes become text that keeps what is no UTF-8 (surrogateescape)."""
    if is_dataclass(value):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    match value:
        case Enum():
            return value.value
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case frozenset():
            return sorted(encode(item) for item in value)
        case tuple():
            return [encode(item) for item in value]
    return value


def decode(wanted: type[_Value], value: Any) -> _Value:
    """The inverse of `encode`: the types of the fields say what to make. A field that this version does
    not know is left out, one that is missing has its default.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such value.
    """
    result: _Value = _decode(wanted, value)
    return result


def _decode(wanted: Any, value: Any) -> Any:
    if is_dataclass(wanted):
        assert isinstance(wanted, type)
        hints = get_type_hints(wanted)
        known = {field.name for field in fields(wanted)}
        return wanted(**{name: _decode(hints[name], item) for name, item in value.items() if name in known})
    origin, arguments = get_origin(wanted), get_args(wanted)
    if origin in {types.UnionType, Union}:
        some = next(argument for argument in arguments if argument is not types.NoneType)
        return None if value is None else _decode(some, value)
    if origin is frozenset:
        return frozenset(_decode(arguments[0], item) for item in value)
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_decode(kind, item) for kind, item in zip(kinds, value, strict=True))
    if wanted is bytes:
        return value.encode("utf-8", "surrogateescape")
    if wanted is float and isinstance(value, int):
        return float(value)
    if issubclass(wanted, Enum):
        return wanted(value)
    if not isinstance(value, wanted):
        raise TypeError(f"{value!r} is not of {wanted.__name__}")
    return value
