"""`fsxsync why`: finds out all there is to know of one path, and changes nothing. The words are in `model.why`."""

from __future__ import annotations

import trio

from fsxsync.catalog.changelog import Entry
from fsxsync.errors import LocalChanged, NotExportable, RepositoryError
from fsxsync.model.identity import Base, Kind, Local, Remote
from fsxsync.model.why import Evidence, Waiting
from fsxsync.sync.conflicts import kept_out_by
from fsxsync.sync.digests import content_hash, same_bytes
from fsxsync.sync.excluded import is_left_out, takes_no_part
from fsxsync.sync.intake import exportable_key
from fsxsync.sync.journal import shown
from fsxsync.sync.reconcile import Action, needs_digest, reconcile
from fsxsync.sync.renames import is_moved_stub
from fsxsync.sync.served import Served, Shared

ASK_S = 10.0
"""How long somebody at a terminal waits for the repository's word."""
READ_MAX = 256 << 20
"""Bytes of a file that are read to tell "touched" from "changed"; of larger ones the answer is a guess."""

OTHERS = 3
"""Paths that are named with one in whose conflict they are."""


async def find_out(shared: Shared, served: Served | None, tree_path: bytes, resident_bytes: int | None) -> Evidence:
    """What is known of a path, its object looked at now.

    Raises:
        TreeError: the path can't be looked at.
    """
    local = shared.tree.identify(tree_path)
    path = served.association.relative(tree_path) if served is not None else None
    if served is None or not path:
        return Evidence("/" + tree_path.decode("utf-8", "backslashreplace"), local=local)
    base = shared.catalog.files.get(served.id, path)
    remote, remote_error = await _object(served, path, base, local)
    problems = shared.catalog.problems.get(served.id, path)
    conflicts = shared.catalog.conflicts.at(served.id, path)
    copy_of = next((one for one in shared.catalog.conflicts.all(served.id) if one.kept_as == path), None)
    flags = shared.tree.flags().of(tree_path)
    association = served.association
    kind = local.kind if local is not None else base.kind if base is not None else Kind.FILE
    key = exportable_key(served, path, kind)
    action = await _decide(served, path, base, local, remote) if not remote_error else None
    suppressed = action.suppressed if action is not None else None
    return Evidence(
        path=shown(served, path),
        association=served.id,
        directory=association.file_system_path,
        repository=association.uri,
        lifecycle=association.lifecycle.value,
        failure=association.failure,
        key="" if isinstance(key, NotExportable) else key,
        not_exportable=key.why if isinstance(key, NotExportable) else "",
        left_out=_left_out(served, path, base, local, remote),
        base=base,
        local=local,
        remote=remote,
        remote_error=remote_error,
        waiting=_waiting(served, path),
        problems=tuple((one.kind, one.message) for one in problems),
        in_conflict=bool(conflicts),
        kept_as=next((shown(served, one.kept_as) for one in conflicts if one.kept_as), ""),
        is_copy_of=shown(served, copy_of.path) if copy_of is not None else "",
        in_the_way_of=tuple(shown(served, one.path) for one in kept_out_by(served, path)[:OTHERS]),
        is_written=local is not None and local.kind is Kind.FILE and shared.is_written(local.ino),
        is_loading=local is not None and local.stub is not None and local.ino in shared.hydrating,
        resident_bytes=resident_bytes or 0,
        norelease=flags.norelease,
        noarchive=flags.noarchive,
        exports=frozenset(event.value for event in association.policy.exports),
        imports=frozenset(event.value for event in association.policy.imports),
        verdict=action.verdict.name if action is not None else "",
        suppressed=suppressed.name if suppressed is not None else "",
    )


async def _object(served: Served, path: bytes, base: Base | None, local: Local | None) -> tuple[Remote | None, str]:
    kinds = [Kind.FILE, Kind.DIRECTORY]
    here = local or base
    if here is not None and here.kind is Kind.DIRECTORY:
        kinds.reverse()
    try:
        with trio.move_on_after(ASK_S) as limit:
            for kind in kinds:
                found = await served.store.head(served.key(path, kind))
                if found is not None:
                    return found, ""
        if limit.cancelled_caught:
            return None, f"no answer within {ASK_S:.0f} s"
    except NotExportable:  # what has no key has no object
        return None, ""
    except RepositoryError as error:
        return None, str(error)
    return None, ""


async def _decide(
    served: Served, path: bytes, base: Base | None, local: Local | None, remote: Remote | None
) -> Action | None:
    """What a look would do. None if the file moves on while it is read."""
    tree, tree_path = served.shared.tree, served.tree_path(path)
    known: bool | None = None
    try:
        if local is not None and local.kind is Kind.FILE and local.size <= READ_MAX and local.stub is None:
            if needs_digest(base, local):
                digest = await trio.to_thread.run_sync(content_hash, tree, tree_path, local)
                local = local._replace(content_hash=digest)
            if remote is not None and (base is None or base.etag != remote.etag):
                known, _ = await trio.to_thread.run_sync(same_bytes, tree, tree_path, local, remote)
        moved = await is_moved_stub(served, path, base, local)
    except (LocalChanged, RepositoryError):
        return None
    return reconcile(base, local, remote, served.association.policy, same_bytes=known, moved=moved)


def _left_out(served: Served, path: bytes, base: Base | None, local: Local | None, remote: Remote | None) -> str:
    filters, association = served.filters, served.association
    if is_left_out(served, path, base, local):
        is_directory = local is not None and local.kind is Kind.DIRECTORY
        return filters.why_not(path, association, directory=is_directory)
    if filters.leaves_out(base, local, remote):
        return "one of its versions is smaller than --min-size or larger than --max-size"
    if takes_no_part(served, path, base, local, remote):
        return "one of its versions is older than --max-age"
    return ""


def _waiting(served: Served, path: bytes) -> Waiting | None:
    entries = served.shared.catalog.changelog.pending(served.id, path, 1)
    entry: Entry | None = next((one for one in entries if one.path == path), None)
    if entry is None:
        return None
    now_ns = served.shared.now_ns()
    return Waiting(
        age_s=max(0.0, (now_ns - entry.first_seen_ns) / 1e9),
        attempts=entry.attempts,
        error=entry.last_error or "",
        waiting_for=entry.waiting_for or "",
        is_local=entry.local,
        is_remote=entry.remote,
        next_s=max(0.0, (entry.not_before_ns - now_ns) / 1e9),
    )
