"""Small things to remember: the instance's id, what a store was seen to obey."""

from __future__ import annotations

import json
from typing import Any

from fsxsync.catalog.connection import Connection, corrupt

_GET = "SELECT value FROM facts WHERE name = ?"
_SET = "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"


class Facts:
    """JSON values by name."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Any:
        """None if nobody has set it."""
        row = self._connection.row(_GET, (name,))
        if row is None:
            return None
        try:
            return json.loads(row[0])
        except ValueError as error:
            raise corrupt(self._connection.path, f"the fact '{name}' can't be read: {error}") from error

    def set(self, name: str, value: Any) -> None:
        self._connection.run(_SET, (name, json.dumps(value)))
