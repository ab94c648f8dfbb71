"""What a person should see: conflicts, files that can't be exported, data that is lost or damaged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fsxsync.catalog.connection import Connection, Row, text
from fsxsync.catalog.files import below
from fsxsync.catalog.numbers import Numbers

_COLUMNS = "association, path, kind, code, message, detected_ns, kept_as"
# Primary key (association, path, kind); where the path is not given, index problems_kind (association, kind).
_PUT = f"""INSERT INTO problems ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (association, path, kind) DO UPDATE SET code = excluded.code, message = excluded.message,
    detected_ns = excluded.detected_ns, kept_as = excluded.kept_as"""  # noqa: S608  names are ours
_CLEAR = "DELETE FROM problems WHERE association = ? AND path = ?"
_CLEAR_KIND = "DELETE FROM problems WHERE association = ? AND path = ? AND kind = ?"
# Without those that are looked at every now and then anyway: there may be as many as files in an archive.
_PATHS = """SELECT DISTINCT path FROM problems WHERE association = ? AND path > ? AND kind NOT IN ('held', 'restoring')
    ORDER BY path LIMIT ?"""
_PATHS_BELOW = """SELECT DISTINCT path FROM problems WHERE association = ? AND path > ? AND path < ?
    ORDER BY path LIMIT ?"""
_AFTER = "SELECT path FROM problems WHERE association = ? AND kind = ? AND path > ? ORDER BY path LIMIT ?"
_ANY = "SELECT 1 FROM problems WHERE association = ? LIMIT 1"
_HAS = "SELECT 1 FROM problems WHERE association = ? AND path = ? LIMIT 1"
_GET = f"SELECT {_COLUMNS} FROM problems WHERE association = ? AND path = ? ORDER BY kind"  # noqa: S608
_LIST = f"SELECT {_COLUMNS} FROM problems WHERE association = ? ORDER BY path, kind"  # noqa: S608
_LIST_KIND = f"SELECT {_COLUMNS} FROM problems WHERE association = ? AND kind = ? ORDER BY path"  # noqa: S608
_BETWEEN = "SELECT path FROM problems WHERE association = ? AND path >= ? AND path <= ? LIMIT ?"
_COUNT = "SELECT count(*) FROM problems WHERE association = ?"
_COUNT_KIND = "SELECT count(*) FROM problems WHERE association = ? AND kind = ?"
_DELETE_ALL = "DELETE FROM problems WHERE association = ?"


@dataclass(frozen=True, slots=True)
class Problem:
    """``kind`` is conflict (one that the policy blocks), not-exportable, lost, refused, damaged, damaged-object, held
    (until something happens in the repository) or restoring (an archived object, asked for); ``kept_as`` is an older
    version's: conflict copies are in `conflicts`."""

    association: str
    path: bytes
    kind: str
    code: str
    message: str
    detected_ns: int
    kept_as: bytes | None = None


class Problems:
    """At most one a path and kind."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers
        self._clean: dict[int | None, bool] = {}
        """Associations that have no problem at all, as nearly always: then no path of theirs has to be asked for."""
        connection.after_rollback.append(self._clean.clear)

    def _is_clean(self, number: int | None) -> bool:
        clean = self._clean.get(number)
        if clean is None:
            clean = self._clean[number] = self._connection.row(_ANY, (number,)) is None
        return clean

    def put(self, problem: Problem) -> None:
        """Write one in place of what was known of that path and kind."""
        with self._connection.transaction():
            number = self._numbers.get_or_make(problem.association)
            if number is None:
                return
            self._clean[number] = False
            self._connection.run(
                _PUT,
                (
                    number,
                    problem.path,
                    problem.kind,
                    problem.code,
                    text(problem.message),
                    problem.detected_ns,
                    problem.kept_as,
                ),
            )

    def clear(
        self, association: str, path: bytes, kinds: Collection[str] | None = None, *, but: Collection[str] = ()
    ) -> None:
        """Forget what was wrong with a path; with ``kinds``, only these; all ``but`` those."""
        number = self._numbers.get(association)
        if self._is_clean(number):
            return
        self._clean.pop(number)  # this may be the last one
        if but:
            kinds = {row[2] for row in self._connection.rows(_GET, (number, path))}.difference(but)
        if kinds is None:
            self._connection.run(_CLEAR, (number, path))
            return
        with self._connection.transaction():
            self._connection.run_many(_CLEAR_KIND, [(number, path, kind) for kind in kinds])

    def _problems(self, rows: Collection[Row]) -> list[Problem]:
        return [Problem(self._numbers.id_of(row[0]), *row[1:]) for row in rows]

    def get(self, association: str, path: bytes) -> list[Problem]:
        """What is wrong with one path."""
        number = self._numbers.get(association)
        return [] if self._is_clean(number) else self._problems(self._connection.rows(_GET, (number, path)))

    def has(self, association: str, path: bytes) -> bool:
        """Something is wrong with the path."""
        number = self._numbers.get(association)
        return not self._is_clean(number) and self._connection.row(_HAS, (number, path)) is not None

    def paths_after(self, association: str, kind: str, path: bytes, limit: int) -> list[bytes]:
        """The next paths with such a problem, in byte order."""
        rows = self._connection.rows(_AFTER, (self._numbers.get(association), kind, path, limit))
        return [row[0] for row in rows]

    def between(self, association: str, first: bytes, last: bytes, limit: int) -> list[bytes]:
        """The paths of up to ``limit`` of them, from ``first`` to ``last``, both included."""
        number = self._numbers.get(association)
        if self._is_clean(number):
            return []
        return [row[0] for row in self._connection.rows(_BETWEEN, (number, first, last, limit))]

    def under(self, association: str, under: bytes, after: bytes, limit: int) -> list[bytes]:
        """The next paths with a problem after one, in byte order: those strictly below a directory, or all of the
        association's that nobody looks at by himself."""
        number = self._numbers.get(association)
        if self._is_clean(number):
            return []
        if under:
            first, end = below(under)
            rows = self._connection.rows(_PATHS_BELOW, (number, max(first, after), end, limit))
        else:
            rows = self._connection.rows(_PATHS, (number, after, limit))
        return [row[0] for row in rows]

    def list(self, association: str | None = None, kind: str | None = None) -> list[Problem]:
        """By association and path."""
        numbers = self._numbers.all() if association is None else [self._numbers.get(association)]
        rows: list[Row] = []
        for number in numbers:
            if kind is None:
                rows += self._connection.rows(_LIST, (number,))
            else:
                rows += self._connection.rows(_LIST_KIND, (number, kind))
        return self._problems(rows)

    def count(self, association: str | None = None, kind: str | None = None) -> int:
        numbers = self._numbers.all() if association is None else [self._numbers.get(association)]
        total = 0
        for number in numbers:
            row = (
                self._connection.row(_COUNT, (number,))
                if kind is None
                else self._connection.row(_COUNT_KIND, (number, kind))
            )
            assert row is not None
            total += row[0]
        return total

    def delete_all(self, association: str) -> None:
        number = self._numbers.get(association)
        self._connection.run(_DELETE_ALL, (number,))
        self._clean.pop(number, None)
