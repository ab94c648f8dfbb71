"""What long searches with `make soak` found: the shortest steps that show it, named after what went wrong."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from model.conftest import world_of
from model.daemons import Daemons
from model.gates import Gate
from model.world import World
from support.instance import eventually

from fsxsync import _core
from fsxsync.tree import walk


def test_a_released_file_renamed_over_another_one_was_lost(world: World) -> None:
    """The stub looked like an old version of the path it was moved to: the object there came back, and the object that
    held the only copy of its bytes was deleted."""
    world.put("a", 60)
    world.put("d/a", 70)
    world.settle()
    world.rename("a", "d/a")
    world.settle()
    assert world.remote("a") is None
    assert world.remote("d/a") is not None
    world.settle_and_read()


def test_a_released_file_renamed_to_where_an_object_came_meanwhile_was_lost(world: World) -> None:
    """The second look at it came with a hint of the repository, and took no notice of its old key."""
    world.put("a", 60)
    world.settle()
    world.rename("a", "b")
    world.put("b", 70)
    world.deliver()
    world.settle()
    assert len(world.conflict_copies()) == 1
    world.settle_and_read()


def test_a_released_file_renamed_over_one_whose_object_was_changed_was_lost(world: World) -> None:
    world.put("a", 60)
    world.put("b", 70)
    world.settle()
    world.stop()
    world.put("b", 80)
    world.rename("a", "b")
    world.lose_events()
    world.settle()
    assert len(world.conflict_copies()) == 1
    world.settle_and_read()


def test_a_released_file_renamed_over_one_whose_object_was_deleted(world: World) -> None:
    world.put("a", 60)
    world.put("b", 70)
    world.settle()
    world.stop()
    world.delete("b")
    world.rename("a", "b")
    world.settle()
    assert world.conflict_copies() == []
    assert sorted(world.objects()) == ["anchor", "b"]
    world.settle_and_read()


def test_released_files_that_change_places(world: World) -> None:
    world.put("a", 60)
    world.put("b", 70)
    world.settle()
    world.rename("a", "t")
    world.rename("b", "a")
    world.rename("t", "b")
    world.settle()
    assert sorted(world.objects()) == ["a", "anchor", "b"]
    world.settle_and_read()


def test_a_released_file_that_a_new_one_followed_was_lost(world: World) -> None:
    """``mv log log.1; echo > log``: the new file overwrote the object before it was copied to the old one's new key."""
    world.put("a", 60)
    world.settle()
    world.rename("a", "b")
    world.write("a", 80)
    world.settle()
    assert sorted(world.objects()) == ["a", "anchor", "b"]
    world.settle_and_read()


def test_a_file_removed_during_its_first_upload_stayed_in_the_bucket(world: World) -> None:
    """Nothing knew of the path when the removal was noticed, and the upload's row came later."""
    for number in range(20):
        world.write(f"f{number}", 70_000)
    made = world.made
    eventually(lambda: any("f" in key for key in world.objects()) or made.status()["associations"][0]["exported"])
    for number in range(20):
        world.unlink(f"f{number}")
    world.settle()
    assert sorted(world.objects()) == ["anchor"]


def test_a_directory_removed_while_it_is_scanned_ended_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 answers EINVAL then, where others say ENOENT."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").touch()
    (tmp_path / "e").touch()

    class Racing:
        @staticmethod
        def read_directory(fd: int, device: int, prefix: bytes, marks: tuple[bytes, ...]) -> tuple[list[bytes], bytes]:
            if prefix == b"d/":
                (tmp_path / "d/f").unlink()
                (tmp_path / "d").rmdir()
            return _core.read_directory(fd, device, prefix, marks)

    monkeypatch.setattr(walk, "_core", Racing)
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        found = walk.walk(root, os.fstat(root).st_dev, b"", hidden=frozenset())
        assert [path for path, _ in found] == [b"d", b"e"]
    finally:
        os.close(root)


def test_a_renamed_file_whose_object_got_other_metadata_meanwhile_was_pending_for_ever(versioned: World) -> None:
    """The copy wanted the version that the row knows, and the row waited for the copy."""
    world = versioned
    world.write("a", 60)
    world.settle()
    world.stop()
    world.change_metadata("a", 0o600)
    world.rename("a", "b")
    world.settle()
    assert sorted(world.objects()) == ["anchor", "b"]
    world.settle_and_read()


def test_a_clock_that_was_set_back_left_paths_pending_for_as_long(versioned: World) -> None:
    """What had to wait for something else was to be looked at again when the clock had caught up."""
    world = versioned
    world.fail("503 before", "PUT", 100)
    world.jump(hours=26)
    world.write("a", 60)
    eventually(lambda: world.client.status()["associations"][0]["recent_errors"])
    world.settle()  # and the clock is right again
    assert "a" in world.objects()


def test_a_directory_in_place_of_a_file_whose_object_grew_out_of_the_limit_was_looked_at_for_ever(
    daemons: Daemons,
) -> None:
    """The row stays, as the object is left alone; and as long as it did, the directory was no news."""
    world = World(daemons.get("behind"), daemons.moto, "behind", options={"max_size": 1000})
    try:
        world.write("a", 60)
        world.settle()
        world.stop()
        world.unlink("a")
        world.mkdir("a")
        world.put("a", 5000)
        world.start()
        assert world.client.wait(world.name.encode(), 30) == []
        assert world.remote("a") is not None
        world.end()
    except BaseException:
        daemons.drop("behind")
        raise


def test_what_came_last_to_a_directory_and_went_with_it_left_its_parent_alone(versioned: World) -> None:
    """``d`` was there through ``d/e/a`` only: with ``d/e`` gone from the tree nobody thought of it."""
    world = versioned
    world.put("d/e/a", 60)
    world.settle()
    world.rename("d/e", "g")
    world.settle()
    world.settle_and_read()


def test_a_directory_that_an_import_made_again_lost_sight_of_its_marker(versioned: World) -> None:
    world = versioned
    world.mkdir("g")
    world.chmod("g", 0o700)
    world.settle()
    world.stop()
    world.rmtree("g")
    world.put("g/a", 60)
    world.settle()
    world.settle_and_read()


def test_two_names_of_a_released_file_told_its_mark_their_versions_in_turns(versioned: World) -> None:
    """For ever; and whoever read it meanwhile asked for one name's version under the other one's key."""
    world = versioned
    world.put("a", 60)
    world.settle()
    world.link("a", "b")
    world.settle_and_read()


def test_what_is_below_the_version_that_took_its_place_comes_with_the_file_that_stands_for_it(
    versioned: World,
) -> None:
    """It was told as lost, though the bucket had its bytes: the file was renamed, and its object replaced meanwhile."""
    world = versioned
    world.put("a", 60)
    world.settle()
    world.stop()
    world.rename("a", "b")
    world.put("a", 70)
    world.settle()
    assert set(world.objects()) == {"anchor", "a", "b"}
    assert world.client.status()["associations"][0]["errors"] == 0
    world.settle_and_read()


def test_what_was_lost_at_a_path_stayed_reported_when_a_file_was_renamed_there(behind: World) -> None:
    world = behind
    world.write("c", 80)
    world.put("a", 60)
    world.settle()
    world.stop()
    world.rename("a", "b")
    world.put("a", 70)
    world.settle()
    assert world.client.status()["associations"][0]["errors"] == 1
    world.rename("c", "b")
    world.settle_and_read()


def test_an_object_that_changed_while_a_crash_kept_its_loaded_file_from_being_written_down_was_left_there(
    versioned: World,
) -> None:
    """The mark was off and the row said released: as if somebody had stripped it. Nothing was imported any more."""
    world = versioned
    world.put("a", 70_000)
    world.settle()
    world.crash.arm(1, "stub.unmark:after")
    world.read("a")
    eventually(lambda: not world.is_up)
    world.put("a", 100)
    world.settle()
    world.settle_and_read()


def test_what_was_lost_stayed_reported_when_it_was_gone_or_had_moved(behind: World) -> None:
    """Neither row nor file is left at the path then, so that nothing was news there."""
    world = behind
    names = ["a", "b", "d/a", "d/b", "g/a"]
    for name in names:
        world.put(name, 60)
    world.settle()
    world.stop()
    for name in names:
        world.rename(name, f"{name}-lost")
        world.put(name, 70)
    world.settle()  # and as many errors are told as files lost
    assert world.client.status()["associations"][0]["errors"] == len(names)
    world.unlink("a-lost")
    world.rename("d", "e")
    world.settle()
    assert world.client.status()["associations"][0]["errors"] == len(names) - 1
    world.stop()
    world.unlink("b-lost")
    world.unlink("e/a-lost")
    world.rename("e/b-lost", "e/moved")
    world.settle()
    world.rmtree("g")
    world.settle()
    assert world.client.status()["associations"][0]["errors"] == 1
    world.unlink("e/moved")
    world.settle()


def test_what_can_not_be_exported_stayed_reported_when_it_was_gone(behind: World) -> None:
    os.mkfifo(behind.behind / "pipe")
    eventually(lambda: behind.client.status()["associations"][0]["not_exportable"] == 1)
    (behind.behind / "pipe").unlink()
    eventually(lambda: behind.client.status()["associations"][0]["not_exportable"] == 0)
    behind.settle()


def test_an_object_that_came_back_as_it_was_left_its_file_reported_lost(daemons: Daemons) -> None:
    """Row and object agree then, as they did before: nothing seemed to have happened."""
    world = World(daemons.get("behind"), daemons.moto, "behind", options={"import": ["new", "changed"]})
    key, body = {"Bucket": world.bucket, "Key": world.prefix + "a"}, b"the only copy"

    def lost() -> int:
        world.deliver()
        assert world.client.wait(world.name.encode(), 30) == []
        return int(world.client.status()["associations"][0]["lost"])

    try:
        world.s3.put_object(**key, Body=body)
        assert lost() == 0
        world.s3.delete_object(**key)
        assert lost() == 1
        world.chmod("a", 0o600)
        assert lost() == 1
        world.s3.put_object(**key, Body=body)
        assert lost() == 0
        world.end()
    except BaseException:
        daemons.drop("behind")
        raise


def test_what_was_made_beside_an_object_of_the_other_form_stayed_here_alone(behind: World) -> None:
    """The object was taken for the other version of the same path, and so nothing was exported."""
    world = behind
    world.stop()
    world.mkdir("d")
    world.put("d", 60)
    world.write("a", 60)
    world.put_marker("a")
    world.settle()
    assert set(world.objects()) == {"anchor", "a", "a/", "d", "d/"}


def test_what_waited_for_the_name_of_a_file_that_nobody_knew_waited_for_ever(daemons: Daemons) -> None:
    world = World(daemons.get("behind"), daemons.moto, "behind", options={"max_size": 1000})
    try:
        world.write("a", 2000)
        world.put("a/x", 60)
        world.deliver()
        assert world.client.wait(world.name.encode(), 30) == []
        assert world.client.status()["associations"][0]["errors"] == 1
        world.unlink("a")
        world.settle_and_read()
        world.end()
    except BaseException:
        daemons.drop("behind")
        raise


def test_an_object_waited_for_ever_for_the_name_of_a_directory_that_its_keys_alone_had_made(behind: World) -> None:
    world = behind
    world.put("d/e/a", 60)
    world.settle()
    world.put("d", 70)
    world.settle()
    world.rename("d", "g")
    world.settle()
    assert set(world.objects()) == {"anchor", "d", "g/", "g/e/", "g/e/a"}


@pytest.mark.parametrize("name", ["a", "b"])
def test_two_names_of_a_released_file_whose_objects_have_two_etags_were_damaged_when_it_was_loaded(
    versioned: World, name: str
) -> None:
    """One was uploaded in parts, the other is a copy of it: the mark named one version, the row of the other name
    another one, and what was loaded seemed to be neither's."""
    world = versioned
    world.put_parts("a", [100, 50])
    world.settle()
    world.link("a", "b")
    world.settle()
    world.stop()  # or the daemon may remember the other name
    world.start()
    world.read(name)
    world.settle_and_read()


def test_a_time_that_came_in_while_a_file_was_loaded_went_back(versioned: World) -> None:
    """What is loaded puts the file's times back as they were when that began."""
    world = versioned
    world.put("a", 70_000, mode=0o755)
    world.settle()
    world.store.gate = gate = Gate("GET", world.place_of("a"), "begun")
    reader = threading.Thread(target=world.read, args=("a",))
    reader.start()
    assert gate.is_met(10)
    world.change_metadata("a", 0o600, owner=1001)
    eventually(lambda: os.stat(world.behind / "a").st_uid == 1001)
    gate.open()
    reader.join()
    world.settle_and_read()


def test_a_time_that_was_set_on_a_directory_that_was_new_on_both_sides_stayed_here(behind: World) -> None:
    """Directories are equal on both sides whatever their times, and the row said that this one was known."""
    world = behind
    world.stop()
    world.mkdir("d")
    world.put_marker("d", mode=0o755, owner=0)
    world.utime("d", "past")
    world.settle_and_read()


@pytest.mark.parametrize("policy", ["local", "keep-both"])
def test_new_content_had_the_time_of_the_old_one_where_the_owner_was_changed_here(
    daemons: Daemons, policy: str
) -> None:
    """Owner and content are both applied, and the time is the content's."""
    options = {"on_conflict": policy}
    world = World(daemons.get("behind"), daemons.moto, "behind", versioned=True, options=options)
    world.write("a", 100)
    world.settle()
    world.stop()
    world.put("a", 200, mode=0o600, owner=1001)
    world.chown("a", 1001, 0)
    world.settle_and_read()
    world.end()


def test_a_time_that_was_set_on_a_directory_while_nobody_watched_stayed_here(behind: World) -> None:
    """The scan of a start took no notice of a directory's time."""
    world = behind
    world.write("d/a", 100)
    world.settle()
    world.stop()
    world.utime("d", "past")
    world.settle_and_read()


def test_a_marker_that_came_together_with_an_object_of_its_name_was_not_reported(world: World) -> None:
    """Both hints are one row of the changelog, and its look found the object."""
    world.stop()
    world.put("a", 60)
    world.put_marker("a")
    world.lose_events()
    world.settle()
    assert world.client.status()["associations"][0]["errors"] == 1
    world.put("d/b", 60)
    world.put_marker("d/b")
    world.settle()
    assert world.client.status()["associations"][0]["errors"] == 2
    world.delete("a/")
    world.delete("d/b")
    world.settle_and_read()


def test_an_object_that_came_while_a_directory_of_its_name_was_removed_was_not_imported(world: World) -> None:
    """One look was told of both, and asked for the directory's object only, as its row said."""
    world.put("d/a", 60)
    world.settle()
    world.put("d", 70)
    world.rmtree("d")
    world.settle()
    assert sorted(world.objects()) == ["anchor", "d"]
    world.put_marker("d")
    world.unlink("d")
    world.settle_and_read()


def test_a_clash_was_forgotten_when_mode_and_content_were_merged(daemons: Daemons) -> None:
    """The look after the merge was of the file alone, and did not ask for the marker."""
    with world_of("mount", daemons, options={"on_conflict": "local"}) as world:
        world.write("a", 100)
        world.settle()
        world.put_marker("a")
        world.settle()
        world.chmod("a", 0o640)
        world.put("a", 200, mode=0o640)
        world.settle()
        assert world.client.status()["associations"][0]["errors"] == 1
        world.delete("a/")
        world.settle_and_read()
        assert world.client.status()["associations"][0]["errors"] == 0
