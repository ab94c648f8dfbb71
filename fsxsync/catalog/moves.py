"""Renames whose copy may have been asked for and is in no row yet (`model.move`)."""

from __future__ import annotations

import json

from fsxsync.catalog.connection import Connection, Row, corrupt
from fsxsync.catalog.documents import decode, encode
from fsxsync.catalog.numbers import Numbers
from fsxsync.model.move import Move

_PUT = """INSERT INTO moves (association, path, source, document) VALUES (?, ?, ?, ?)
    ON CONFLICT (association, path) DO UPDATE SET source = excluded.source, document = excluded.document"""
# Primary key (association, path).
_GET = "SELECT document FROM moves WHERE association = ? AND path = ?"
_DELETE = "DELETE FROM moves WHERE association = ? AND path = ?"
_ALL = "SELECT document FROM moves WHERE association = ? ORDER BY path"
_DELETE_ALL = "DELETE FROM moves WHERE association = ?"
# Index moves_source (association, source).
_FROM = "SELECT document FROM moves WHERE association = ? AND source = ?"


class Moves:
    """As many rows as copies are under way, were interrupted, or were refused."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers

    def put(self, move: Move) -> None:
        """Remember a copy before it is asked for, in place of an earlier one to the same path."""
        number = self._numbers.get_or_make(move.row.association)
        if number is not None:
            self._connection.run(_PUT, (number, move.path, move.source, json.dumps(encode(move))))

    def get(self, association: str, path: bytes) -> Move | None:
        """The copy to a path."""
        row = self._connection.row(_GET, (self._numbers.get(association), path))
        return None if row is None else self._move(row)

    def of_source(self, association: str, source: bytes) -> list[Move]:
        """The copies of a path's object."""
        rows = self._connection.rows(_FROM, (self._numbers.get(association), source))
        return [self._move(row) for row in rows]

    def all(self, association: str) -> list[Move]:
        return [self._move(row) for row in self._connection.rows(_ALL, (self._numbers.get(association),))]

    def delete(self, association: str, path: bytes) -> None:
        """The path has its row, or nobody asked for the copy."""
        self._connection.run(_DELETE, (self._numbers.get(association), path))

    def delete_all(self, association: str) -> None:
        self._connection.run(_DELETE_ALL, (self._numbers.get(association),))

    def _move(self, row: Row) -> Move:
        try:
            return decode(Move, json.loads(row[0]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise corrupt(self._connection.path, f"a rename can't be read: {error}") from error
