"""The daemon dies right before and right after every durable step: after a restart all promises hold.

Scenes of a few actions take the steps. They are played once to see which scene takes which, and then once for each
moment, where the daemon dies. A step that no scene takes fails the first test, so a new one needs a scene. The moments
before the steps have their turn with FSXSYNC_MODEL_EXAMPLES (any number).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from model.daemons import Daemons
from model.world import World
from support.instance import eventually

from fsxsync.control.protocol import DaemonError
from fsxsync.crashpoint import POINTS
from fsxsync.errors import FsxSyncError

pytestmark = pytest.mark.slow
LONG = bool(os.environ.get("FSXSYNC_MODEL_EXAMPLES"))
LARGE = (5 << 20) + 7
"""More than a part."""


class DiedError(Exception):
    """The daemon did, in the middle of a scene: the rest of it is not played."""


class Stage:
    """A world that scenes are played in, one after the other, each with names of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.takes = 0

    def play(self, scene: Callable[[Stage], None]) -> None:
        """To its end, or to that of the daemon."""
        self.takes += 1
        with suppress(DiedError):
            scene(self)
            self.rest()

    def at(self, name: str) -> str:
        return f"{name}-{self.takes}"

    def look(self) -> None:
        if not self.world.is_up:
            raise DiedError

    def ask(self, *, about: Callable[[], object]) -> None:
        """Have the daemon do something; it may die of it."""
        try:
            about()
        except FsxSyncError:
            with suppress(AssertionError):
                eventually(lambda: not self.world.is_up, 2)
            self.look()
            raise

    def rest(self) -> None:
        """Both sides are in sync, whatever has happened on them."""
        self.look()
        self.world.deliver()
        self.ask(about=lambda: self.world.client.wait(self.world.name.encode(), 60))
        self.look()


# ------------------------------------------------------------- scenes


def new_files(stage: Stage) -> None:
    world = stage.world
    world.write(stage.at("small"), 100)
    world.symlink(stage.at("link"))
    world.mkdir(stage.at("made"))


def large_file(stage: Stage) -> None:
    stage.world.write(stage.at("large"), LARGE)


def upload_given_up(stage: Stage) -> None:
    """Its last request fails, and then the file goes."""
    world, path = stage.world, stage.at("given-up")
    world.store.faults = [("500 before", "COMPLETE")] * 500
    try:
        world.write(path, LARGE)
        eventually(lambda: not world.is_up or len(world.store.faults) < 500)
        world.unlink(path)
        stage.rest()
    finally:
        world.store.faults = []


def changed_files(stage: Stage) -> None:
    world = stage.world
    world.write(stage.at("f"), 100)
    world.write(stage.at("g"), 100)
    world.write(stage.at("h"), 100)
    stage.rest()
    world.write(stage.at("f"), 200)
    world.chmod(stage.at("g"), 0o600)
    world.unlink(stage.at("h"))
    world.append(stage.at("f"), 20)
    world.truncate(stage.at("f"), 150)


def new_objects(stage: Stage) -> None:
    world = stage.world
    world.put(stage.at("in") + "/f", 100, mode=0o600)
    world.put(stage.at("in") + "/empty", 0, mode=0o600)
    world.put_symlink(stage.at("in") + "/link")
    world.put_marker(stage.at("in") + "/dir", mode=0o700)


def changed_objects(stage: Stage) -> None:
    world, directory = stage.world, stage.at("dir")
    for name in "fgh":
        world.put(f"{directory}/{name}", 100, mode=0o644)
    stage.rest()
    world.put(f"{directory}/f", 200)
    world.change_metadata(f"{directory}/g", 0o600)
    world.delete(f"{directory}/h")


def emptied_prefix(stage: Stage) -> None:
    world, path = stage.world, stage.at("only") + "/f"
    world.put(path, 100)
    stage.rest()
    world.delete(path)


def many_new_objects(stage: Stage) -> None:
    """Found by a listing, and made at once."""
    world = stage.world
    world.stop()
    for name in "abc":
        world.put(stage.at("many") + f"/{name}", 100)
    world.start()


def reading(stage: Stage) -> None:
    world = stage.world
    world.put(stage.at("read"), 300_000)
    stage.rest()
    world.read(stage.at("read"))


def reading_a_part(stage: Stage) -> None:
    world, path = stage.world, stage.at("part")
    world.put(path, 2 << 20)
    stage.rest()
    with suppress(OSError), (world.front / path).open("rb", buffering=0) as stream:
        stream.read(10)
    world.stop()
    world.start()


def reading_with_other_chunks(stage: Stage) -> None:
    """What is there of a file fits no chunk any more when the daemon comes back, and goes."""
    world, path, env = stage.world, stage.at("chunks"), stage.world.made.env
    world.put(path, 2 << 20)
    stage.rest()
    world.store.faults = [("", "GET"), *[("503 before", "GET")] * 1000]  # one chunk comes
    try:
        with suppress(OSError), (world.front / path).open("rb", buffering=0) as stream:
            stream.read(10)
        world.stop()
        world.made.env = {**env, "FSXSYNC_CHUNK_SIZE": str(1 << 20)}
        world.start()
    finally:
        world.made.env = env
        world.store.faults = []


def cutting_a_released_file(stage: Stage) -> None:
    world = stage.world
    world.put(stage.at("cut"), 300_000)
    stage.rest()
    world.write(stage.at("cut"), 100)


def tasks(stage: Stage) -> None:
    """One releases a file and misses another, one finds an object gone."""
    world, name = stage.world, stage.world.name
    world.write(stage.at("released"), 100)
    world.put(stage.at("gone"), 100)
    stage.rest()
    world.delete(stage.at("gone"))
    paths = [f"{name}/{stage.at(path)}" for path in ("released", "nowhere")]
    _task(stage, {"type": "RELEASE_DATA_FROM_FILESYSTEM", "paths": paths})
    _task(stage, {"type": "IMPORT_METADATA_FROM_REPOSITORY", "paths": [name], "deletes": True})


def restored(stage: Stage) -> None:
    """Several small files, which are loaded and settled together, and one that comes in parts."""
    world, paths = stage.world, [stage.at(f"restored-{number}") for number in range(4)]
    for number, path in enumerate(paths):
        world.put(path, 100 + number if number else 2 << 20)
    stage.rest()
    _task(stage, {"type": "RESTORE_DATA", "paths": [f"{world.name}/{path}" for path in paths]})


def _task(stage: Stage, wanted: dict[str, object]) -> None:
    made: list[str] = []

    def has_ended() -> bool:
        return bool(stage.world.client.task(made[0])["ended"])

    stage.ask(about=lambda: made.append(stage.world.client.create_task(wanted)["id"]))
    stage.ask(about=lambda: eventually(has_ended))


def release_that_a_crash_interrupts(stage: Stage) -> None:
    """Its mark is there, and its data: the next start goes on."""
    world, path = stage.world, stage.at("half-released")
    world.write(path, 100)
    stage.rest()
    with world.crash.another("stub.mark:after"):
        with suppress(DiedError, FsxSyncError):
            _task(stage, {"type": "RELEASE_DATA_FROM_FILESYSTEM", "paths": [f"{world.name}/{path}"]})
        eventually(lambda: not world.is_up)
    world.start()


def renames(stage: Stage) -> None:
    world = stage.world
    world.write(stage.at("r"), 100)
    world.put(stage.at("s"), 100)
    stage.rest()
    world.rename(stage.at("r"), stage.at("r-new"))
    world.rename(stage.at("s"), stage.at("s-new"))


def directory_renamed(stage: Stage) -> None:
    world = stage.world
    world.write(stage.at("dir") + "/x", 100)
    world.put(stage.at("dir") + "/y", 100)
    stage.rest()
    world.rename(stage.at("dir"), stage.at("dir-new"))


def edit_both(stage: Stage, path: str) -> None:
    """Through the mount, so that the object changes while the file is open."""
    world = stage.world
    world.put(path, 100)
    stage.rest()
    world.stop()
    world.put(path, 200)
    world.write(path, 300)
    world.start()
    stage.rest()


def conflict(stage: Stage) -> None:
    edit_both(stage, stage.at("both"))


def conflict_of_a_renamed_stub(stage: Stage) -> None:
    """The file that is kept beside has its bytes in the old name's object only."""
    world, old, path = stage.world, stage.at("old"), stage.at("both-stub")
    world.put(old, 100)
    world.put(path, 100)
    stage.rest()
    world.stop()
    world.put(path, 200)
    world.rename(old, path)
    world.start()
    stage.rest()


def _resolved(stage: Stage, path: str, keep: str) -> None:
    world = stage.world
    where = f"{world.name}/{path}".encode()
    world.doubt_all(path)  # the versions that are given up
    stage.ask(about=lambda: world.client.resolve(where, keep))


def resolved_for_the_file(stage: Stage) -> None:
    edit_both(stage, stage.at("local"))
    _resolved(stage, stage.at("local"), "local")


def resolved_for_the_file_alone(stage: Stage) -> None:
    path = stage.at("alone")
    edit_both(stage, path)
    stage.world.unlink(path)
    stage.rest()
    with suppress(DaemonError):  # it went with the file: now the list says so
        _resolved(stage, path, "local")
    _resolved(stage, path, "local")


def open_behind_the_mount(stage: Stage) -> None:
    """What came out of the tree is still being written to, and goes back."""
    world, path = stage.world, stage.at("open")
    world.put(path, 100)
    stage.rest()
    world.read(path)
    stage.rest()
    with (world.behind / path).open("r+b"):
        world.put(path, 200)
        world.deliver()
        seen = len(world.crash.seen())
        eventually(lambda: not world.is_up or "tree.put-back:after" in world.crash.seen(seen))


def attributes(stage: Stage) -> None:
    world, path = stage.world, stage.at("attributes")
    world.write(path, 100)
    stage.rest()
    key = world.prefix + path
    with world.store.still():
        there = world.s3.head_object(Bucket=world.bucket, Key=key)
        said = {**there["Metadata"], "fsxsync-xattrs": "colour=cmVk"}
        source = {"Bucket": world.bucket, "Key": key}
        answer = world.s3.copy_object(
            Bucket=world.bucket, Key=key, CopySource=source, MetadataDirective="REPLACE", Metadata=said
        )
        etag, version_id = answer["CopyObjectResult"]["ETag"].strip('"'), answer.get("VersionId")
        world.store.history.add(world.place_of(path), etag, by_ours=False, version_id=version_id)
        world.announce(path)


def special_file(stage: Stage) -> None:
    path = stage.world.behind / stage.at("fifo")
    os.mkfifo(path)
    try:
        stage.rest()
    finally:
        path.unlink()


def association(stage: Stage) -> None:
    """A second one in the same daemon, made and deleted."""
    world = stage.world
    wanted = {
        "repository": f"s3://{world.bucket}/{stage.at('second')}/",
        "path": "/second",
        "endpoint_url": world.store.url,
    }

    def second() -> list[str]:
        return [row["id"] for row in world.client.associations() if row["path"] == "/second"]

    def clear() -> None:
        for known in second():
            world.client.delete(known, delete_data=True, force=True, hydrate=False)

    stage.ask(about=clear)  # left by a daemon that died
    stage.ask(about=lambda: world.client.associate(wanted))
    stage.ask(about=clear)


@contextmanager
def _another_bucket(stage: Stage, **options: object) -> Iterator[str]:
    """With an association of its own, past the store that goes wrong."""
    world, bucket = stage.world, f"other-{uuid.uuid4().hex[:12]}"
    world.s3.create_bucket(Bucket=bucket)
    wanted = {"repository": f"s3://{bucket}/", "path": "/other", "endpoint_url": world.moto.url, **options}

    def clear() -> None:
        for known in [row["id"] for row in world.client.associations() if row["path"] == "/other"]:
            world.client.delete(known, delete_data=True, force=True, hydrate=False)
        # A daemon that dies in the middle of that leaves data of no association.
        shutil.rmtree(world.made.tree / "other", ignore_errors=True)

    stage.ask(about=clear)  # left by a daemon that died
    stage.ask(about=lambda: world.client.associate(wanted))
    yield bucket
    stage.ask(about=clear)


def events_made(stage: Stage) -> None:
    """Queue, policy and rule, and their end."""
    with _another_bucket(stage, events="create") as bucket:
        rules = stage.world.s3.get_bucket_notification_configuration(Bucket=bucket)
        assert len(rules["QueueConfigurations"]) == 1


def archived(stage: Stage) -> None:
    """Somebody reads it, so it is asked for."""
    world = stage.world
    with _another_bucket(stage, restore_archived="standard", poll_s=1) as bucket:
        world.s3.put_object(Bucket=bucket, Key="frozen", Body=b"ice", StorageClass="GLACIER")
        file, seen = world.made.directory / "other/frozen", len(world.crash.seen())
        with suppress(OSError):
            eventually(lambda: not world.is_up or file.exists())
            reader = subprocess.Popen(["cat", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603, S607
            try:
                eventually(lambda: not world.is_up or "object.restore:after" in world.crash.seen(seen))
            finally:
                reader.kill()
                reader.wait()
        stage.look()


SCENES = (
    new_files,
    large_file,
    upload_given_up,
    changed_files,
    new_objects,
    changed_objects,
    emptied_prefix,
    many_new_objects,
    reading,
    reading_a_part,
    reading_with_other_chunks,
    cutting_a_released_file,
    tasks,
    restored,
    release_that_a_crash_interrupts,
    renames,
    directory_renamed,
    conflict,
    conflict_of_a_renamed_stub,
    resolved_for_the_file,
    resolved_for_the_file_alone,
    open_behind_the_mount,
    attributes,
    special_file,
    association,
    events_made,
    archived,
)


class Stages:
    """Small ones, each for a few plays: all that is in a world is compared whenever it comes to rest."""

    PLAYS = 14

    def __init__(self, daemons: Daemons) -> None:
        self._daemons = daemons
        self._stage: Stage | None = None

    def get(self) -> Stage:
        if self._stage is not None and (self._stage.world.failed or self._stage.takes >= self.PLAYS):
            self.close()
        if self._stage is not None:
            self._stage.world.crash.arm(0)
        if self._stage is None:
            self._daemons.get("mount").crash.arm(0)
            daemon = self._daemons.get("mount")
            world = World(daemon, self._daemons.moto, "mount", versioned=True, options={"export_xattrs": True})
            world.settle()
            self._stage = Stage(world)
        return self._stage

    def close(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None and stage.world.failed:
            self._daemons.drop("mount")
        elif stage is not None:
            stage.world.end()


@pytest.fixture(scope="module")
def stages(daemons: Daemons) -> Iterator[Stages]:
    made = Stages(daemons)
    yield made
    made.close()


Moments = dict[str, list[tuple[Callable[[Stage], None], str]]]


@pytest.fixture(scope="module")
def moments(stages: Stages) -> Moments:
    """For each moment of each point the scenes that came to it, the one that comes to it soonest first, and what the
    moment is called there: a commit may write to several tables at once."""
    found: dict[str, list[tuple[int, float, Callable[[Stage], None], str]]] = {}
    for scene in SCENES:
        stage = stages.get()
        stage.world.crash.forget()
        began = time.monotonic()
        stage.play(scene)
        took = time.monotonic() - began
        seen = set(stage.world.crash.seen())
        stage.world.settle()
        for moment in seen:
            point, _, when = moment.partition(":")
            words = point.removeprefix("catalog.").split("+")
            for word in words:
                name = f"catalog.{word}:{when}" if point.startswith("catalog.") else moment
                found.setdefault(name, []).append((len(words), took, scene, moment))
    for scenes in found.values():
        scenes.sort(key=lambda one: one[:2])
    return {name: [(scene, moment) for _, _, scene, moment in scenes] for name, scenes in found.items()}


def test_every_step_is_taken_by_a_scene(moments: Moments) -> None:
    assert set(moments) == {f"{point}:{when}" for point in POINTS for when in ("before", "after")}


@pytest.mark.parametrize("point", sorted(POINTS))
def test_dying_at_a_step(stages: Stages, moments: Moments, point: str) -> None:
    for when in ("before", "after") if LONG else ("after",):  # what is before a step is after another one
        scenes = moments[f"{point}:{when}"]
        died = 0
        for number, (scene, moment) in enumerate(scenes * 2):  # some come to it only if two things meet
            if died and (not LONG or number >= len(scenes)):  # in each of them, if there is time
                break
            died += _dies(stages.get(), scene, moment)
        assert died, f"none of {[one.__name__ for one, _ in scenes]} came to it"


def _dies(stage: Stage, scene: Callable[[Stage], None], moment: str) -> bool:
    """The daemon does at that moment of the scene; then both sides come to rest. False: it did not come to it."""
    deaths = stage.world.crash.deaths
    stage.world.crash.arm(1, moment)
    stage.play(scene)
    stage.world.crash.arm(0)
    if LONG:
        stage.world.settle_and_read()
    else:
        stage.world.settle()
    return stage.world.crash.deaths > deaths
