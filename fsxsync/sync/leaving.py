"""A look at a path whose name is left out: nothing is done to either side, and its row is forgotten (`excluded`).

One thing must be done even here. A released file that came to such a name has its data in the object of its old name,
which goes with that name: it is loaded first (DESIGN §3.1). `renames.may_delete` waits for that: it sees the hint.
"""

from __future__ import annotations

from fsxsync.model.identity import Base, Local
from fsxsync.sync import importer
from fsxsync.sync.acting import LOST
from fsxsync.sync.excluded import came_here, forget
from fsxsync.sync.journal import forget_problems, record_problem
from fsxsync.sync.loading import object_of, owner_of
from fsxsync.sync.served import Served


async def leave(served: Served, path: bytes, base: Base | None, local: Local | None) -> None:
    """Leave the path alone.

    Raises:
        LocalChanged, ObjectChanged: the world moved; look again. RepositoryError. NoSpace.
    """
    forget_problems(served, path)
    if local is not None and came_here(served, path, local):
        await _load(served, path, local)
    if base is not None:
        forget(served, base, local)


async def _load(served: Served, path: bytes, local: Local) -> None:
    mark = local.stub
    assert mark is not None
    owner = owner_of(served, local.ino, mark)
    if await object_of(owner.store, mark) is None:
        record_problem(served, path, "lost", LOST, "S3ObjectNotFound")
        return
    await importer.load_moved(served, path, local, owner)
