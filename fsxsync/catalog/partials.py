"""Which chunks of stubs are here, so that a daemon that starts again need not load them again."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fsxsync.catalog.connection import Connection, Row
from fsxsync.catalog.files import signed, unsigned

_COLUMNS = "ino, path, etag, version_id, size, chunk_size, mtime_ns, atime_ns, boot_id, here, crcs"
# All find their rows by the primary key (ino).
_PUT = f"""INSERT OR REPLACE INTO partials ({_COLUMNS}, resident_bytes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""  # noqa: S608  names are ours
_GET = f"SELECT {_COLUMNS} FROM partials WHERE ino = ?"  # noqa: S608
_ALL = f"SELECT {_COLUMNS} FROM partials ORDER BY ino"  # noqa: S608
_ANY = "SELECT 1 FROM partials LIMIT 1"
_RESIDENT = "SELECT resident_bytes FROM partials WHERE ino = ?"
_DELETE = "DELETE FROM partials WHERE ino = ?"


@dataclass(frozen=True, slots=True)
class Partial:
    """``crcs``: number of a chunk that is here -> CRC64NVME of its bytes. ``boot_id`` is '' where the data is on the
    disk, else the boot whose page cache may hold it. ``path`` is where the stub was seen last."""

    ino: int
    path: bytes
    etag: str
    version_id: str | None
    size: int
    chunk_size: int
    mtime_ns: int
    atime_ns: int
    boot_id: str
    crcs: Mapping[int, int]

    @property
    def resident_bytes(self) -> int:
        """Bytes of the chunks that are here; only the last chunk of a file is shorter."""
        last = (self.size - 1) // self.chunk_size
        short = (last + 1) * self.chunk_size - self.size if last in self.crcs else 0
        return len(self.crcs) * self.chunk_size - short


class Partials:
    """As many rows as stubs were read in part."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._empty: bool | None = None
        """No stub was read in part: then nobody has to be asked for. None: not known."""
        connection.after_rollback.append(self._forget)

    def _forget(self) -> None:
        self._empty = None

    def _is_empty(self) -> bool:
        if self._empty is None:
            self._empty = self._connection.row(_ANY) is None
        return self._empty

    def get(self, ino: int) -> Partial | None:
        row = None if self._is_empty() else self._connection.row(_GET, (signed(ino),))
        return None if row is None else _partial(row)

    def all(self) -> list[Partial]:
        return [_partial(row) for row in self._connection.rows(_ALL)]

    def resident_bytes(self, ino: int) -> int | None:
        """None where there is no row."""
        row = None if self._is_empty() else self._connection.row(_RESIDENT, (signed(ino),))
        return None if row is None else row[0]

    def put_many(self, partials: Iterable[Partial]) -> None:
        with self._connection.transaction():
            self._empty = None
            self._connection.run_many(_PUT, [_row(partial) for partial in partials])

    def delete(self, ino: int) -> None:
        if not self._is_empty():
            self._connection.run(_DELETE, (signed(ino),))
            self._empty = None


def _row(partial: Partial) -> Row:
    numbers = sorted(partial.crcs)
    return (
        signed(partial.ino),
        partial.path,
        partial.etag,
        partial.version_id,
        partial.size,
        partial.chunk_size,
        partial.mtime_ns,
        partial.atime_ns,
        partial.boot_id,
        _bitmap(numbers),
        struct.pack(f">{len(numbers)}Q", *(partial.crcs[number] for number in numbers)),
        partial.resident_bytes,
    )


def _partial(row: Row) -> Partial:
    numbers = _numbers(row[9])
    if 8 * len(numbers) != len(row[10]):
        numbers = []  # a row that nobody of ours wrote: nothing is known to be here
    crcs = dict(zip(numbers, struct.unpack_from(f">{len(numbers)}Q", row[10]), strict=True))
    ino, path, etag, version_id, size, chunk_size, mtime_ns, atime_ns, boot_id = row[:9]
    return Partial(unsigned(ino), path, etag, version_id, size, chunk_size, mtime_ns, atime_ns, boot_id, crcs)


def _bitmap(numbers: list[int]) -> bytes:
    bitmap = bytearray(numbers[-1] // 8 + 1 if numbers else 0)
    for number in numbers:
        bitmap[number // 8] |= 1 << number % 8
    return bytes(bitmap)


def _numbers(bitmap: bytes) -> list[int]:
    return [8 * place + bit for place, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1]
