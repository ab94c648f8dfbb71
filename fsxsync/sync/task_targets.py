"""What the paths of a task mean: which parts of which associations, and in which stages they are gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from fsxsync.errors import BadInput, FsxSyncError
from fsxsync.model.association import Policy
from fsxsync.model.identity import Kind, Local
from fsxsync.model.task import Failure, Order, Task, TaskType
from fsxsync.sync.hydrator import StubHydrator
from fsxsync.sync.served import Served
from fsxsync.sync.task_data import ReleaseStage, RestoreStage
from fsxsync.sync.task_imports import ImportStage
from fsxsync.sync.task_left import DeleteStage, LeftStage
from fsxsync.sync.task_looks import COPIES, EVERYTHING, ExportStage, policy_of
from fsxsync.sync.task_reconcile import ReconcileStage
from fsxsync.sync.task_stages import Stage

URI = "s3://"
WHERE = "'fsxsync associations' lists the paths and repositories that there are"


@dataclass(slots=True)
class Targets:
    """Association id -> paths in it, in catalog order, none of which contains another; and what is nowhere."""

    parts: dict[str, list[bytes]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def place_of_uri(uri: str, served: Iterable[Served]) -> tuple[Served, str]:
    """The association that an ``s3://`` address lies in, and the rest of the key.

    Raises:
        BadInput: there is none.
    """
    bucket, _, key = uri.removeprefix(URI).partition("/")
    for one in served:
        association = one.association
        whole = key + "/" if association.prefix == key + "/" else key
        if association.bucket == bucket and whole.startswith(association.prefix):
            return one, whole.removeprefix(association.prefix)
    raise BadInput(f"'{uri}' can't be used", "it lies in no linked repository", advice=WHERE)


class _Here:
    """What stands at paths of the tree, looked at once for all of them: lists of thousands are usual."""

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._tree = next((one.shared.tree for one in served.values()), None)
        self._found: dict[bytes, Local | None] = {}

    def look_at(self, tree_paths: Iterable[bytes]) -> None:
        if self._tree is not None:
            self._found |= self._tree.identify_many(list(tree_paths))

    def __getitem__(self, tree_path: bytes) -> Local | None:
        if tree_path not in self._found:
            self.look_at([tree_path])
        return self._found.get(tree_path)


def _tree_path(path: str) -> bytes:
    return path.strip("/").encode("utf-8", "surrogateescape")


def find(order: Order, served: Mapping[str, Served]) -> Targets:
    """What the order is about. A path that is nowhere, or in no association, is a failure of its own.

    Raises:
        BadInput: nothing of it can be done at all.
    """
    targets = Targets()
    wanted: dict[str, set[bytes]] = {}
    here = _Here(served)
    with suppress(FsxSyncError):  # one of them can't be looked at: whoever asks for that one is told
        here.look_at(_tree_path(path) for path in order.paths if not path.startswith(URI))
    for path in order.paths or ("",):
        if path.startswith(URI):
            if not order.type.reads_listing:
                raise BadInput(f"'{path}' can't be used", f"{order.type.value} takes paths of the file system")
            owner, rest = place_of_uri(path, served.values())
            wanted.setdefault(owner.id, set()).add(rest.rstrip("/").encode("utf-8", "surrogateescape"))
            continue
        _find_path(_tree_path(path), order, served, here, wanted, targets)
    if not wanted and not targets.failures:
        raise BadInput("there is nothing to do", "no association lies at these paths", advice=WHERE)
    for owner_id, unders in wanted.items():
        association = served[owner_id].association
        if order.type is TaskType.EXPORT and association.read_only:
            raise BadInput(f"{association.file_system_path} can't be exported", "its association is read-only")
        targets.parts[owner_id] = _disjoint(served[owner_id], unders, here)
    return targets


def _find_path(
    tree_path: bytes,
    order: Order,
    served: Mapping[str, Served],
    here: _Here,
    wanted: dict[str, set[bytes]],
    targets: Targets,
) -> None:
    found = False
    for one in served.values():
        inside = one.association.relative(tree_path)
        directory = one.association.directory
        if inside is None and (not tree_path or directory.startswith(tree_path + b"/")):
            inside = b""
        if inside is None:
            continue
        found = True
        if inside and order.owner_uid is not None:
            local = here[tree_path]
            if local is None or (local.kind is not Kind.DIRECTORY and local.uid != order.owner_uid):
                targets.failures.append(Failure(tree_path, "OperationNotPermitted", "you own no such file"))
                continue
        is_nowhere = (
            not order.type.reads_listing
            and inside
            and here[tree_path] is None
            and not one.shared.catalog.files.count_under(one.id, inside)
        )
        if is_nowhere:
            targets.failures.append(Failure(tree_path, "OperationNotPermitted", "no such file or directory"))
        else:
            wanted.setdefault(one.id, set()).add(inside)
    if not found:
        targets.failures.append(Failure(tree_path, "OperationNotPermitted", "it belongs to no association"))


def _disjoint(served: Served, unders: set[bytes], here: _Here) -> list[bytes]:
    """In catalog order, and without those that lie in others."""
    if b"" in unders:
        return [b""]
    kept = [under for under in unders if not any(other in unders for other in _ancestors(under))]

    def key(under: bytes) -> bytes:
        local = here[served.tree_path(under)]
        return under + b"/" if local is not None and local.kind is Kind.DIRECTORY else under

    return sorted(kept, key=key)


def _ancestors(path: bytes) -> Iterable[bytes]:
    while b"/" in path:
        path = path.rpartition(b"/")[0]
        yield path


def stages_of(
    task: Task, parts: Mapping[str, Sequence[bytes]], served: Callable[[str], Served], hydrator: StubHydrator
) -> list[Stage]:
    """In the order in which they are done; the same after a restart, as the cursor counts them."""
    made: list[Stage] = []
    for owner_id in sorted(parts):
        made += _stages(task, served(owner_id), parts[owner_id], hydrator, first=len(made))
    return made


def _stages(task: Task, served: Served, unders: Sequence[bytes], hydrator: StubHydrator, *, first: int) -> list[Stage]:
    order = task.order
    copies = COPIES | (EVERYTHING if order.deletes else frozenset())
    match order.type:
        case TaskType.RELEASE:
            return [ReleaseStage(served, unders, task)]
        case TaskType.RESTORE:
            return [RestoreStage(served, unders, task, hydrator)]
        case TaskType.EXPORT:
            policy = policy_of(served, exports=copies, imports=frozenset())
            made: list[Stage] = [ExportStage(served, unders, policy, deletes=order.deletes)]
            if order.deletes:
                made.append(DeleteStage(served, task, first, unders, policy, remote=False))
            return made
        case TaskType.IMPORT:
            policy = policy_of(served, exports=frozenset(), imports=copies)
            return _imports(task, served, unders, policy, first, deletes=order.deletes)
        case TaskType.RECONCILE:
            exports = frozenset() if served.association.read_only else EVERYTHING
            policy = policy_of(served, exports=exports, imports=EVERYTHING)
            return _reconciles(task, served, unders, policy, first)


def _imports(
    task: Task, served: Served, unders: Sequence[bytes], policy: Policy, first: int, *, deletes: bool
) -> list[Stage]:
    if not deletes:
        return [ImportStage(served, unders, policy, deletes=False)]
    # Of each its own, so that what one of them lost is not lost in what the others still have.
    made: list[Stage] = [ImportStage(served, [under], policy, deletes=True) for under in unders]
    for place, under in enumerate(unders):
        made.append(DeleteStage(served, task, first + place, [under], policy, remote=True))
    return made


def _reconciles(task: Task, served: Served, unders: Sequence[bytes], policy: Policy, first: int) -> list[Stage]:
    """Files are deleted before anything is exported: what is exported would make an empty listing look less empty."""
    exports_at = first + 2 * len(unders)
    deletes_at, again_at = exports_at + 1, exports_at + 2
    later = {"exports_at": exports_at, "deletes_at": deletes_at, "again_at": again_at}
    return [
        *(ReconcileStage(served, task, under, policy, **later) for under in unders),
        *(DeleteStage(served, task, first + place, [under], policy, remote=True) for place, under in enumerate(unders)),
        LeftStage(served, task, exports_at, policy, remote=False),
        DeleteStage(served, task, deletes_at, unders, policy, remote=False),
        LeftStage(served, task, again_at, policy, remote=True),
    ]
