"""When files were last used through the mount, so that the least recently used are known after a restart too."""

from __future__ import annotations

from collections.abc import Iterable

from fsxsync.catalog.connection import Connection
from fsxsync.catalog.files import signed

_PUT = "INSERT INTO uses (ino, used_ns) VALUES (?, ?) ON CONFLICT (ino) DO UPDATE SET used_ns = excluded.used_ns"
_GET = "SELECT used_ns FROM uses WHERE ino = ?"
# Index uses_used.
_TRIM = "DELETE FROM uses WHERE used_ns < (SELECT used_ns FROM uses ORDER BY used_ns DESC LIMIT 1 OFFSET ?)"


class Uses:
    """A row for each host inode of the last that were used. Of all others the times count that the host keeps; so they
    do where an inode's number was given to another file, whose times are later."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, ino: int) -> int:
        """Nanoseconds since the epoch; 0 if nothing is known."""
        row = self._connection.row(_GET, (signed(ino),))
        return 0 if row is None else int(row[0])

    def put_many(self, uses: Iterable[tuple[int, int]], *, keep: int) -> None:
        """Write (inode, time) down; only the latest ``keep`` rows stay."""
        with self._connection.transaction():
            self._connection.run_many(_PUT, [(signed(ino), used_ns) for ino, used_ns in uses])
            self._connection.run(_TRIM, (keep - 1,))
