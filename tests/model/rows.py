"""The catalog of a daemon that is at work, as another process may read it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from model.history import UNKNOWN, Row

# Primary keys of both tables.
_ETAG = """SELECT etag FROM files JOIN numbers ON files.association = numbers.number
    WHERE numbers.id = ? AND files.sort_key = ?"""


def row_of(state_dir: Path, association: str, key: str) -> Row:
    """What it knows of an object by now, ``key`` below the association's prefix."""
    try:
        with closing(sqlite3.connect(f"file:{state_dir}/catalog.db?mode=ro", uri=True, timeout=5)) as catalog:
            found = catalog.execute(_ETAG, (association, key.encode())).fetchone()
    except sqlite3.Error:  # a full disk, or a daemon that is about to make it
        return UNKNOWN
    return Row(None if found is None else found[0] or "")
