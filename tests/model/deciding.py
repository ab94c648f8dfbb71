"""A person decides on a conflict that is listed."""

from __future__ import annotations

from typing import Any

from model.steps import step
from model.task_steps import TaskMaker
from model.things import Thing

from fsxsync.control.protocol import DaemonError
from fsxsync.errors import NoDaemon

REFUSALS = {"ResourceBusy", "BadRequest"}
"""It is not what was listed any more, or there is no such choice. Nothing was done then."""
KEEPS = ("local", "remote", "both")


class Decider(TaskMaker):
    """`resolve` is one step, on whatever is in conflict at that moment."""

    @step
    def resolve(self, which: int, keep: str) -> None:
        """What the choice gives up may go, the object only if it is the version that was listed."""
        try:
            listed = [one for one in self.client.conflicts() if one["path"].startswith(self.name + "/")]
        except NoDaemon:
            self._is_really_down()
            return
        if not listed:
            return
        one = listed[which % len(listed)]
        said = one["kept_as"] or one["path"]
        about = [other for other in listed if said in {other["path"], other["kept_as"]}]  # of a path all that are open
        given_up = [thing for conflict in about for thing in self._given_up(conflict, keep)]
        troubles = len(self.store.faults)
        try:
            self.client.resolve(said.encode("utf-8", "surrogateescape"), keep)
        except NoDaemon:
            self._is_really_down()  # it may be done
        except DaemonError as error:
            if error.code in REFUSALS and (len(about) == 1 or keep == "local"):  # else some may be done
                return
            if not (error.code in REFUSALS or self.store.down or self.was_full or len(self.store.faults) < troubles):
                raise
        for key, thing in given_up:
            self._drop(thing)
            if thing.etag:
                self.decided.add((key, thing.etag))

    def _given_up(self, conflict: dict[str, Any], keep: str) -> list[tuple[str, Thing]]:
        """By key. Under the table of SEMANTICS, "Open conflicts, and resolving them"."""
        path = conflict["path"].removeprefix(self.name + "/")
        etag = conflict["remote"] and conflict["remote"]["etag"]
        is_clash = conflict["kind"] == "clash"
        found: list[tuple[str, Thing | None]] = []
        if keep == "local":
            keys = [path, path + "/"] if is_clash else [path]
            found += [(key, thing) for key in keys if (thing := self.remote(key)) is not None and thing.etag == etag]
            if not is_clash:
                found.append((path, self.local(path)))
        elif keep == "remote" and is_clash:
            parts = path.split("/")
            above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
            found += [(one, thing) for one in above if (thing := self.local(one)) and thing.kind != "directory"]
        elif keep == "remote":
            copy = (conflict["kept_as"] or conflict["path"]).removeprefix(self.name + "/")
            found.append((copy, self.local(copy)))
        return [(key, thing) for key, thing in found if thing is not None]
