"""Association ids as small integers, which is what rows carry."""

from __future__ import annotations

from fsxsync.catalog.connection import Connection

_ALL = "SELECT id, number FROM numbers"  # as many rows as there are associations
_NEW = "INSERT INTO numbers (id) VALUES (?)"
_DROP = "DELETE FROM numbers WHERE id = ?"
_RESIDENT = "SELECT resident_bytes FROM numbers WHERE number = ?"
_COUNTS = "SELECT files, released, pending, pending_local, pending_remote FROM numbers WHERE number = ?"


class Numbers:
    """All of them, in memory too. A deleted association gets no number again while the process lives:
    what a late task still wants to write for it is dropped."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._by_id: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._deleted: set[str] = set()
        self._load()
        connection.after_rollback.append(self._load)

    def _load(self) -> None:
        self._by_id = dict(self._connection.rows(_ALL))
        self._ids = {number: name for name, number in self._by_id.items()}
        self._deleted -= self._by_id.keys()

    def get(self, association: str) -> int | None:
        """None for one that never wrote anything, or was deleted: it has no rows."""
        return self._by_id.get(association)

    def get_or_make(self, association: str) -> int | None:
        """The number to write rows under; None if the association was deleted."""
        number = self._by_id.get(association)
        if number is None and association not in self._deleted:
            self._connection.run(_NEW, (association,))
            self._load()
            number = self._by_id[association]
        return number

    def id_of(self, number: int) -> str:
        return self._ids[number]

    def all(self) -> list[int]:
        """In order of creation."""
        return sorted(self._ids)

    def drop(self, association: str) -> None:
        self._connection.run(_DROP, (association,))
        self._load()
        self._deleted.add(association)

    def revive(self, association: str) -> None:
        """Somebody makes an association of that id after all."""
        self._deleted.discard(association)

    def resident_bytes(self, association: str) -> int:
        """Sizes of all files whose data is here; those of directories are in it too."""
        row = self._connection.row(_RESIDENT, (self._by_id.get(association),))
        return 0 if row is None else int(row[0])

    def counts(self, association: str) -> tuple[int, int, int, int, int]:
        """(files, released files, pending, pending local, pending remote), from one small row."""
        row = self._connection.row(_COUNTS, (self._by_id.get(association),))
        if row is None:
            return 0, 0, 0, 0, 0
        files, released, pending, local, remote = row
        return files, released, pending, local, remote
