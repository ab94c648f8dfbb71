"""Both sides changed: each policy, and the cases that only look like conflicts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from support.instance import Instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Cut, Proxy, Request, Unconditional


def body(s3: Any, bucket: str, key: str) -> bytes:
    data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return data


def both(made: Instance, s3: Any, bucket: str) -> dict[str, bytes]:
    """What both sides hold, which is the same."""
    here = {path.name: path.read_bytes() for path in (made.directory / "d").iterdir()}
    assert here == {key: body(s3, bucket, key) for key in keys_of(s3, bucket)}
    return here


def start_with(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, policy: str, names: tuple[str, ...] = ("f.txt",)
) -> None:
    """Bring ``names`` to both sides and stop the daemon: now both can change without a race."""
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--on-conflict", policy, "--poll", "1")
    for name in names:
        assert (fsx.directory / "d" / name).read_bytes() == b"before"
    fsx.settle()
    assert fsx.stop() == 0


@pytest.mark.parametrize("policy", ["keep-both", "local", "remote", "newest"])
@pytest.mark.parametrize("later", ["local", "remote"])
def test_both_edited(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, policy: str, later: str) -> None:
    start_with(fsx, moto, s3, bucket, policy)
    (fsx.tree / "d/f.txt").write_text("edited here")
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"edited there!")
    age_s = -3600 if later == "remote" else 3600
    os.utime(fsx.tree / "d/f.txt", (time.time() + age_s, time.time() + age_s))

    fsx.start()
    fsx.settle()

    found = both(fsx, s3, bucket)
    winner = {"local": b"edited here", "remote": b"edited there!"}.get(policy)
    if policy == "newest":
        winner = b"edited here" if later == "local" else b"edited there!"
    if policy == "keep-both":
        assert found.pop("f.txt") == b"edited there!"
        ((name, kept),) = found.items()
        assert kept == b"edited here"
        assert name.startswith("f.conflict-")
        assert name.endswith(".txt")
    else:
        assert found == {"f.txt": winner}
    assert "Conflict" in {event["code"] for event in fsx.ok("events", "--json").json}
    (row,) = fsx.ok("associations", "--json").json
    assert row["state"] == "AVAILABLE"
    assert row["pending"] == 0
    assert row["conflicts"] == len(fsx.ok("conflicts", "--json").json) == (policy == "keep-both")


def test_an_edit_beats_a_delete_either_way(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both", ("edited here", "edited there", "gone"))
    (fsx.tree / "d/edited here").write_text("kept")
    s3.delete_object(Bucket=bucket, Key="edited here")
    (fsx.tree / "d/edited there").unlink()
    s3.put_object(Bucket=bucket, Key="edited there", Body=b"kept too")
    (fsx.tree / "d/gone").unlink()
    s3.delete_object(Bucket=bucket, Key="gone")

    fsx.start()
    fsx.settle()

    assert both(fsx, s3, bucket) == {"edited here": b"kept", "edited there": b"kept too"}


def test_equal_bytes_on_both_sides_are_no_conflict(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both")
    for name in ("f.txt", "new"):
        (fsx.tree / "d" / name).write_text("the same")
        s3.put_object(Bucket=bucket, Key=name, Body=b"the same")
    before = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}

    fsx.start()
    fsx.settle()

    assert both(fsx, s3, bucket) == {"f.txt": b"the same", "new": b"the same"}
    assert {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)} == before
    (row,) = fsx.ok("associations", "--json").json
    assert (row["exported"], row["conflicts"]) == (0, 0)
    assert "released" not in fsx.state(fsx.directory / "d/new")["flags"]


@pytest.mark.parametrize("content", ["here", "there"])
def test_metadata_and_content_are_both_applied(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, content: str
) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both")
    if content == "here":
        (fsx.tree / "d/f.txt").write_text("edited")
        s3.copy_object(
            Bucket=bucket,
            Key="f.txt",
            CopySource={"Bucket": bucket, "Key": "f.txt"},
            MetadataDirective="REPLACE",
            Metadata={"file-permissions": "0100640"},
        )
    else:
        (fsx.tree / "d/f.txt").chmod(0o640)
        s3.put_object(Bucket=bucket, Key="f.txt", Body=b"edited")

    fsx.start()
    fsx.settle()

    assert both(fsx, s3, bucket) == {"f.txt": b"edited"}
    assert (fsx.directory / "d/f.txt").stat().st_mode == 0o100640
    assert s3.head_object(Bucket=bucket, Key="f.txt")["Metadata"]["file-permissions"] == "0100640"


def test_a_delete_beats_metadata(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both", ("here", "there"))
    (fsx.tree / "d/here").unlink()
    s3.copy_object(
        Bucket=bucket,
        Key="here",
        CopySource={"Bucket": bucket, "Key": "here"},
        MetadataDirective="REPLACE",
        Metadata={"file-permissions": "0100600"},
    )
    (fsx.tree / "d/there").chmod(0o600)
    s3.delete_object(Bucket=bucket, Key="there")
    fsx.start()
    fsx.settle()
    assert both(fsx, s3, bucket) == {}


@pytest.mark.needs("flat keys")
def test_a_file_here_and_a_directory_there(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    (fsx.directory / "d/x").write_text("a file")
    fsx.settle()
    s3.put_object(Bucket=bucket, Key="x/below", Body=b"below")
    fsx.settle()
    assert (fsx.directory / "d/x").read_bytes() == b"a file"
    assert {key: body(s3, bucket, key) for key in keys_of(s3, bucket)} == {"x": b"a file", "x/below": b"below"}
    (row,) = fsx.ok("associations", "--json").json
    assert row["errors"] == 1


def test_an_answer_that_was_lost_is_no_conflict(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """The store has the object, and we never heard of it."""
    with Proxy(moto.url) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        lost: list[Request] = []

        def rule(request: Request) -> Answer | Cut | None:
            if request.method == "PUT" and request.path == f"/{bucket}/f" and not lost:
                lost.append(request)
                return Cut(0)
            return None

        proxy.rule = rule
        (fsx.directory / "d/f").write_text("data")
        fsx.settle()
        assert lost
        assert both(fsx, s3, bucket) == {"f": b"data"}
        (row,) = fsx.ok("associations", "--json").json
        assert (row["conflicts"], row["errors"]) == (0, 0)


def test_a_rename_here_against_an_edit_there_keeps_both(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both")
    (fsx.tree / "d/f.txt").rename(fsx.tree / "d/g.txt")
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"edited there")

    fsx.start()
    fsx.settle()

    assert both(fsx, s3, bucket) == {"f.txt": b"edited there", "g.txt": b"before"}


def test_an_edit_here_against_a_rename_there_keeps_both(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both")
    (fsx.tree / "d/f.txt").write_text("edited here")
    s3.copy_object(Bucket=bucket, Key="g.txt", CopySource={"Bucket": bucket, "Key": "f.txt"})
    s3.delete_object(Bucket=bucket, Key="f.txt")

    fsx.start()
    fsx.settle()

    assert both(fsx, s3, bucket) == {"f.txt": b"edited here", "g.txt": b"before"}


def test_a_rename_here_onto_what_was_put_there_keeps_both(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    start_with(fsx, moto, s3, bucket, "keep-both")
    (fsx.tree / "d/f.txt").rename(fsx.tree / "d/g.txt")
    s3.put_object(Bucket=bucket, Key="g.txt", Body=b"new there")

    fsx.start()
    fsx.settle()

    found = both(fsx, s3, bucket)
    assert found.pop("g.txt") == b"new there"
    assert list(found.values()) == [b"before"]


@pytest.mark.parametrize("policy", ["keep-both", "local", "remote", "newest"])
@pytest.mark.parametrize("later", ["local", "remote"])
def test_metadata_changed_on_both_sides(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, policy: str, later: str
) -> None:
    start_with(fsx, moto, s3, bucket, policy)
    if later == "remote":
        (fsx.tree / "d/f.txt").chmod(0o604)
        time.sleep(1.1)  # last-modified has whole seconds
    s3.copy_object(
        Bucket=bucket,
        Key="f.txt",
        CopySource={"Bucket": bucket, "Key": "f.txt"},
        MetadataDirective="REPLACE",
        Metadata={"file-permissions": "0100640"},
    )
    if later == "local":
        time.sleep(1.1)
        (fsx.tree / "d/f.txt").chmod(0o604)

    fsx.start()
    fsx.settle()

    wins = policy if policy in {"local", "remote"} else later
    wanted = 0o640 if wins == "remote" else 0o604
    assert (fsx.directory / "d/f.txt").stat().st_mode == 0o100000 | wanted
    told = s3.head_object(Bucket=bucket, Key="f.txt")["Metadata"]["file-permissions"]
    assert told == f"0100{wanted:o}"
    assert both(fsx, s3, bucket) == {"f.txt": b"before"}


def test_a_writer_that_stays_open_decides_nothing_until_it_closes(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="f.txt", Body=b"before")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    with (fsx.directory / "d/f.txt").open("r+b") as writer:
        writer.write(b"edited")
        writer.flush()
        s3.put_object(Bucket=bucket, Key="f.txt", Body=b"there")
        waited = fsx.run("wait", fsx.directory / "d", "--timeout", "3")
        assert (waited.code, "open for writing" in waited.err) == (1, True)
        assert (fsx.directory / "d/f.txt").read_bytes() == b"edited"
        writer.write(b", and on")
    fsx.settle()

    found = both(fsx, s3, bucket)
    assert found.pop("f.txt") == b"there"
    assert list(found.values()) == [b"edited, and on"]


def test_status_says_which_conditions_the_store_obeys(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")

    features = fsx.status()["associations"][0]["features"]

    assert {"put_if_match", "put_if_none_match", "complete_if_match", "delete_if_match"} <= features.keys()
    text = fsx.run("status").out
    for name, is_obeyed in features.items():
        if is_obeyed:
            assert name in text
    unguarded = [name for name in features if not features[name] and name.startswith(("put", "complete", "delete"))]
    assert ("with a window of one request" in text) == bool(unguarded)
    assert keys_of(s3, bucket) == []


def test_an_update_asks_the_store_again_which_conditions_it_obeys(fsx: Instance, moto: MotoServer, bucket: str) -> None:
    """Behind its address there may be another store by now, which obeys more, or less."""

    def features() -> dict[str, bool]:
        found: dict[str, bool] = fsx.status()["associations"][0]["features"]
        return found

    with Proxy(moto.url) as proxy:
        made = fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url).out.strip()
        assert features()["put_if_match"]

        proxy.rule = lambda request: None if request.method in {"GET", "HEAD"} else Unconditional()
        fsx.ok("association", "update", made, "--endpoint-url", proxy.url)
        assert not features()["put_if_match"]
        fsx.kill()
        fsx.start()
        assert not features()["put_if_match"]

        proxy.rule = None
        fsx.ok("association", "update", made, "--poll", "7")
        assert features()["put_if_match"]


def test_a_store_without_conditions_is_looked_at_right_before(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """A store that takes every condition for granted: no edit there is overwritten that was there before the look."""
    with Proxy(moto.url) as proxy:
        proxy.rule = lambda request: None if request.method in {"GET", "HEAD"} else Unconditional()
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
        features = fsx.status()["associations"][0]["features"]
        assert not any(features[name] for name in features if "_if_" in name)
        s3.put_object(Bucket=bucket, Key="f.txt", Body=b"before")
        fsx.settle()
        (fsx.directory / "d/g.txt").write_bytes(b"made here")
        s3.put_object(Bucket=bucket, Key="g.txt", Body=b"made there")
        with (fsx.directory / "d/f.txt").open("r+b") as writer:
            writer.write(b"edited")
            s3.put_object(Bucket=bucket, Key="f.txt", Body=b"there")
        fsx.settle()
        found = both(fsx, s3, bucket)
    assert sorted(found.values()) == [b"edited", b"made here", b"made there", b"there"]


LARGE = bytes(9 << 20)


@pytest.mark.parametrize(
    ("act", "edited", "when", "after"),
    [
        (lambda file: file.unlink(), "f.txt", "HEAD asked", [b"edited there"]),
        (lambda file: file.write_bytes(LARGE), "f.txt", "PUT asked", [LARGE, b"edited there"]),
        (lambda file: file.rename(file.with_name("g.txt")), "g.txt", "HEAD answered", [b"before", b"edited there"]),
    ],
    ids=["unlink", "upload in parts", "rename"],
)
def test_what_comes_after_the_decision_is_seen_without_conditions_too(
    fsx: Instance,
    moto: MotoServer,
    s3: Any,
    bucket: str,
    act: Callable[[Path], object],
    edited: str,
    when: str,
    after: list[bytes],
) -> None:
    """The HEAD right before a delete, the end of an upload and a copy finds what was edited there until then: a delete
    is decided on without a HEAD, a copy with one of its own, an upload in parts before its first part is sent."""
    armed, came = Event(), Event()

    def edit(now: str, request: Request) -> None:
        is_it = f"{request.method} {now}" == when and request.path == f"/{bucket}/{edited}"
        if armed.is_set() and is_it and not came.is_set():
            came.set()
            s3.put_object(Bucket=bucket, Key=edited, Body=b"edited there")

    def rule(request: Request) -> Unconditional | None:
        edit("asked", request)
        return None if request.method in {"GET", "HEAD"} else Unconditional()

    with Proxy(moto.url, rule=rule, done=lambda request: edit("answered", request)) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        (fsx.directory / "d/f.txt").write_bytes(b"before")
        fsx.settle()

        armed.set()
        act(fsx.directory / "d/f.txt")
        fsx.settle()

        assert came.is_set()
        found = both(fsx, s3, bucket)
    assert found[edited] == b"edited there"
    assert sorted(found.values()) == after


@pytest.mark.parametrize("released", [False, True], ids=["resident", "released"])
@pytest.mark.parametrize("there", [b"there!", b"longer there"], ids=["as long", "longer"])
@pytest.mark.parametrize("killed", [False, True], ids=["", "killed"])
def test_what_is_put_right_before_its_metadata_are_copied_comes_in(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, there: bytes, *, released: bool, killed: bool
) -> None:
    """A `chmod` copies the object onto itself. Where the store looks at no condition on what is copied, that may be
    what somebody put there a moment before. The daemon may die before it hears of the copy."""
    came, copied, go_on = Event(), Event(), Event()

    def hold(request: Request) -> None:
        if killed and request.copies and request.path == f"/{bucket}/f.txt" and not copied.is_set():
            copied.set()
            go_on.wait(60)

    def rule(request: Request) -> None:
        if request.copies and request.path == f"/{bucket}/f.txt" and not came.is_set():
            s3.put_object(Bucket=bucket, Key="f.txt", Body=there)
            came.set()

    with Proxy(moto.url, rule=rule, done=hold) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        assert not fsx.status()["associations"][0]["features"]["copy_source_if_match"]
        file = fsx.directory / "d/f.txt"
        file.write_bytes(b"before")
        fsx.settle()
        if released:
            fsx.ok("release", file)

        file.chmod(0o640)
        if killed:
            assert copied.wait(60)
            fsx.kill()
            go_on.set()
            fsx.start()
        fsx.settle()

        assert came.is_set()
        assert both(fsx, s3, bucket) == {"f.txt": there}
        assert file.stat().st_mode & 0o777 == 0o640
        assert s3.head_object(Bucket=bucket, Key="f.txt")["Metadata"]["file-permissions"] == "0100640"


def test_a_copy_in_place_with_another_etag_is_known_for_the_same_bytes(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """That of an object in parts has one, as of a whole object: nothing is loaded again for that."""
    with Proxy(moto.url) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
        file = fsx.directory / "d/f.bin"
        file.write_bytes(LARGE)
        fsx.settle()
        before = s3.head_object(Bucket=bucket, Key="f.bin")["ETag"]

        file.chmod(0o640)
        fsx.settle()
        fsx.ok("import", fsx.directory / "d")
        fsx.settle()

        assert s3.head_object(Bucket=bucket, Key="f.bin")["ETag"] != before
        assert fsx.state(file)["state"] == 9  # exists and archived, not released
        assert file.read_bytes() == LARGE
        assert proxy.gets(f"/{bucket}/f.bin") == []
