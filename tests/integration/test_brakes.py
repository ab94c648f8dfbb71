"""No mass accident (promise 6): what is gone all at once, there or here, is not taken for deletes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.instance import Instance, eventually, fill, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, is_listing, refusal

MANY = 210
"""More than half of these are more than a hundred."""


@pytest.fixture(scope="module")
def other_moto() -> Iterator[MotoServer]:
    with MotoServer() as server:
        yield server


@pytest.fixture
def full(moto: MotoServer, bucket: str) -> str:
    """A bucket of many objects."""
    fill(moto, bucket, dict.fromkeys(NAMES, b"data"))
    return bucket


NAMES = [f"{number:03}" for number in range(MANY)]


def row(made: Instance) -> dict[str, Any]:
    found: dict[str, Any] = made.ok("associations", "--json").json[0]
    return found


def becomes(made: Instance, state: str) -> None:
    eventually(lambda: row(made)["state"] == state, 60)


def remove(s3: Any, proxy: Proxy, bucket: str, keys: list[str]) -> None:
    """All at once for who lists: a few after a few are no accident."""
    with proxy.holding(is_listing):
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})


def move(s3: Any, bucket: str, old: str, new: str) -> None:
    """As somebody does who tidies a bucket up: each object has another key then."""
    for name in NAMES:
        s3.copy_object(Bucket=bucket, Key=f"{new}{name}", CopySource={"Bucket": bucket, "Key": f"{old}{name}"})
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"{old}{name}"} for name in NAMES]})


def set_aside(made: Instance, aside: Path) -> None:
    """More than half of the files, and more than a hundred."""
    aside.mkdir()
    for name in NAMES[:110]:
        (made.tree / "d" / name).rename(aside / name)


def goes_on_when_they_are_back(
    made: Instance, aside: Path, s3: Any, bucket: str, names: Sequence[str] = NAMES[:110]
) -> None:
    """The disk is there again: nobody has to say so."""
    for name in names:
        (aside / name).rename(made.tree / "d" / name)
    becomes(made, "AVAILABLE")
    made.settle()
    assert keys_of(s3, bucket) == NAMES
    assert len(os.listdir(made.directory / "d")) == MANY


# ---------------------------------------------------------------- here


@pytest.mark.parametrize("mounted", [True, False])
def test_a_scan_that_finds_half_the_files_gone_deletes_no_object(
    tmp_path: Path, moto: MotoServer, s3: Any, full: str, mounted: bool
) -> None:
    with instance(tmp_path, mounted=mounted) as made:
        made.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
        made.settle()
        assert made.stop() == 0
        set_aside(made, tmp_path / "aside")

        made.start()

        becomes(made, "MISCONFIGURED")
        failure = row(made)["failure"]
        assert "110 of 210 known files are gone from the tree" in failure
        assert "--accept-deletes" in failure
        assert made.run("status").code == 1
        assert keys_of(s3, full) == NAMES
        goes_on_when_they_are_back(made, tmp_path / "aside", s3, full)
        assert not [line for line in made.ok("events", "--json").out.splitlines() if "object deleted" in line]


@pytest.mark.parametrize("mounted", [True, False])
def test_a_scan_after_lost_records_that_finds_half_the_files_gone_deletes_no_object(
    tmp_path: Path, moto: MotoServer, s3: Any, full: str, mounted: bool
) -> None:
    """A disk that goes while the daemon runs, and so much happens that the kernel drops its records."""
    with instance(tmp_path, mounted=mounted) as made:
        made.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
        made.settle()
        busy = made.tree / "d" / "busy"
        daemon = made.daemon
        assert daemon is not None
        records = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        daemon.send_signal(signal.SIGSTOP)
        try:
            for _ in range(records // 2 + 1):  # made and removed: two records at least, none of which are merged
                busy.touch()
                busy.unlink()
            set_aside(made, tmp_path / "aside")
        finally:
            daemon.send_signal(signal.SIGCONT)

        becomes(made, "MISCONFIGURED")
        assert "110 of 210 known files are gone from the tree" in row(made)["failure"]
        assert keys_of(s3, full) == NAMES
        goes_on_when_they_are_back(made, tmp_path / "aside", s3, full)


def test_files_that_come_back_one_after_the_other_are_not_taken_for_fewer_that_went(
    tmp_path: Path, moto: MotoServer, s3: Any, full: str
) -> None:
    """Half way back they were plausible, and the objects of the others were deleted: of stubs, their only copy."""
    aside = tmp_path / "aside"
    with instance(tmp_path, mounted=True) as made:
        made.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
        made.settle()
        assert made.stop() == 0
        set_aside(made, aside)
        made.start()
        becomes(made, "MISCONFIGURED")
        for name in NAMES[:80]:
            (aside / name).rename(made.tree / "d" / name)
        eventually(lambda: "30 of 210 known files are still gone" in row(made)["failure"], 60)
        made.kill()
        made.start()
        eventually(lambda: "30 of 210 known files are still gone" in row(made)["failure"], 60)
        assert row(made)["state"] == "MISCONFIGURED"
        assert keys_of(s3, full) == NAMES

        goes_on_when_they_are_back(made, aside, s3, full, NAMES[80:110])

        (made.tree / "d" / NAMES[0]).unlink()  # and one that goes afterwards is one that somebody removed
        made.settle()
        assert keys_of(s3, full) == NAMES[1:]
        assert made.stop() == 0
        (made.tree / "d" / NAMES[1]).unlink()
        made.start()
        made.settle()
        assert keys_of(s3, full) == NAMES[2:]


def test_a_refused_scan_goes_on_when_a_person_says_so(fsx: Instance, moto: MotoServer, s3: Any, full: str) -> None:
    fsx.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    for name in NAMES[5:]:
        (fsx.tree / "d" / name).unlink()
    (fsx.tree / "d" / "new").write_bytes(b"made meanwhile")
    fsx.start()
    becomes(fsx, "MISCONFIGURED")
    fsx.ok("association", "update", "/d")  # trying again is no consent
    becomes(fsx, "MISCONFIGURED")
    assert set(NAMES) <= set(keys_of(s3, full))

    fsx.ok("association", "update", "/d", "--accept-deletes")

    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert keys_of(s3, full) == [*NAMES[:5], "new"]
    assert s3.get_object(Bucket=full, Key="new")["Body"].read() == b"made meanwhile"


def test_consent_to_what_is_gone_here_is_none_to_what_is_gone_there(
    fsx: Instance, proxy: Proxy, s3: Any, full: str
) -> None:
    fsx.ok("associate", f"s3://{full}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    for name in NAMES[:110]:
        (fsx.tree / "d" / name).unlink()
    fsx.start()
    becomes(fsx, "MISCONFIGURED")
    eventually(lambda: "gone from the tree" in row(fsx)["failure"])
    fsx.ok("association", "update", "/d", "--accept-deletes")
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert keys_of(s3, full) == NAMES[110:]

    remove(s3, proxy, full, NAMES[110:])

    becomes(fsx, "MISCONFIGURED")
    assert "the listing is empty" in row(fsx)["failure"]
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES[110:]


def test_a_few_removed_while_nobody_watched_are_removed_there(
    fsx: Instance, moto: MotoServer, s3: Any, full: str
) -> None:
    fsx.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    for name in NAMES[:90]:
        (fsx.tree / "d" / name).unlink()
    fsx.start()
    fsx.settle()
    assert keys_of(s3, full) == NAMES[90:]


def test_files_that_moved_while_nobody_watched_are_not_gone(
    fsx: Instance, moto: MotoServer, s3: Any, full: str
) -> None:
    fsx.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    (fsx.tree / "d" / "below").mkdir()
    for name in NAMES:
        (fsx.tree / "d" / name).rename(fsx.tree / "d" / "below" / name)
    fsx.start()
    fsx.settle()
    assert keys_of(s3, full) == ["below/", *(f"below/{name}" for name in NAMES)]


@pytest.mark.parametrize("mounted", [True, False])
def test_a_persons_rm_is_no_accident(tmp_path: Path, moto: MotoServer, s3: Any, full: str, mounted: bool) -> None:
    with instance(tmp_path, mounted=mounted) as made:
        made.associate(moto, f"s3://{full}/", "/d", "--poll", "1")
        made.settle()
        for name in NAMES:
            (made.directory / "d" / name).unlink()
        made.settle()
        assert keys_of(s3, full) == []
        assert row(made)["state"] == "AVAILABLE"


def test_a_persons_rm_is_none_either_if_the_daemon_ended_before_it_was_through(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, full: str
) -> None:
    """What was seen name by name is known after the restart as well."""
    fsx.ok("associate", f"s3://{full}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    proxy.rule = lambda request: Answer(503) if request.method == "DELETE" else None
    subprocess.run(f"rm -r {fsx.directory}/d/*", shell=True, check=True)  # noqa: S602
    eventually(lambda: row(fsx)["pending_exports"] >= MANY)
    fsx.kill()
    proxy.rule = None
    fsx.start()
    fsx.settle()
    assert keys_of(s3, full) == []


# ---------------------------------------------------------------- there


def test_a_listing_that_lacks_half_deletes_no_file(fsx: Instance, proxy: Proxy, s3: Any, full: str) -> None:
    fsx.ok("associate", f"s3://{full}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    remove(s3, proxy, full, NAMES[:110])
    becomes(fsx, "MISCONFIGURED")
    assert "110 of 210 known objects are missing" in row(fsx)["failure"]
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES
    (fsx.directory / "d/000").chmod(0o600)  # a reason to look at one of them: its object being gone is not believed
    fsx.ok("association", "update", "/d")
    becomes(fsx, "MISCONFIGURED")
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES

    fsx.ok("association", "update", "/d", "--accept-deletes")

    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES[110:]


@pytest.mark.parametrize("below", ["", "sub/"])
@pytest.mark.parametrize("count", [12, 50])
def test_a_prefix_emptied_but_for_directory_markers_deletes_no_file(
    fsx: Instance, proxy: Proxy, s3: Any, bucket: str, count: int, below: str
) -> None:
    """A store's console makes ``p/`` when somebody makes a folder of that name, and keeps it when its objects go."""
    names = NAMES[:count]
    markers = sorted({"p/", f"p/{below}"})
    for key in [*markers, *(f"p/{below}{name}" for name in names)]:
        s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"data")
    fsx.ok("associate", f"s3://{bucket}/p/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    assert (fsx.directory / "d" / below / names[0]).read_bytes() == b"data"

    remove(s3, proxy, bucket, [f"p/{below}{name}" for name in names])

    becomes(fsx, "MISCONFIGURED")
    assert f"empty but for directory markers, and {count} objects" in row(fsx)["failure"]
    assert sorted(os.listdir(fsx.directory / "d" / below)) == names
    assert keys_of(s3, bucket) == markers

    fsx.ok("association", "update", "/d", "--accept-deletes")

    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert os.listdir(fsx.directory / "d" / below) == []


def test_consent_holds_until_what_it_was_given_for_is_gone(fsx: Instance, proxy: Proxy, s3: Any, full: str) -> None:
    """Deletes take their time, and listings that come meanwhile find the same."""
    fsx.ok("associate", f"s3://{full}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    remove(s3, proxy, full, NAMES)
    becomes(fsx, "MISCONFIGURED")

    asked, answered = Event(), Event()

    def before_a_delete(request: Request) -> None:
        if request.method == "HEAD":
            asked.set()
            answered.wait()

    proxy.rule = before_a_delete
    try:
        fsx.ok("association", "update", "/d", "--accept-deletes")
        assert asked.wait(60)
        before = len(proxy.requests)
        eventually(lambda: sum(map(is_listing, proxy.requests[before:])) > 1)
        assert row(fsx)["state"] == "AVAILABLE"
    finally:
        answered.set()
    fsx.settle()
    assert os.listdir(fsx.directory / "d") == []
    assert row(fsx)["state"] == "AVAILABLE"


def test_a_revoked_permission_to_list_deletes_nothing_and_heals(
    fsx: Instance, moto: MotoServer, proxy: Proxy, s3: Any, full: str
) -> None:
    fsx.ok("associate", f"s3://{full}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    proxy.rule = lambda request: refusal(403, "AccessDenied") if is_listing(request) else None
    becomes(fsx, "MISCONFIGURED")
    assert "s3:ListBucket" in row(fsx)["failure"]
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES
    proxy.rule = None
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES == keys_of(s3, full)


def test_another_stores_bucket_of_that_name_deletes_nothing(
    fsx: Instance, moto: MotoServer, other_moto: MotoServer, s3: Any, full: str
) -> None:
    """As a wrong prefix or endpoint would be: it can be listed, and has other keys."""
    fsx.associate(moto, f"s3://{full}/", "/d", "--poll", "1", "--export", "none")
    fsx.settle()
    other = other_moto.client("s3")
    other.create_bucket(Bucket=full)
    other.put_object(Bucket=full, Key="elsewhere", Body=b"x")
    fsx.ok("association", "update", "/d", "--endpoint-url", other_moto.url)
    becomes(fsx, "MISCONFIGURED")
    assert set(NAMES) <= set(os.listdir(fsx.directory / "d"))
    fsx.ok("association", "update", "/d", "--endpoint-url", moto.url)
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert set(NAMES) <= set(os.listdir(fsx.directory / "d"))
    assert keys_of(s3, full) == NAMES


def test_objects_that_moved_to_another_prefix_while_nobody_looked_delete_no_file(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """The association's prefix is a wrong one then: nothing is below it."""
    fill(moto, bucket, {f"old/{name}": b"data" for name in NAMES})
    fsx.associate(moto, f"s3://{bucket}/old/", "/d", "--poll", "1")
    fsx.settle()
    for name in NAMES[:5]:  # some with their data here, the others without
        assert (fsx.directory / "d" / name).read_bytes() == b"data"
    assert fsx.stop() == 0
    move(s3, bucket, "old/", "new/")

    fsx.start()

    becomes(fsx, "MISCONFIGURED")
    assert "the listing is empty" in row(fsx)["failure"]
    assert "--accept-deletes" in row(fsx)["failure"]
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES
    assert keys_of(s3, bucket) == [f"new/{name}" for name in NAMES]
    # They are back: it goes on by itself, and nothing was lost meanwhile.
    move(s3, bucket, "new/", "old/")
    becomes(fsx, "AVAILABLE")
    fsx.settle()
    assert {name: (fsx.directory / "d" / name).read_bytes() for name in NAMES} == dict.fromkeys(NAMES, b"data")
    assert keys_of(s3, bucket) == [f"old/{name}" for name in NAMES]


def test_a_full_directory_associated_again_with_a_wrong_prefix_loses_nothing(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """Of a new association nothing is known yet, so an empty prefix is no reason to delete a file: all are exported
    there. Files whose data is below the right prefix only don't let the old association go."""
    fill(moto, bucket, {f"right/{name}": b"data" for name in NAMES})
    fsx.associate(moto, f"s3://{bucket}/right/", "/d", "--poll", "1")
    fsx.settle()
    refused = fsx.run("association", "delete", "/d")
    assert (refused.code, f"{MANY} released files have their data only in" in refused.err) == (1, True)
    fsx.ok("association", "delete", "/d", "--hydrate")

    fsx.associate(moto, f"s3://{bucket}/wrong/", "/d", "--poll", "1")
    fsx.settle()

    assert row(fsx)["state"] == "AVAILABLE"
    assert {name: (fsx.directory / "d" / name).read_bytes() for name in NAMES} == dict.fromkeys(NAMES, b"data")
    assert sorted(os.listdir(fsx.directory / "d")) == NAMES
    assert keys_of(s3, bucket) == [f"{prefix}/{name}" for prefix in ("right", "wrong") for name in NAMES]


def test_a_disk_that_is_not_mounted_below_the_association_deletes_nothing(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, tmp_path: Path
) -> None:
    """The association's own directory is there, and what was below it is not."""
    names = [f"sub/{number:03}" for number in range(120)]
    fill(moto, bucket, dict.fromkeys(names, b"data"))
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    shutil.move(fsx.tree / "d/sub", tmp_path / "disk")
    (fsx.tree / "d/sub").mkdir()
    fsx.start()
    becomes(fsx, "MISCONFIGURED")
    assert keys_of(s3, bucket) == names
