"""What FSx lacks: the operations of `fsxsync`'s own commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from functools import partial
from typing import cast

from fsxsync.control import documents
from fsxsync.control.answers import Answer, Lines
from fsxsync.control.documents import Document
from fsxsync.control.members import Members
from fsxsync.control.peer import limited_to
from fsxsync.control.protocol import FSXSYNC, fault
from fsxsync.control.task_operations import TaskOperations
from fsxsync.control.undisturbed import Undisturbed
from fsxsync.control.wanted import CHANGEABLE, changed_association, find, new_association
from fsxsync.errors import FsxSyncError
from fsxsync.model.difference import Difference
from fsxsync.model.finding import Finding, Tally
from fsxsync.model.open_conflict import Keep
from fsxsync.ports import Administration, FileState

PATHS_MAX = 100_000
TIMEOUT_MAX_S = 30 * 86400.0


class Operations:
    """``operations`` by name, as `FsxApi` has them."""

    def __init__(self, administration: Administration, undisturbed: Undisturbed) -> None:
        self._administration = administration
        self._undisturbed = undisturbed
        self.operations: Mapping[str, Callable[[Members], Awaitable[Answer | Lines]]] = {
            "Status": self._status,
            "Where": self._where,
            "Associations": self._associations,
            "Associate": self._associate,
            "UpdateAssociation": self._update,
            "DeleteAssociation": self._delete,
            "AcceptDeletes": self._accept_deletes,
            "State": self._state,
            "Check": self._check,
            "Why": self._why,
            "Diff": self._diff,
            "Conflicts": self._conflicts,
            "ResolveConflict": self._resolve,
            "Wait": self._wait,
            "Drain": self._drain,
            "Stop": self._stop,
            **TaskOperations(administration).operations,
        }

    async def _status(self, members: Members) -> Answer:
        members.only(())
        return Answer(documents.of_status(self._administration.status()))

    async def _where(self, members: Members) -> Answer:
        """Where files are to be found: the part of the status that is no secret."""
        members.only(())
        status = self._administration.status()
        return Answer({"mount": status.mount, "tree": status.tree if limited_to() is None else None})

    async def _associations(self, members: Members) -> Answer:
        """All, or the one that ``association`` (id or path) names."""
        members.only({"association"})
        rows = self._administration.status().associations
        word = members.text("association")
        if word is not None:
            wanted = find(word, [row.association for row in rows])
            rows = tuple(row for row in rows if row.association.id == wanted.id)
        return Answer({"associations": [documents.of_row(row) for row in rows]})

    async def _associate(self, members: Members) -> Answer:
        """The association goes on to be made if the client hangs up, and is taken back if it can't be."""
        association = new_association(members)
        made = await self._undisturbed.run(
            "Associate",
            partial(self._administration.create, association, wait=members.flag("wait") is not False),
        )
        return Answer({"association": documents.of_association(made)})

    async def _update(self, members: Members) -> Answer:
        members.only({"association", "changes", "accept_deletes"})
        before = find(members.required_text("association"), self._administration.associations())
        changes = members.inner("changes")
        accept_deletes = bool(members.flag("accept_deletes"))
        after = before
        if changes is not None:
            changes.only(CHANGEABLE)
            after = changed_association(before, changes)

        async def act() -> Document:
            made = before
            # Without any change an update says "try again now", as FSx's does (FSX-FACTS §1.2).
            if changes is not None or not accept_deletes:
                made = await self._administration.update(after)
            if accept_deletes:
                self._administration.accept_deletes(made.id)
            return documents.of_association(made)

        return Answer({"association": await self._undisturbed.run("UpdateAssociation", act)})

    async def _accept_deletes(self, members: Members) -> Answer:
        members.only({"association"})
        found = find(members.required_text("association"), self._administration.associations())
        self._administration.accept_deletes(found.id)
        return Answer({"association": documents.of_association(found)})

    async def _delete(self, members: Members) -> Answer:
        members.only({"association", "delete_data", "force", "hydrate"})
        found = find(members.required_text("association"), self._administration.associations())
        gone = await self._undisturbed.run(
            "DeleteAssociation",
            partial(
                self._administration.delete,
                found.id,
                delete_data=bool(members.flag("delete_data")),
                force=bool(members.flag("force")),
                hydrate=bool(members.flag("hydrate")),
            ),
        )
        return Answer({"association": documents.of_association(gone)})

    async def _state(self, members: Members) -> Lines:
        members.only({"paths", "recursive"})
        paths = members.texts("paths", most=PATHS_MAX, longest=4096, may_be_empty=True)
        if not paths:
            raise members.refuse("paths", "is missing")
        return Lines(self._states(paths, recursive=bool(members.flag("recursive"))))

    async def _states(self, paths: tuple[str, ...], *, recursive: bool) -> AsyncGenerator[Document | bytes, None]:
        """``{"index": i, "state": …}`` for the i-th path and all below it, or ``{"index": i, "error": …}``."""
        for index, path in enumerate(paths):
            tree_path = path.encode("utf-8", "surrogateescape")
            told = cast(
                AsyncGenerator[Sequence[FileState], None], self._administration.state([tree_path], recursive=recursive)
            )
            try:
                async with aclosing(told):
                    async for states in told:
                        yield documents.state_lines(index, states)
            except FsxSyncError as error:
                yield {"index": index, "error": fault(error, FSXSYNC)[1]}

    async def _check(self, members: Members) -> Lines:
        """Without ``paths``: everything."""
        members.only({"paths", "verify", "repair"})
        paths = members.texts("paths", most=PATHS_MAX, longest=4096, may_be_empty=True) or ("",)
        verify, repair = bool(members.flag("verify")), bool(members.flag("repair"))
        return Lines(self._findings(paths, verify=verify, repair=repair))

    async def _findings(self, paths: tuple[str, ...], *, verify: bool, repair: bool) -> AsyncGenerator[Document, None]:
        """``{"finding": …}`` each, then ``{"tally": …}``; or ``{"error": …}`` where it had to end."""
        tree_paths = [path.encode("utf-8", "surrogateescape") for path in paths]
        told = cast(
            AsyncGenerator[Finding | Tally, None], self._administration.check(tree_paths, verify=verify, repair=repair)
        )
        try:
            async with aclosing(told):
                async for one in told:
                    if isinstance(one, Finding):
                        yield {"finding": documents.of_finding(one)}
                    else:
                        yield {"tally": asdict(one)}
        except FsxSyncError as error:
            yield {"error": fault(error, FSXSYNC)[1]}

    async def _why(self, members: Members) -> Answer:
        members.only({"path"})
        path = members.text("path", may_be_empty=True) or ""
        return Answer(documents.of_evidence(await self._administration.why(path.encode("utf-8", "surrogateescape"))))

    async def _diff(self, members: Members) -> Lines:
        members.only({"path"})
        return Lines(self._differences(members.text("path", may_be_empty=True) or ""))

    async def _differences(self, path: str) -> AsyncGenerator[Document, None]:
        """``{"difference": …}`` each; ``{"error": …}`` where it had to end."""
        told = cast(
            AsyncGenerator[Difference, None], self._administration.diff(path.encode("utf-8", "surrogateescape"))
        )
        try:
            async with aclosing(told):
                async for one in told:
                    yield {"difference": documents.of_difference(one)}
        except FsxSyncError as error:
            yield {"error": fault(error, FSXSYNC)[1]}

    async def _conflicts(self, members: Members) -> Answer:
        members.only(())
        return Answer({"conflicts": [documents.of_conflict(one) for one in self._administration.conflicts()]})

    async def _resolve(self, members: Members) -> Answer:
        """The choice is carried out to its end if the client hangs up."""
        members.only({"path", "keep"})
        path = members.required_text("path").encode("utf-8", "surrogateescape")
        word = members.word("keep", [keep.value for keep in Keep])
        if word is None:
            raise members.refuse("keep", "is missing")
        closed = await self._undisturbed.run("ResolveConflict", partial(self._administration.resolve, path, Keep(word)))
        return Answer({"resolved": [documents.of_conflict(one) for one in closed]})

    async def _wait(self, members: Members) -> Answer:
        members.only({"path", "timeout_s"})
        path = members.text("path", may_be_empty=True) or ""
        timeout_s = members.number("timeout_s", 0, TIMEOUT_MAX_S)
        left = await self._administration.wait(
            path.encode("utf-8", "surrogateescape"), TIMEOUT_MAX_S if timeout_s is None else timeout_s
        )
        return Answer({"pending": [documents.of_pending(item) for item in left]})

    async def _drain(self, members: Members) -> Answer:
        members.only({"timeout_s"})
        timeout_s = members.number("timeout_s", 0, TIMEOUT_MAX_S)
        left = await self._administration.drain(TIMEOUT_MAX_S if timeout_s is None else timeout_s)
        return Answer({"pending": left})

    async def _stop(self, members: Members) -> Answer:
        members.only(())
        return Answer({"stopping": True}, afterwards=self._administration.stop)
