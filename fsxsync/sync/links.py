"""Hard links: one inode, several names, an object for each (FSX-FACTS §2.4).

A released file has one mark for all its names, which names one of their objects. The objects hold the same bytes, so
the mark stands for each of them, as long as it does not outlive the one that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fsxsync.errors import LocalChanged
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.stub import StubMark
from fsxsync.sync.exporter import remark
from fsxsync.sync.served import Served, Shared


def as_own(served: Served, path: bytes, base: Base | None, local: Local | None) -> Local | None:
    """The file as this name has it: a mark that another name's row explains stands for this name's object, too."""
    mark = local.stub if local is not None else None
    if local is None or mark is None or base is None or local.nlink < 2:
        return local
    if not base.released or base.etag is None or base.ino != local.ino or base.etag == mark.etag:
        return local
    for row in served.shared.other_names(local.ino, served.id, path):
        if row.association == served.id and row.released and row.etag == mark.etag:
            return local._replace(stub=_mark_for(served, base, mark))
    return local


def _mark_for(served: Served, row: Base, mark: StubMark) -> StubMark:
    assert row.etag is not None
    return replace(mark, etag=row.etag, version_id=row.version_id, key=served.key(row.path, Kind.FILE))


def stand_alone(served: Served, path: bytes, base: Base | None) -> None:
    """A released name is gone, or stands for something else now: should the mark that it shared still name its object,
    let it name that of a name which is left. No await: nobody reads in between."""
    if base is None or not base.released or base.kind is not Kind.FILE:
        return
    tree = served.shared.tree
    here = tree.identify(served.tree_path(path))
    if here is not None and here.ino == base.ino:
        return
    for row in served.shared.other_names(base.ino, served.id, path):
        local = tree.identify(served.tree_path(row.path)) if row.association == served.id else None
        if local is None or local.ino != base.ino or local.stub is None or not row.released or row.etag is None:
            continue
        if local.stub.key == served.key(path, Kind.FILE) and local.stub.etag in {base.etag, row.etag}:
            _remark(served, row, local)
            return


def look_at_others(served: Served, path: bytes, local: Local) -> None:
    """The file lost this name. What was done to it by that, a moment ago, would be told of the name only, which is
    another file's now."""
    if local.nlink < 2 or local.kind is not Kind.FILE:
        return
    for row in served.shared.other_names(local.ino, served.id, path):
        if (owner := served.shared.served.get(row.association)) is not None:
            owner.add_hint(row.path, local=True, ino=local.ino)


def name_own_object(served: Served, base: Base | None, local: Local | None) -> Local | None:
    """Should a crash have kept `stand_alone` from it: a reader found nothing under the key that the mark names.

    Returns the file as it is then.
    """
    mark = local.stub if local is not None else None
    if base is None or local is None or mark is None or (base.ino, base.etag) != (local.ino, mark.etag):
        return local
    rows = served.shared.other_names(local.ino, served.id, base.path) if local.nlink > 1 else ()
    named = [base, *(row for row in rows if row.association == served.id and row.etag == mark.etag)]
    if mark.key in {served.key(row.path, Kind.FILE) for row in named}:
        return local
    _remark(served, base, local)
    return served.shared.tree.identify(served.tree_path(base.path))


def _remark(served: Served, row: Base, local: Local) -> None:
    assert local.stub is not None
    try:
        remark(served, row.path, local, _mark_for(served, row, local.stub))
    except LocalChanged:
        served.add_hint(row.path, local=True)


def are_loading(shared: Shared, arrived: Mapping[int, tuple[StubMark, bytes]]) -> None:
    """The data of files is here, and their marks are about to go: let the rows of all their names say which bytes these
    are. ``arrived``: inode -> (mark, XXH3-128)."""
    others = shared.catalog.files.note_hashes({ino: (mark.etag, digest) for ino, (mark, digest) in arrived.items()})
    if not others:
        return
    known: list[tuple[Base, bytes]] = []
    rows = [row for row in shared.catalog.files.by_inode_many(others) if row.released]
    explained = {row.ino for row in rows if row.etag == arrived[row.ino][0].etag}
    for row in rows:
        mark, content_hash = arrived[row.ino]
        if row.content_hash == content_hash:
            continue
        # Other names' objects may have other ETags: a copy of what was uploaded in parts has.
        if row.etag == mark.etag or (row.ino in explained and _is_name_of(shared, row, mark)):
            known.append((row, content_hash))
    if known:
        shared.catalog.files.set_hash_many(known)


def _is_name_of(shared: Shared, row: Base, mark: StubMark) -> bool:
    served = shared.served.get(row.association)
    local = shared.tree.identify(served.tree_path(row.path)) if served is not None else None
    return local is not None and local.ino == row.ino and row.remote_size == mark.size


def loaded(shared: Shared, association: str, path: bytes, local: Local, content_hash: bytes) -> None:
    """The data of a file is here: also for its other names, whose rows say released."""
    for row in shared.other_names(local.ino, association, path):
        served = shared.served.get(row.association)
        if served is None or not row.released:
            continue
        now = shared.tree.identify(served.tree_path(row.path))
        if now is not None and now.stub is None and (now.ino, now.size) == (row.ino, row.size):
            as_is = now._replace(mode=row.mode, uid=row.uid, gid=row.gid)  # set meanwhile: a change to be exported
            shared.catalog.files.put(row.with_local(as_is)._replace(content_hash=content_hash, released=False))
            served.add_hint(row.path, local=True)
