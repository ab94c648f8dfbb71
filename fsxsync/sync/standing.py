"""What an association stands on: its directory, made for it and taken back, and its changes, waited for at its end."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from fsxsync.errors import BadInput, StillPending
from fsxsync.model.association import Association
from fsxsync.model.identity import Kind
from fsxsync.sync.served import Shared
from fsxsync.sync.serving import Service
from fsxsync.sync.waiting import Waiter

DRAIN_BEFORE_DELETE_S = 300.0


def make_directory(shared: Shared, association: Association) -> list[bytes]:
    """The directory of an association that is about to be: what of it had to be made, outermost first.

    Raises:
        BadInput: something that is no directory stands there or above. LocalChanged. NoSpace. TreeError.
    """
    parts = association.directory.split(b"/")
    for length in range(1, len(parts) + 1):
        existing = shared.tree.identify(b"/".join(parts[:length]))
        if existing is not None and existing.kind is not Kind.DIRECTORY:
            raise BadInput(
                f"{association.file_system_path} can't be associated",
                f"/{b'/'.join(parts[:length]).decode('utf-8', 'backslashreplace')} is no directory",
                advice="name another path",
            )
    if existing is not None:
        return []
    uid, gid = (-1 if given is None or not shared.is_root else given for given in association.imported_owner)
    mode = association.defaults.dir_mode
    return shared.tree.make_directories(association.directory, mode=mode, uid=uid, gid=gid)


def unmake(shared: Shared, made: Sequence[bytes]) -> None:
    """Take back the directories that a refused request made; they are empty."""
    for path in reversed(made):
        local = shared.tree.identify(path)
        if local is not None:
            shared.tree.remove(path, local)


async def drain_for_delete(service: Service, waiter: Waiter) -> None:
    """Wait for the changes of an association that ends.

    Raises:
        StillPending: some are left.
    """
    served = service.served
    await waiter.settle_local()
    with trio.move_on_after(DRAIN_BEFORE_DELETE_S) as deadline:
        while served.association.policy.exports and served.shared.catalog.changelog.count(served.id)[1] > 0:
            if service.failed is not None:
                deadline.cancel()
            await trio.sleep(0.05)
    left = served.shared.catalog.changelog.count(served.id)[1] if served.association.policy.exports else 0
    if left:
        why = f"{left} changes are not exported yet" + (f": {service.failed}" if service.failed else "")
        raise StillPending(f"association {served.id} can't be deleted", why, advice="wait, or add --force")
