"""A world whose promises can be looked at: it comes to rest, and then DESIGN §3 has to hold."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from model.history import Made
from model.judging import Circumstances, reason_for
from model.moving import Mover
from model.sides import WAIT_S
from model.steps import step
from model.task_steps import RECONCILE
from model.things import TAG, Thing, shown

from fsxsync.errors import NoDaemon
from fsxsync.model.conflict import is_conflict_name


@dataclass
class World(Mover):
    """See `Sides`, and `settle`."""

    clashing: set[str] = field(default_factory=set)
    """Where neither side yielded when both came to rest last."""

    @step
    def settle(self) -> None:
        """Let both sides come to rest, and look at the promises of DESIGN §3."""
        self.crash.arm(0)
        if not self.keeps_clock:
            self.crash.set_clock(0)
        self.heal()
        if self.events_lost and self.is_up:
            self.stop()
        self.start()
        self.events_lost = False
        self.deliver()
        left = self._wait()
        self._end_tasks()
        left += self._wait()
        assert left == [], f"still pending: {left}, {self.client.status()['associations']}"
        self.was_full = False
        if any(one.by_hand for one in self.all):
            self._agree()
        self._check_at_rest()

    def _check_at_rest(self) -> None:
        for one in self.all:
            one.note_losers()
        self.check()
        for one in self.all:
            one._forget_what_agrees()

    @step
    def agree(self, path: str = "", moments: int = 0) -> None:
        """Have a RECONCILE task, and nothing else, bring both sides together: of events that were not delivered nobody
        tells, and the daemon does not begin anew (unless it dies so many ``moments`` after it was asked). A whole one
        makes up for everything that `settle` would be told of."""
        self.crash.arm(0)
        self.heal()
        self.start()
        if self.tasks or self.was_full:  # a daemon that finds no room may be about to end
            self._wait()
            self._end_tasks()
        self._agree(path, moments)
        if not path:
            self.events_lost = self.was_full = False
            self._check_at_rest()

    def _agree(self, path: str = "", moments: int = 0) -> None:
        told = self._reconciled([f"{one.name}/{path}".rstrip("/") for one in self.all], moments)
        self._check_reconciled(told, path)
        if not path:
            left = self._wait()
            assert left == [], f"still pending after {told}: {left}"
            self._check_nothing_planned()

    def _check_nothing_planned(self) -> None:
        """The next one would do nothing, but to what nothing brings together, and to the times of directories: an
        import into one in which somebody works looks as if these had been set."""
        apart = set[str]()
        for one in self.all:
            clashes, lost = one._apart(one.tree(), one.objects())
            apart |= {f"{one.name}/{at}".rstrip("/") for at in clashes | lost}
        order = {"type": RECONCILE, "paths": [one.name for one in self.all]}
        told = [one["planned"] for one in self.client.plan_task(order)]
        planned = [one for one in told if one["path"] not in apart and not (self.made.tree / one["path"]).is_dir()]
        assert planned == [], f"a second reconcile would do {planned}"

    def _check_reconciled(self, told: dict[str, Any], path: str) -> None:
        """It says what it could not bring together, and the rest is equal from the moment that it ends."""
        failed = {one["path"]: one["code"] for one in told["failures"] if one["status"] == "failed"}
        assert told["lifecycle"] == ("FAILED" if failed else "SUCCEEDED"), told
        for one in self.all:
            tree, bucket = one.tree(), one.objects()
            clashes, lost = one._apart(tree, bucket)
            may = {f"{one.name}/{at}".rstrip("/") for at in clashes | lost}
            mine = {at for at in failed if at.startswith(f"{one.name}/")}
            assert mine <= may, f"{told} failed, and {may} alone may"
            one._check_agreement(tree, bucket, under=path, is_at_rest=False)

    @property
    def all(self) -> list[World]:
        """The associations of this world."""
        return [self] if self.second is None else [self, self.second]

    def _forget_what_agrees(self) -> None:
        """Only where both sides differ still, as neither yields, it counts who brought what."""
        self.ours, self.brought_s, self.decided = {}, {}, set()
        self.theirs = {path: contents for path, contents in self.theirs.items() if path in self.clashing}

    def _wait(self) -> list[dict[str, Any]]:
        for _ in range(3):
            try:
                return [left for one in self.all for left in self.client.wait(one.name.encode(), WAIT_S)]
            except NoDaemon as error:
                if not self.was_full:
                    assert self.made.daemon is not None
                    code = self.made.daemon.wait(60)
                    error.add_note(
                        f"it ended with {code}, at moment {self.crash.seen()[-1:]}; deaths {self.crash.deaths}"
                    )
                    raise
                assert self.made.daemon is not None
                self.made.daemon.wait(60)
                self.start()
        raise AssertionError("the daemon ends again and again")

    def check(self) -> None:
        there = set[bytes]()
        held: dict[str, Any] = {}
        for one in self.all:
            tree, bucket = one.tree(), one.objects()
            one._check_sides(tree, bucket)
            there |= {thing.content for thing in (*tree.values(), *bucket.values()) if not thing.lost}
            for path, thing in tree.items():
                start = thing.content[:TAG]
                held[f"{one.name}/{path}"] = (start, "lost") if thing.lost else start
        missing = sorted(self.must - there)
        assert not missing, f"lost: {[content[:TAG] for content in missing]}, the tree holds {held}"
        for one in self.all:
            one._check_replaced()
            one._check_given()

    def _check_sides(self, tree: dict[str, Thing], bucket: dict[str, Thing]) -> None:
        """Promises 3 to 5, and that it is told where they don't agree."""
        clashes, lost = self._apart(tree, bucket)
        self._check_agreement(tree, bucket)
        self._check_contents(
            {**{f"tree: {p}": t for p, t in tree.items()}, **{f"bucket: {p}": t for p, t in bucket.items()}}
        )
        for path in tree.keys() & bucket.keys() - self._let_in(tree).keys():
            came = tree[path].content and tree[path].content == bucket[path].content
            assert not came, f"{path} is left out, and came over"
        (row,) = [row for row in self.client.status()["associations"] if row["id"] == self.id]
        self.clashing = {key.rstrip("/") for key in clashes}
        listed = [one["path"] for one in self.client.conflicts() if one["kind"] == "clash"]
        said = {path.removeprefix(f"{self.name}/") for path in listed if path.startswith(f"{self.name}/")}
        assert said == self.clashing, f"clashes: {said}, and these are: {self.clashing}"
        assert (row["pending"], row["state"]) == (0, "AVAILABLE"), row
        errors = len(lost) + len(self.clashing)
        # Of what a task alone met its own report tells.
        assert row["errors"] <= errors if self.by_hand else row["errors"] == errors, row

    def _apart(self, tree: dict[str, Thing], bucket: dict[str, Thing]) -> tuple[set[str], set[str]]:
        """Keys that clash, and files whose object, with the only copy of their bytes, somebody deleted: nothing brings
        these together."""
        clashes = self.clashes(self._let_in(tree), self._let_in(bucket))
        return clashes, {path for path, thing in self._let_in(tree).items() if thing.lost and path not in bucket}

    def _let_in(self, things: dict[str, Thing]) -> dict[str, Thing]:
        """Without those that the filter leaves out: each stays on its side."""
        return {path: thing for path, thing in things.items() if not self.is_left_out(path)}

    def _around_left_out(self, tree: dict[str, Thing]) -> set[str]:
        """Directories that may be here only, as what is in them is: their objects went, and they could not."""
        return {
            path
            for path in self._let_in(tree)
            if path.endswith("/") and any(below.startswith(path) for below in tree.keys() - self._let_in(tree).keys())
        }

    def _check_replaced(self) -> None:
        """Promise 2: all that is to be said against a version of theirs that the daemon replaced is in `judging`."""
        history = self.store.history
        with self.store.still():
            replaced, history.replaced = history.replaced, []
        root = self.place_of("")
        history.replaced += [one for one in replaced if not one.place.startswith(root)]  # another association's
        for one in [one for one in replaced if one.place.startswith(root)]:
            path = one.place.removeprefix(root)
            there = Circumstances(
                policy=self.options.get("on_conflict", "keep-both"),
                edited_s=self.brought_s.get(path),
                is_decided=(path, one.theirs.etag) in self.decided,
                has_its_bytes=self._bytes_of(one.place, one.theirs) == self._bytes_of(one.place, one.ours),
                was_copied=history.was_copied(one.place, one.theirs.etag),
            )
            assert reason_for(one, there), f"overwritten unseen: {one}, {there}"

    def _bytes_of(self, place: str, made: Made) -> bytes | str:
        """What a version holds, or held; what nobody can tell any more is like no other."""
        if not made.etag:
            return "nothing"
        if made.etag not in self.by_digest and self.versioned and made.version_id is not None:
            key = place.removeprefix(f"/{self.bucket}/")
            answer = self.s3.get_object(Bucket=self.bucket, Key=key, VersionId=made.version_id)
            self.by_digest[made.etag] = answer["Body"].read()
        return self.by_digest.get(made.etag, made.etag)

    @staticmethod
    def clashes(tree: dict[str, Thing], bucket: dict[str, Thing]) -> set[str]:
        """Keys that can't be in the tree, as something of another form has their name, or that of a directory above."""

        def is_in_the_way(key: str) -> bool:
            parts = key.rstrip("/").split("/")
            above = ["/".join(parts[:count]) for count in range(1, len(parts))]
            here = key.rstrip("/")
            other = here if key.endswith("/") else here + "/"
            return other in tree or any(path in tree for path in above)

        return {key for key in bucket if is_in_the_way(key)}

    def _check_agreement(
        self, tree: dict[str, Thing], bucket: dict[str, Thing], *, under: str = "", is_at_rest: bool = True
    ) -> None:
        """Promise 5, of what is at a path and below it. A directory that keys lie below needs no marker."""
        clashes, lost = self._apart(tree, bucket)
        there = {path: thing for path, thing in self._let_in(bucket).items() if path not in clashes}
        alone = {path for path in self._around_left_out(tree) if not any(key.startswith(path) for key in there)}
        here = {path: thing for path, thing in self._let_in(tree).items() if path not in lost | alone}
        implied = {key[: at + 1] for key in there for at, letter in enumerate(key) if letter == "/"}
        paths = {path for path in here if _lies_in(path, under)}
        keys = {key for key in (*there, *implied) if _lies_in(key, under)}
        assert paths == keys, f"only in the tree: {paths - keys}, only in the bucket: {keys - paths}"
        for path in sorted(paths & there.keys()):
            self._check_pair(path, here[path], there[path], is_at_rest=is_at_rest)

    def _check_pair(self, path: str, here: Thing, there: Thing, *, is_at_rest: bool) -> None:
        """Of metadata an event may tell that has not been read yet."""
        differ = f"{path} is {here.kind} {shown(here.content)} here, {there.kind} {shown(there.content)} there"
        assert (here.kind, here.content) == (there.kind, there.content), differ
        if is_at_rest:
            self._check_metadata(path, here, there)

    def _check_contents(self, things: dict[str, Thing]) -> None:
        """Promises 3 and 4: whole contents only, and never zeros."""
        for where, thing in things.items():
            assert self.is_known(thing.content), (
                f"{where} holds {thing.content[:80]!r} ({len(thing.content)} bytes), which nobody wrote"
            )

    @step
    def settle_and_read(self) -> None:
        """`settle`, and then read every file and every version there was."""
        self.settle()
        for one in self.all:
            one.check_reading()
            one.check_versions()
        self.settle()

    def check_versions(self) -> None:
        """Promise 3 for all that ever was an object; and what `_check_replaced` rests on is all there was: each version
        and each delete marker of the bucket was made by somebody whom the account knows, the last one last."""
        if not self.versioned:
            return
        pages = list(self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=self.prefix))
        entries = [entry for page in pages for entry in page.get("Versions", [])]
        markers = [entry for page in pages for entry in page.get("DeleteMarkers", [])]
        there = {(entry["Key"], entry["VersionId"]) for entry in (*entries, *markers)}
        latest = {entry["Key"]: entry["VersionId"] for entry in (*entries, *markers) if entry["IsLatest"]}
        place = f"/{self.bucket}/"
        versions = {key.removeprefix(place): made for key, made in self.store.history.versions.items()}
        probe = f"{self.prefix}.fsxsync-"  # on which the store's ways were tried; nothing is left of it
        versions = {k: made for k, made in versions.items() if k.startswith(self.prefix) and not k.startswith(probe)}
        account = {(key, one.version_id) for key, made in versions.items() for one in made if one.version_id}
        assert there == account, f"not in the account: {there - account}, not in the bucket: {account - there}"
        assert latest == {key: made[-1].version_id for key, made in versions.items() if key in latest}
        for entry in entries:
            body = self.s3.get_object(Bucket=self.bucket, Key=entry["Key"], VersionId=entry["VersionId"])["Body"].read()
            assert self.is_known(body), f"{entry['Key']} was once {body[:80]!r} ({len(body)} bytes)"

    def check_reading(self) -> None:
        """What applications read is what the tree and the bucket agree on: loads every released file."""
        if self.made.mounted:
            root = self.made.directory / self.name
            for path, thing in self.tree().items():
                if thing.kind == "file" and not thing.lost:
                    assert shown((root / path).read_bytes()) == shown(thing.content), path

    def objects(self) -> dict[str, Thing]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
        keys = [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", [])]
        return {key: thing for key in keys if (thing := self.remote(key)) is not None}

    def conflict_copies(self) -> list[str]:
        return [path for path in self.tree() if is_conflict_name(os.fsencode(path.rpartition("/")[2]))]


def _lies_in(path: str, under: str) -> bool:
    return not under or f"{path}/".startswith(f"{under}/")
