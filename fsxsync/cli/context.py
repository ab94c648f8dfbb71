"""What every command knows: which instance it talks to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fsxsync.control.client import Client


@dataclass(frozen=True, slots=True)
class Instance:
    """``is_named``: the user said which one, by option or environment."""

    state_dir: Path
    is_named: bool

    @property
    def client(self) -> Client:
        return Client(self.state_dir)
