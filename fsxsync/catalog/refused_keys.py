"""Keys that are no path and were told of, so that each listing does not tell of them again.

They are in a temporary table, which SQLite brings to a file of its own when there are many: a restart tells once more.
"""

from __future__ import annotations

from fsxsync.catalog.connection import Connection

_TABLE = """CREATE TEMP TABLE refused_keys (association TEXT NOT NULL, key BLOB NOT NULL, seen_ns INTEGER NOT NULL,
    PRIMARY KEY (association, key)) STRICT, WITHOUT ROWID"""
_INDEX = "CREATE INDEX temp.refused_keys_seen ON refused_keys (association, seen_ns)"
_ADD = "INSERT INTO temp.refused_keys (association, key, seen_ns) VALUES (?, ?, ?)"
# Primary key (association, key).
_SEE = "UPDATE temp.refused_keys SET seen_ns = ? WHERE association = ? AND key = ?"
_FORGET = "DELETE FROM temp.refused_keys WHERE association = ? AND key = ?"
# Index refused_keys_seen (association, seen_ns).
_FORGET_UNSEEN = "DELETE FROM temp.refused_keys WHERE association = ? AND seen_ns < ?"
_DELETE_ALL = "DELETE FROM temp.refused_keys WHERE association = ?"


class RefusedKeys:
    """A row a key, as long as the object is there."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.run(_TABLE)
        connection.run(_INDEX)

    def see(self, association: str, key: str, now_ns: int) -> bool:
        """The object is there. True if that is news."""
        name = _bytes(key)
        if self._connection.run(_SEE, (now_ns, association, name)):
            return False
        self._connection.run(_ADD, (association, name, now_ns))
        return True

    def forget(self, association: str, key: str) -> None:
        """The object is gone."""
        self._connection.run(_FORGET, (association, _bytes(key)))

    def forget_unseen(self, association: str, since_ns: int) -> None:
        """All that nobody has seen since then are gone."""
        self._connection.run(_FORGET_UNSEEN, (association, since_ns))

    def delete_all(self, association: str) -> None:
        self._connection.run(_DELETE_ALL, (association,))


def _bytes(key: str) -> bytes:
    """Any key, also one with lone surrogates, which JSON can spell."""
    return key.encode("utf-8", "surrogatepass")
