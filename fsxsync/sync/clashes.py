"""Part a file and a directory that want one name, as a person decided. No directory with anything in it is removed."""

from __future__ import annotations

from fsxsync.errors import BadInput, ConflictMoved
from fsxsync.model.identity import Kind, Local, Remote
from fsxsync.model.open_conflict import Conflict, Keep, LocalVersion
from fsxsync.sync import conflicts
from fsxsync.sync.journal import forget_problems, shown
from fsxsync.sync.served import Served


async def part(served: Served, conflict: Conflict, keep: Keep) -> None:
    """See `resolving.resolve`. ``both``: a file here goes beside the path, a directory stays and the object goes beside
    it."""
    remote, key = await _object(served, conflict)
    found = conflicts.in_the_way(served, conflict.path)
    _check(served, conflict, found[1] if found else None, remote)
    if remote is None or found is None:
        served.add_hint(conflict.path, remote=True)
        forget_problems(served, conflict.path)
        return
    blocker, local = found
    if keep is Keep.LOCAL:
        await served.store.delete(key, expect=remote)
        forget_problems(served, conflict.path)
        served.add_hint(conflict.path, remote=True)  # its other form, `a/` or `a`, may be in the way as well
        return
    if local.kind is Kind.DIRECTORY:
        await _beside_directory(served, conflict, remote, local, keep)
    else:
        await _out_of_the_way(served, blocker, local, keep)
    served.add_hint(conflict.path, remote=True)


async def _object(served: Served, conflict: Conflict) -> tuple[Remote | None, str]:
    """The object that can't be imported: where a file stands at the path itself, it is a directory's marker."""
    here = served.shared.tree.identify(served.tree_path(conflict.path))
    kinds = [Kind.FILE, Kind.DIRECTORY]
    if here is not None and here.kind is not Kind.DIRECTORY:
        kinds = [Kind.DIRECTORY]
    for kind in kinds:
        key = served.key(conflict.path, kind)
        remote = await served.store.head(key)
        if remote is not None:
            return remote, key
    return None, key


def _check(served: Served, conflict: Conflict, local: Local | None, remote: Remote | None) -> None:
    where = f"conflict at {shown(served, conflict.path)}"
    if local is not None and served.shared.is_written(local.ino):
        raise ConflictMoved(where, "its file is open for writing")
    is_local = conflict.local is None or local is None or _is_same(local, conflict.local)
    is_remote = remote is None or conflict.remote is None or conflict.remote.is_of(remote)
    if not is_local or not is_remote:
        served.shared.catalog.conflicts.put(conflict.seen(local, remote))
        moved = "what is here" if not is_local else "its object"
        raise ConflictMoved(where, f"{moved} was changed since it was listed")


def _is_same(local: Local, listed: LocalVersion) -> bool:
    if local.kind is Kind.DIRECTORY:  # its size and times move with what is put into it
        return local.ino == listed.ino
    return LocalVersion.of(local) == listed


async def _out_of_the_way(served: Served, path: bytes, local: Local, keep: Keep) -> None:
    """The file leaves its name, and its object follows; then what waits for the name is looked at again."""
    tree, tree_path = served.shared.tree, served.tree_path(path)
    async with served.shared.let_go(local.ino):
        if keep is Keep.REMOTE:
            tree.remove(tree_path, local)
        else:
            beside = conflicts.free_name(served, path)
            tree.move(tree_path, local, served.tree_path(beside))
            served.add_hint(beside, local=True, ino=local.ino)
            served.shared.invalidate(served.tree_path(beside), data=False)
    served.shared.invalidate(tree_path, local.ino, data=True)
    served.add_hint(path, local=True)


async def _beside_directory(served: Served, conflict: Conflict, remote: Remote, local: Local, keep: Keep) -> None:
    path, key = conflict.path, served.key(conflict.path, Kind.FILE)
    if keep is Keep.REMOTE:
        tree_path = served.tree_path(path)
        if next(iter(served.shared.tree.walk(tree_path)), None) is not None:
            raise BadInput(
                f"{shown(served, path)} stays",
                "the directory is not empty",
                advice="move or remove what is in it first, or --keep both",
            )
        served.shared.tree.remove(tree_path, local)
        served.shared.invalidate(tree_path, local.ino, data=False)
        served.add_hint(path, local=True)
        return
    beside = conflicts.free_name(served, path)
    target = served.key(beside, Kind.FILE)
    await served.store.copy(key, target, remote.posix, remote.kind, expect=remote, replaces=None)
    await served.store.delete(key, expect=remote)
    forget_problems(served, path)
    served.add_hint(beside, remote=True)
