"""Pending hints, durable and coalescing: one row a path, however often something happened to it (DESIGN §2).

A row says "look at this path", never what happened to it. It goes when a look has settled it and no newer
hint came meanwhile (`Entry.seq`). Who is looking at a row is known in memory only: after a crash nobody is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import count

from fsxsync.catalog.connection import Connection, Row, text
from fsxsync.catalog.files import below, signed, unsigned
from fsxsync.catalog.numbers import Numbers


@dataclass(frozen=True, slots=True)
class Hint:
    """Look at ``path``: which side something may have happened on, the host inode where it is known, and
    when it happened where the event said so."""

    association: str
    path: bytes
    local: bool
    remote: bool
    ino: int | None = None
    happened_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A pending path. ``attempts`` counts failed looks since the last hint; ``last_error`` stays until one
    succeeds."""

    association: str
    path: bytes
    local: bool
    remote: bool
    ino: int | None
    first_seen_ns: int
    not_before_ns: int
    seq: int
    attempts: int
    last_error: str | None
    last_code: str | None
    waiting_for: str


_COLUMNS = (
    "association, path, local, remote, ino, first_seen_ns, not_before_ns, seq, attempts, last_error,"
    " last_code, waiting_for"
)
# One statement coalesces: flags add up, the delay starts again but ends at the cap. The cap counts from
# the first hint since somebody last looked (:looking says that a look is going on, and this hint is the
# first during it): otherwise a file that is written for hours would be looked at back to back once the
# first cap is over.
_ADD = """INSERT INTO changelog
    (association, path, local, remote, ino, first_seen_ns, window_ns, not_before_ns, seq)
VALUES (:association, :path, :local, :remote, :ino, :happened_ns, :now_ns,
    :now_ns + min(:delay_ns, :cap_ns), :seq)
ON CONFLICT (association, path) DO UPDATE SET
    local = max(local, excluded.local),
    remote = max(remote, excluded.remote),
    ino = coalesce(excluded.ino, ino),
    first_seen_ns = min(first_seen_ns, excluded.first_seen_ns),
    window_ns = CASE WHEN :looking OR window_ns IS NULL THEN :now_ns ELSE window_ns END,
    not_before_ns = min(:now_ns + :delay_ns,
        CASE WHEN :looking OR window_ns IS NULL THEN :now_ns ELSE window_ns END + :cap_ns),
    seq = excluded.seq,
    attempts = 0"""
# A path that is due for another reason stays due.
_HOLD = """INSERT INTO changelog (association, path, local, remote, first_seen_ns, window_ns, not_before_ns, seq)
VALUES (?, ?, 0, 1, ?, NULL, ?, ?)
ON CONFLICT (association, path) DO UPDATE SET remote = 1, seq = excluded.seq, attempts = 0"""
# Index changelog_due (association, not_before_ns).
_DUE = f"""SELECT {_COLUMNS} FROM changelog WHERE association = ? AND not_before_ns <= ?
    ORDER BY not_before_ns LIMIT ?"""  # noqa: S608  names are ours
_NEXT_DUE = "SELECT path, not_before_ns FROM changelog WHERE association = ? ORDER BY not_before_ns LIMIT ?"
_WAKE = """UPDATE changelog SET not_before_ns = :now_ns
    WHERE association = :association AND not_before_ns > :now_ns"""
_HELD = "SELECT path FROM changelog WHERE association = ? AND not_before_ns = ? LIMIT ?"
# Primary key (association, path).
_RELEASE = "UPDATE changelog SET not_before_ns = ? WHERE association = ? AND path = ?"
_DROP_HELD = "DELETE FROM changelog WHERE association = ? AND path = ? AND not_before_ns = ? AND local = 0"
_DONE = "DELETE FROM changelog WHERE association = ? AND path = ? AND seq = ?"
_SETTLED_BUT_NEWER = """UPDATE changelog SET first_seen_ns = coalesce(window_ns, first_seen_ns),
    last_error = NULL, last_code = NULL, waiting_for = '' WHERE association = ? AND path = ?"""
_RETRY = """UPDATE changelog SET attempts = attempts + 1, last_error = :error, last_code = :code,
    waiting_for = '',
    not_before_ns = CASE seq WHEN :seq THEN :at_ns ELSE not_before_ns END,
    window_ns = CASE seq WHEN :seq THEN NULL ELSE window_ns END
    WHERE association = :association AND path = :path"""
_POSTPONE = """UPDATE changelog SET waiting_for = :waiting_for,
    not_before_ns = CASE seq WHEN :seq THEN :at_ns ELSE not_before_ns END,
    window_ns = CASE seq WHEN :seq THEN NULL ELSE window_ns END
    WHERE association = :association AND path = :path"""
_ONE = f"SELECT {_COLUMNS} FROM changelog WHERE association = ? AND path = ?"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM changelog WHERE association = ? ORDER BY path LIMIT ?"  # noqa: S608
_BELOW = f"""SELECT {_COLUMNS} FROM changelog WHERE association = ? AND path >= ? AND path < ?
    ORDER BY path LIMIT ?"""  # noqa: S608
_PATHS = "SELECT path FROM changelog WHERE association = ? AND path >= ? AND path <= ? LIMIT ?"
_COUNT_ONE = "SELECT count(*) FROM changelog WHERE association = ? AND path = ?"
_COUNT_BELOW = "SELECT count(*) FROM changelog WHERE association = ? AND path >= ? AND path < ?"
_DELETE_ONE = "DELETE FROM changelog WHERE association = ? AND path = ?"
_DELETE_BELOW = "DELETE FROM changelog WHERE association = ? AND path >= ? AND path < ?"
_DELETE_ALL = "DELETE FROM changelog WHERE association = ?"
# Indexes changelog_oldest, changelog_errors and changelog_ino.
_OLDEST = "SELECT min(first_seen_ns) FROM changelog WHERE association = ?"
# changelog_oldest again: it is walked up to the first remote entry.
_OLDEST_REMOTE = """SELECT first_seen_ns FROM changelog INDEXED BY changelog_oldest WHERE association = ? AND remote
    ORDER BY first_seen_ns LIMIT 1"""
_OLDEST_LOCAL = """SELECT first_seen_ns FROM changelog INDEXED BY changelog_oldest WHERE association = ? AND local
    ORDER BY first_seen_ns LIMIT 1"""
_ERRORS = f"""SELECT {_COLUMNS} FROM changelog WHERE association = ? AND last_error IS NOT NULL
    ORDER BY attempts DESC LIMIT ?"""  # noqa: S608
_BY_INODE = f"SELECT {_COLUMNS} FROM changelog WHERE ino = ?"  # noqa: S608
# Once, at the start.
_LAST_SEQ = "SELECT coalesce(max(seq), 0) FROM changelog"


class Changelog:
    """Hints in, entries out. Hints for an association that was deleted are dropped: there is no work left."""

    def __init__(self, connection: Connection, numbers: Numbers) -> None:
        self._connection = connection
        self._numbers = numbers
        self._claims: dict[int, dict[bytes, bool]] = {}
        """Association -> path somebody is looking at -> a hint came since."""
        self._turn = 0
        row = connection.row(_LAST_SEQ)
        assert row is not None
        self._seq = count(row[0] + 1)

    # ------------------------------------------------------------- hints

    def add(self, hints: Iterable[Hint], *, now_ns: int, delay_ns: int, cap_ns: int) -> None:
        """Ask for a look at each path once it was quiet for ``delay_ns``, at the latest ``cap_ns`` after
        the first hint since it was last looked at. All or none; when it returns, they survive a crash of
        the process."""
        with self._connection.transaction():
            rows = [
                self._parameters(hint, number, now_ns) | {"delay_ns": delay_ns, "cap_ns": cap_ns}
                for hint in hints
                if (number := self._numbers.get_or_make(hint.association)) is not None
            ]
            self._connection.run_many(_ADD, rows)

    def _parameters(self, hint: Hint, number: int, now_ns: int) -> dict[str, object]:
        claims = self._claims.get(number)
        looking = claims is not None and claims.get(hint.path) is False
        if looking and claims is not None:
            claims[hint.path] = True
        return {
            "association": number,
            "path": hint.path,
            "local": hint.local,
            "remote": hint.remote,
            "ino": None if hint.ino is None else signed(hint.ino),
            "happened_ns": now_ns if hint.happened_ns is None else min(hint.happened_ns, now_ns),
            "now_ns": now_ns,
            "looking": looking,
            "seq": next(self._seq),
        }

    # ------------------------------------------------------------- looks

    def claim(self, now_ns: int, limit: int, associations: Collection[str]) -> list[Entry]:
        """Up to ``limit`` due paths that nobody looks at, the longest due first, associations in turn.

        Each must be given back by `done`, `retry` or `postpone`.
        """
        due = [entries for name in dict.fromkeys(associations) if (entries := self._due(name, now_ns, limit))]
        if due:
            self._turn = (self._turn + 1) % len(due)
            due = due[self._turn :] + due[: self._turn]
        longest = max(map(len, due), default=0)
        taken = [entries[place] for place in range(longest) for entries in due if place < len(entries)][:limit]
        for entry in taken:
            number = self._numbers.get(entry.association)
            assert number is not None
            self._claims.setdefault(number, {})[entry.path] = False
        return taken

    def _due(self, association: str, now_ns: int, limit: int) -> list[Entry]:
        number = self._numbers.get(association)
        claims = self._claims.get(number, {}) if number is not None else {}
        rows = self._connection.rows(_DUE, (number, now_ns, limit + len(claims)))
        return [self._entry(row) for row in rows if row[1] not in claims][:limit]

    def done(self, entry: Entry) -> bool:
        """The look settled the path. False if a newer hint came meanwhile: the row stays, for another
        look."""
        number = self._unclaim(entry)
        if self._connection.run(_DONE, (number, entry.path, entry.seq)):
            return True
        self._connection.run(_SETTLED_BUT_NEWER, (number, entry.path))
        return False

    def retry(self, entry: Entry, *, error: str, code: str, at_ns: int) -> None:
        """The look failed; another one at ``at_ns``, or when a hint that came meanwhile says."""
        parameters = {
            "association": self._unclaim(entry),
            "path": entry.path,
            "seq": entry.seq,
            "error": text(error),
            "code": code,
            "at_ns": at_ns,
        }
        self._connection.run(_RETRY, parameters)

    def postpone(self, entry: Entry, *, at_ns: int, waiting_for: str) -> None:
        """The look could not be taken yet, which is nobody's failure; otherwise as `retry`."""
        parameters = {
            "association": self._unclaim(entry),
            "path": entry.path,
            "seq": entry.seq,
            "waiting_for": text(waiting_for),
            "at_ns": at_ns,
        }
        self._connection.run(_POSTPONE, parameters)

    def _unclaim(self, entry: Entry) -> int | None:
        number = self._numbers.get(entry.association)
        if number is not None:
            self._claims.get(number, {}).pop(entry.path, None)
        return number

    def reserve(self, association: str, paths: Collection[bytes]) -> bool:
        """Keep all of these paths from being claimed until `free`; False, and none is, if one of them is now."""
        return self.reserve_each(association, [paths])[0]

    def reserve_each(self, association: str, some: Collection[Collection[bytes]]) -> list[bool]:
        """The same for each of ``some``: some paths that belong together."""
        number = self._numbers.get(association)
        if number is None:
            return [False] * len(some)
        claims, kept = self._claims.setdefault(number, {}), []
        for paths in some:
            is_free = claims.keys().isdisjoint(paths)
            if is_free:
                claims.update(dict.fromkeys(paths, False))
            kept.append(is_free)
        return kept

    def free(self, association: str, paths: Collection[bytes]) -> None:
        """Let reserved paths be looked at again."""
        number = self._numbers.get(association)
        claims = self._claims.get(number, {}) if number is not None else {}
        for path in paths:
            claims.pop(path, None)

    def is_looked_at(self, association: str, path: bytes) -> bool:
        """Somebody looks at the path right now, be it that nothing is pending there (a task)."""
        number = self._numbers.get(association)
        return number is not None and path in self._claims.get(number, {})

    def next_due_ns(self, associations: Collection[str]) -> int | None:
        """When the next path that nobody looks at is due; may be past."""
        times: list[int] = []
        for association in associations:
            number = self._numbers.get(association)
            claims = self._claims.get(number, {}) if number is not None else {}
            rows = self._connection.rows(_NEXT_DUE, (number, len(claims) + 1))
            times.extend([not_before_ns for path, not_before_ns in rows if path not in claims][:1])
        return min(times, default=None)

    def wake(self, association: str, now_ns: int) -> None:
        """Everything is due now: what held it back (a repository out of reach) may be over."""
        self._connection.run(_WAKE, {"association": self._numbers.get(association), "now_ns": now_ns})

    def hold(self, association: str, paths: Iterable[bytes], *, now_ns: int, until_ns: int) -> None:
        """Ask for a look at each path in the repository that can wait until `release`, at the latest ``until_ns``."""
        with self._connection.transaction():
            number = self._numbers.get_or_make(association)
            if number is None:
                return
            claims = self._claims.get(number, {})
            rows = []
            for path in paths:
                if path in claims:
                    claims[path] = True
                rows.append((number, path, now_ns, until_ns, next(self._seq)))
            self._connection.run_many(_HOLD, rows)

    def release(self, association: str, until_ns: int, now_ns: int, limit: int) -> int:
        """Up to ``limit`` entries that are held until ``until_ns`` are due now; how many."""
        number = self._numbers.get(association)
        with self._connection.transaction():
            held = self._connection.rows(_HELD, (number, until_ns, limit))
            self._connection.run_many(_RELEASE, [(now_ns, number, path) for (path,) in held])
        return len(held)

    def drop_held(self, association: str, path: bytes, until_ns: int) -> None:
        """The path was looked at; unless another hint came, which its entry would not be held for any more."""
        self._connection.run(_DROP_HELD, (self._numbers.get(association), path, until_ns))

    # ------------------------------------------------------------- questions

    def pending(self, association: str | None, under: bytes, limit: int) -> list[Entry]:
        """Up to ``limit`` entries, claimed ones too, by path: that path itself first and what lies below
        it; b"" is everything. None asks all associations."""
        numbers = self._numbers.all() if association is None else [self._numbers.get(association)]
        rows: list[Row] = []
        for number in numbers:
            if under:
                rows += self._connection.rows(_ONE, (number, under))
                rows += self._connection.rows(_BELOW, (number, *below(under), limit))
            else:
                rows += self._connection.rows(_ALL, (number, limit))
            if len(rows) >= limit:
                break
        return [self._entry(row) for row in rows[:limit]]

    def count(self, association: str) -> tuple[int, int, int]:
        """(pending paths, those with a local hint, those with a remote hint)."""
        return self._numbers.counts(association)[2:]

    def between(self, association: str, first: bytes, last: bytes, limit: int) -> list[bytes]:
        """Up to ``limit`` pending paths from ``first`` to ``last``, both included."""
        return [row[0] for row in self._connection.rows(_PATHS, (self._numbers.get(association), first, last, limit))]

    def count_under(self, association: str, under: bytes) -> int:
        """Pending at a path and below it."""
        if not under:
            return self.count(association)[0]
        number = self._numbers.get(association)
        itself = self._connection.row(_COUNT_ONE, (number, under))
        inside = self._connection.row(_COUNT_BELOW, (number, *below(under)))
        assert itself is not None
        assert inside is not None
        return int(itself[0]) + int(inside[0])

    def oldest_ns(self, association: str) -> int | None:
        """When the oldest change happened that is still pending."""
        row = self._connection.row(_OLDEST, (self._numbers.get(association),))
        return row[0] if row is not None else None

    def oldest_remote_ns(self, association: str) -> int | None:
        """The same for changes in the repository."""
        row = self._connection.row(_OLDEST_REMOTE, (self._numbers.get(association),))
        return row[0] if row is not None else None

    def oldest_local_ns(self, association: str) -> int | None:
        """The same for changes in the tree."""
        row = self._connection.row(_OLDEST_LOCAL, (self._numbers.get(association),))
        return row[0] if row is not None else None

    def errors(self, association: str, limit: int) -> list[Entry]:
        """Entries whose last look failed, the most often tried first."""
        rows = self._connection.rows(_ERRORS, (self._numbers.get(association), limit))
        return [self._entry(row) for row in rows]

    def by_inode(self, ino: int) -> list[Entry]:
        """Entries of every association whose hint named that host inode: where a file may have moved to."""
        return [self._entry(row) for row in self._connection.rows(_BY_INODE, (signed(ino),))]

    # ------------------------------------------------------------- forgetting

    def delete_all(self, association: str) -> None:
        """Forget every hint. A look that is going on stays claimed until it is given back: no path is
        looked at twice at once."""
        self._connection.run(_DELETE_ALL, (self._numbers.get(association),))

    def delete_under(self, association: str, under: bytes) -> None:
        """As `delete_all`, at a path and below it; b"" is everything."""
        if not under:
            self.delete_all(association)
            return
        number = self._numbers.get(association)
        with self._connection.transaction():
            self._connection.run(_DELETE_ONE, (number, under))
            self._connection.run(_DELETE_BELOW, (number, *below(under)))

    def _entry(self, row: Row) -> Entry:
        return Entry(
            association=self._numbers.id_of(row[0]),
            path=row[1],
            local=bool(row[2]),
            remote=bool(row[3]),
            ino=None if row[4] is None else unsigned(row[4]),
            first_seen_ns=row[5],
            not_before_ns=row[6],
            seq=row[7],
            attempts=row[8],
            last_error=row[9],
            last_code=row[10],
            waiting_for=row[11],
        )
