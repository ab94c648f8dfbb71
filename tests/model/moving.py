"""Two associations in one world, and what is moved from one to the other."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.sides import EXPECTED, FAILED
from model.steps import step
from model.things import replace_file
from model.troubles import Troubles


@dataclass
class Mover(Troubles):
    """The second one is where the same application works and the same other user puts objects; all else (events,
    deaths, tasks, coming to rest) is the first one's business, and counts for both."""

    second: Self | None = None

    def join(self, second: Self) -> None:
        second.called = "world.second"
        self.is_one_of_two = second.is_one_of_two = True
        self.second = second

    @step
    def move_over(self, old: str, new: str, *, back: bool) -> None:
        """``mv`` of a file, or behind the mount of a directory too, to the other association."""
        if self.second is None:
            return
        source, target = (self.second, self) if back else (self, self.second)
        if self.front != self.behind:
            self._copy_over(source, target, old, new)
        else:
            self._rename_over(source, target, old, new)

    def _copy_over(self, source: Self, target: Self, old: str, new: str) -> None:
        """Through the mount they are two file systems."""
        here, there = source.front / old, target.front / new
        try:
            here.lstat()
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
        except OSError as error:
            if error.errno not in EXPECTED | FAILED:
                raise
            if error.errno != errno.EXDEV or here.is_symlink() or not here.is_file():
                return
        else:
            raise AssertionError("a rename from one association into the other worked")
        self._copy(source, target, here, old, new)

    def _copy(self, source: Self, target: Self, here: Path, old: str, new: str) -> None:
        try:
            content = here.read_bytes()
        except OSError as error:
            if error.errno not in EXPECTED | FAILED:
                raise
            return
        source._check_read(old, content)
        if not target._work(lambda root: replace_file(root / new, content), new):
            target.parts.add(content)
            return
        target._brought(new, content)
        source._work(lambda root: (root / old).unlink(), old)
        if content in target.contents:
            target._hold(content)  # it is there, though it was removed here
            target.gone.discard(content)

    def _rename_over(self, source: Self, target: Self, old: str, new: str) -> None:
        moved = source._things_at(old)

        def act(root: Path) -> None:
            (source.behind / old).lstat()
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            os.rename(source.behind / old, root / new)

        with self._frozen():
            replaced = [] if (source.behind / old).is_dir() else [(new, target.local(new))]
            if target._do(act, replaced):
                for below, things in moved.items():
                    target._brought(new + below, *source._contents_of(old + below, things))

    def end(self) -> None:
        super().end()
        if self.second is not None:
            self.second._leave()
