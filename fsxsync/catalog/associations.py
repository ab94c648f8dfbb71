"""Associations, each as one JSON document: a field more or less needs no migration."""

from __future__ import annotations

import json

from fsxsync.catalog.changelog import Changelog
from fsxsync.catalog.conflicts import Conflicts
from fsxsync.catalog.connection import Connection, corrupt
from fsxsync.catalog.documents import decode, encode
from fsxsync.catalog.files import Files
from fsxsync.catalog.moves import Moves
from fsxsync.catalog.numbers import Numbers
from fsxsync.catalog.problems import Problems
from fsxsync.catalog.refused_keys import RefusedKeys
from fsxsync.catalog.uploads import Uploads
from fsxsync.model.association import Association

_PUT = """INSERT INTO associations (association, document) VALUES (?, ?)
    ON CONFLICT (association) DO UPDATE SET document = excluded.document"""
_GET = "SELECT document FROM associations WHERE association = ?"
_ALL = "SELECT document FROM associations ORDER BY association"  # a handful of rows
_DELETE = "DELETE FROM associations WHERE association = ?"


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
        moves: Moves,
        refused_keys: RefusedKeys,
    ) -> None:
        self._connection = connection
        self._numbers = numbers
        self._files = files
        self._changelog = changelog
        self._uploads = uploads
        self._problems = problems
        self._conflicts = conflicts
        self._moves = moves
        self._refused_keys = refused_keys

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
            self._moves.delete_all(association_id)
            self._refused_keys.delete_all(association_id)
            self._connection.run(_DELETE, (number,))
            self._numbers.drop(association_id)

    def _decode(self, document: str) -> Association:
        try:
            return decode(Association, json.loads(document))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise corrupt(self._connection.path, f"an association can't be read: {error}") from error
