"""Links between directories and prefixes: made, refused, misconfigured and mended, changed, and taken away."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from support.instance import Instance, eventually, instance, keys_of
from support.moto_server import OBEYED, MotoServer
from support.proxy import Proxy, is_listing, refusal


@pytest.fixture(scope="module")
def other_moto() -> Iterator[MotoServer]:
    """A second store."""
    with MotoServer() as server:
        yield server


def put(s3: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=b"data of " + key.encode())


def bodies(s3: Any, bucket: str) -> dict[str, bytes]:
    """The whole bucket."""
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket)}


def rows(made: Instance) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in made.ok("associations", "--json").json}


def becomes(made: Instance, path: str, state: str) -> None:
    eventually(lambda: rows(made)[path]["state"] == state, 60)


# ---------------------------------------------------------------- many, and what may not be


def test_what_a_bucket_obeys_is_found_out_once_and_as_other_tests_have_it(
    fsx: Instance, moto: MotoServer, proxy: Proxy, bucket: str
) -> None:
    for number in range(2):
        fsx.ok("associate", f"s3://{bucket}/{number}/", f"/{number}", "--endpoint-url", proxy.url)
        fsx.settle()

    probed = {request.path.split("/")[2] for request in proxy.requests if "fsxsync-probe" in request.path}
    assert probed == {"0"}
    if isinstance(moto, MotoServer):
        with closing(sqlite3.connect(fsx.state_dir / "catalog.db")) as catalog:
            rows = catalog.execute("SELECT value FROM facts WHERE name = ?", (f"conditions {proxy.url} {bucket}",))
            assert [json.loads(value) for (value,) in rows] == [asdict(OBEYED)]


def test_any_number_each_with_its_own_store(
    fsx: Instance, moto: MotoServer, other_moto: MotoServer, s3: Any, bucket: str
) -> None:
    theirs = other_moto.client("s3")
    theirs.create_bucket(Bucket=bucket)  # the same name, another store
    for number in range(6):
        put(s3, bucket, f"{number}/here")
        put(theirs, bucket, f"{number}/there")

    ids = [fsx.associate(moto, f"s3://{bucket}/{number}/", f"/one/{number}") for number in range(6)]
    ids += [fsx.associate(other_moto, f"s3://{bucket}/{number}/", f"/other/{number}") for number in range(6)]
    for number in range(6):
        assert (fsx.directory / f"one/{number}/here").read_bytes() == b"data of %d/here" % number
        (fsx.directory / f"other/{number}/made").write_text("made")
    fsx.settle()

    assert len(set(ids)) == 12
    assert {row["id"] for row in rows(fsx).values()} == set(ids)
    assert {row["state"] for row in rows(fsx).values()} == {"AVAILABLE"}
    assert keys_of(s3, bucket) == [f"{number}/here" for number in range(6)]
    assert keys_of(theirs, bucket) == sorted(f"{n}/{name}" for n in range(6) for name in ("made", "there"))
    assert fsx.run("status").code == 0


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("x/", "/a/b"),
        ("x/", "/a"),
        ("x/", "/a/b/c"),
        ("x/", "/"),
        ("p/q/", "/c"),
        ("p/", "/c"),
        ("p/q/r/", "/c"),
        ("", "/c"),
    ],
)
def test_overlap_is_refused_and_nothing_made(
    fsx: Instance, moto: MotoServer, bucket: str, prefix: str, path: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/p/q/", "/a/b")
    before = sorted(fsx.tree.rglob("*"))

    done = fsx.run("associate", f"s3://{bucket}/{prefix}", path, "--endpoint-url", moto.url)

    assert done.code == 2
    assert done.err.startswith("fsxsync: ")
    assert done.err.count("\n") == 1
    assert "overlap" in done.err
    assert sorted(fsx.tree.rglob("*")) == before
    assert list(rows(fsx)) == ["/a/b"]


def test_names_that_only_look_alike_do_not_overlap(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "p/q/f", "p/qq/g")
    fsx.associate(moto, f"s3://{bucket}/p/q", "/a/b")
    fsx.associate(moto, f"s3://{bucket}/p/qq", "/a/bb")
    assert os.listdir(fsx.directory / "a/b") == ["f"]
    assert os.listdir(fsx.directory / "a/bb") == ["g"]


def test_the_root_may_be_associated_alone(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a/b")
    fsx.associate(moto, f"s3://{bucket}/", "/")
    assert (fsx.directory / "a/b").read_bytes() == b"data of a/b"
    (fsx.directory / "new").write_text("new")
    fsx.settle()
    assert bodies(s3, bucket)["new"] == b"new"
    assert fsx.run("associate", f"s3://{bucket}/z/", "/z", "--endpoint-url", moto.url).code == 2


# ---------------------------------------------------------------- life cycle


def test_a_lost_bucket_is_said_and_mended_and_harms_no_other(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    lost = f"b-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=lost)
    fsx.associate(moto, f"s3://{lost}/", "/lost", "--poll", "1")
    fsx.associate(moto, f"s3://{bucket}/", "/kept", "--poll", "1")

    s3.delete_bucket(Bucket=lost)
    becomes(fsx, "/lost", "MISCONFIGURED")
    (fsx.directory / "lost/f").write_text("written meanwhile")
    (fsx.directory / "kept/f").write_text("goes on")
    fsx.settle(fsx.directory / "kept")

    assert bodies(s3, bucket) == {"f": b"goes on"}
    row = rows(fsx)["/lost"]
    assert lost in row["failure"]
    assert "create the bucket" in row["failure"]
    assert row["failure"] in fsx.ok("associations").out
    assert rows(fsx)["/kept"]["state"] == "AVAILABLE"
    status = fsx.run("status")
    assert status.code == 1
    assert row["failure"] in status.out
    assert fsx.run("wait", fsx.directory / "lost", "--timeout", "0.5").code == 1

    s3.create_bucket(Bucket=lost)
    becomes(fsx, "/lost", "AVAILABLE")
    fsx.settle()
    assert bodies(s3, lost) == {"f": b"written meanwhile"}
    assert rows(fsx)["/lost"]["failure"] in {"", None}
    assert fsx.run("status").code == 0


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "ExpiredToken"])
def test_refused_credentials_and_an_update_that_tries_again(
    fsx: Instance, proxy: Proxy, s3: Any, bucket: str, code: str
) -> None:
    put(s3, bucket, *map(str, range(20)))
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")

    proxy.rule = lambda _request: refusal(400 if code == "ExpiredToken" else 403, code)
    becomes(fsx, "/d", "MISCONFIGURED")
    assert rows(fsx)["/d"]["failure"]
    assert len(os.listdir(fsx.directory / "d")) == 20
    assert fsx.run("status").code == 1

    proxy.rule = None
    fsx.ok("association", "update", "/d")
    assert rows(fsx)["/d"]["state"] == "AVAILABLE"
    assert len(os.listdir(fsx.directory / "d")) == 20
    assert (fsx.directory / "d/7").read_bytes() == b"data of 7"


def test_a_store_that_is_down_for_a_while(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "f")
    with Proxy(moto.url) as proxy:
        fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
        port = int(proxy.url.rpartition(":")[2])
    becomes(fsx, "/d", "MISCONFIGURED")
    (fsx.directory / "d/new").write_text("new")
    with pytest.raises(OSError, match=r"No route to host|Input/output error"):
        (fsx.directory / "d/f").read_bytes()

    with Proxy(moto.url, port=port):
        becomes(fsx, "/d", "AVAILABLE")
        fsx.settle()
        assert (fsx.directory / "d/f").read_bytes() == b"data of f"
        assert bodies(s3, bucket)["new"] == b"new"


def test_they_are_there_after_a_restart(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a/f")
    options = ["--import", "new,changed", "--export", "none", "--poll", "7", "--exclude", "*.tmp", "--uid", "77"]
    fsx.associate(moto, f"s3://{bucket}/a/", "/a", *options, "--file-mode", "0600", "--on-conflict", "newest")
    fsx.associate(moto, f"s3://{bucket}/b/", "/b", "--read-only")
    fsx.settle()
    before = {path: fsx.ok("association", "show", path, "--json").json for path in ("/a", "/b")}

    assert fsx.stop() == 0
    fsx.start()

    fsx.settle()
    for path, row in before.items():
        after = fsx.ok("association", "show", path, "--json").json
        kept = {name: value for name, value in row.items() if name not in {"source", "imported", "exported"}}
        assert {name: after[name] for name in kept} == kept
    assert (fsx.directory / "a/f").stat().st_uid == 77
    with pytest.raises(OSError, match="Read-only"):
        (fsx.directory / "b/x").touch()


# ---------------------------------------------------------------- options


def test_a_read_only_association(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "f", "sub/g")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--read-only")
    d = fsx.directory / "d"
    for attempt in (
        lambda: (d / "f").write_text("x"),
        lambda: (d / "f").open("a"),
        (d / "new").touch,
        (d / "dir").mkdir,
        (d / "f").unlink,
        lambda: (d / "f").rename(d / "g"),
        lambda: (d / "f").chmod(0o600),
        lambda: os.utime(d / "f", (1, 1)),
        lambda: os.truncate(d / "f", 0),
        lambda: (d / "l").symlink_to("f"),
        lambda: os.link(d / "f", d / "h"),
        lambda: os.setxattr(d / "f", "user.x", b"1"),
    ):
        with pytest.raises(OSError, match="Read-only"):
            attempt()
    assert (d / "f").read_bytes() == b"data of f"
    fsx.ok("association", "update", "/d", "--no-read-only", "--export", "new,changed,deleted")
    (d / "new").write_text("new")
    fsx.settle()
    assert sorted(bodies(s3, bucket)) == ["f", "new", "sub/g"]


def test_include_and_exclude_hold_both_ways(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a.csv", "a.tmp", "sub/b.csv", "sub/b.tmp", "sub/c.txt")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--include", "*.csv", "--exclude", "x*.csv", "--poll", "1")
    d = fsx.directory / "d"
    assert sorted(str(p.relative_to(d)) for p in d.rglob("*") if p.is_file()) == ["a.csv", "sub/b.csv"]
    before = bodies(s3, bucket)
    for name in ("n.csv", "n.tmp", "xn.csv", "sub/n.csv", "sub/n.txt"):
        (d / name).write_text(name)
    fsx.settle()
    assert {key for key in bodies(s3, bucket) if not key.endswith("/")} == {*before, "n.csv", "sub/n.csv"}
    (d / "n.tmp").unlink()
    (d / "n.csv").unlink()
    fsx.settle()
    assert {key for key in bodies(s3, bucket) if not key.endswith("/")} == {*before, "sub/n.csv"}


def test_owner_and_modes_for_objects_without_metadata(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "sub/f")
    modified_s = s3.head_object(Bucket=bucket, Key="sub/f")["LastModified"].timestamp()
    s3.put_object(Bucket=bucket, Key="own", Body=b"x", Metadata={"file-permissions": "0100604", "file-owner": "9"})
    modes = ["--file-mode", "0640", "--dir-mode", "0750"]
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--uid", "1234", "--gid", "2345", *modes)
    fsx.settle()

    def seen(name: str) -> tuple[int, int, int]:
        status = (fsx.directory / "d" / name).stat()
        return status.st_mode & 0o7777, status.st_uid, status.st_gid

    assert seen("sub/f") == (0o640, 1234, 2345)
    assert (fsx.directory / "d/sub/f").stat().st_mtime == modified_s
    assert seen("sub") == (0o750, 1234, 2345)
    assert seen("") == (0o750, 1234, 2345)
    assert seen("own") == (0o604, 9, 2345)


def test_an_update_takes_effect(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "f", "g")
    identity = fsx.associate(moto, f"s3://{bucket}/", "/d", "--export", "none", "--poll", "1")
    d = fsx.directory / "d"
    (d / "kept").write_text("kept here")
    fsx.settle()
    assert keys_of(s3, bucket) == ["f", "g"]

    fsx.ok("association", "update", identity, "--export", "new,changed,deleted", "--import", "none")
    fsx.settle()
    row = fsx.ok("association", "show", identity, "--json").json
    assert (sorted(row["export"]), row["import"], row["state"]) == (["changed", "deleted", "new"], [], "AVAILABLE")
    assert bodies(s3, bucket)["kept"] == b"kept here"
    put(s3, bucket, "h")
    (d / "f").unlink()
    fsx.settle()
    assert keys_of(s3, bucket) == ["g", "h", "kept"]
    assert sorted(os.listdir(d)) == ["g", "kept"]

    fsx.ok("association", "update", "/d", "--import", "new,changed,deleted")
    fsx.settle()
    assert sorted(os.listdir(d)) == ["g", "h", "kept"]


# ---------------------------------------------------------------- the end of one


def test_delete_refuses_to_give_up_data_and_no_object_goes(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    put(s3, bucket, *(f"{number}" for number in range(12)))
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    (d / "local").write_text("local")
    fsx.settle()
    before = bodies(s3, bucket)

    refused = fsx.run("association", "delete", "/d")
    assert refused.code == 1
    assert "12 released files" in refused.err
    assert "--hydrate" in refused.err
    assert rows(fsx)["/d"]["state"] == "AVAILABLE"

    fsx.ok("association", "delete", "/d", "--hydrate")
    assert rows(fsx) == {}
    assert {path.name: path.read_bytes() for path in d.iterdir()} == before
    for path in d.iterdir():
        path.unlink()
    d.rmdir()
    assert bodies(s3, bucket) == before


def test_delete_with_delete_data(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a", "sub/b")
    fsx.associate(moto, f"s3://{bucket}/", "/x/d")
    (fsx.directory / "x/d/new").write_text("exported first")
    fsx.ok("association", "delete", "/x/d", "--delete-data")
    assert os.listdir(fsx.directory / "x") == []
    assert os.listdir(fsx.tree / "x") == []
    assert bodies(s3, bucket) == {"a": b"data of a", "sub/b": b"data of sub/b", "new": b"exported first"}


def test_delete_with_force_leaves_what_there_is(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "stub", "loaded")
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    assert (d / "loaded").read_bytes() == b"data of loaded"
    fsx.settle()
    fsx.ok("association", "delete", "/d", "--force")
    assert sorted(os.listdir(d)) == ["loaded", "stub"]
    assert (d / "loaded").read_bytes() == b"data of loaded"
    with pytest.raises(OSError, match=r"No such file|Input/output"):
        (d / "stub").read_bytes()  # never zeros
    assert sorted(bodies(s3, bucket)) == ["loaded", "stub"]


def test_delete_waits_for_what_is_pending(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url)
    proxy.rule = lambda request: refusal(403, "InvalidAccessKeyId") if request.method == "PUT" else None
    (fsx.directory / "d/f").write_text("not out yet")
    refused = fsx.run("association", "delete", "/d")
    assert refused.code == 1
    assert "1 changes are not exported yet" in refused.err
    proxy.rule = None
    fsx.ok("association", "update", "/d")
    fsx.ok("association", "delete", "/d")
    assert bodies(s3, bucket) == {"f": b"not out yet"}
    assert (fsx.directory / "d/f").read_text() == "not out yet"


def test_a_second_association_on_the_same_directory_adopts_what_is_equal(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    for number in range(10):
        (fsx.directory / f"d/{number}").write_text(f"data {number}")
    fsx.settle()
    before = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}
    fsx.ok("association", "delete", "/d")
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()
    assert {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)} == before
    assert len(os.listdir(fsx.directory / "d")) == 10


# ---------------------------------------------------------------- no mass accident


def test_an_emptied_bucket_deletes_nothing_unless_accepted(fsx: Instance, proxy: Proxy, s3: Any, bucket: str) -> None:
    put(s3, bucket, *(f"{number:02}" for number in range(15)))
    fsx.ok("associate", f"s3://{bucket}/", "/d", "--endpoint-url", proxy.url, "--poll", "1")
    fsx.settle()
    with proxy.holding(is_listing):  # who saw some of them gone would believe it, and then the rest
        for key in keys_of(s3, bucket):
            s3.delete_object(Bucket=bucket, Key=key)
    becomes(fsx, "/d", "MISCONFIGURED")
    row = rows(fsx)["/d"]
    assert "15 objects were known" in row["failure"]
    assert "--accept-deletes" in row["failure"]
    assert len(os.listdir(fsx.directory / "d")) == 15
    assert fsx.run("status").code == 1

    fsx.ok("association", "update", "/d", "--accept-deletes")
    fsx.settle()
    assert os.listdir(fsx.directory / "d") == []
    assert rows(fsx)["/d"]["state"] == "AVAILABLE"


@pytest.mark.parametrize("mounted", [True, False])
def test_another_directory_in_the_trees_place_is_refused(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str, *, mounted: bool
) -> None:
    """As when the disk that holds it is not mounted."""
    put(s3, bucket, *map(str, range(20)))
    with instance(tmp_path, mounted=mounted) as made:
        made.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
        made.settle()
        assert made.stop() == 0
        made.tree.rename(tmp_path / "elsewhere")
        made.tree.mkdir()

        done = made.run("mount" if mounted else "watch", made.directory, timeout=30)

        assert done.code == 1
        assert done.err.startswith("fsxsync: ")
        assert "nothing was deleted" in done.err
        assert done.err.count("\n") == 1
        assert list(made.tree.iterdir()) == []
        assert len(keys_of(s3, bucket)) == 20
        made.tree.rmdir()
        (tmp_path / "elsewhere").rename(made.tree)
        made.start()
        made.settle()
        assert len(os.listdir(made.directory / "d")) == 20
        assert len(keys_of(s3, bucket)) == 20


@pytest.mark.parametrize("how", ["moved", "mounted over", "unmounted"])
def test_a_root_that_is_replaced_while_it_is_watched_is_said_and_deletes_nothing(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str, how: str
) -> None:
    """No record of inotify tells of the two mounts. What is written there meanwhile is never said to be in sync."""
    put(s3, bucket, *map(str, range(12)))
    with instance(tmp_path, mounted=False, start=False) as made:
        root, other, elsewhere = made.directory, tmp_path / "other", tmp_path / "elsewhere"
        for directory in (root, other):
            directory.mkdir()
        if how == "unmounted":
            subprocess.run(["mount", "--bind", other, root], check=True)  # noqa: S603, S607
        made.start()
        try:
            made.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
            made.settle()
            if how == "moved":
                root.rename(elsewhere)
                root.mkdir()
            elif how == "mounted over":
                subprocess.run(["mount", "--bind", other, root], check=True)  # noqa: S603, S607
            else:
                subprocess.run(["umount", "-l", root], check=True)  # noqa: S603, S607
            (root / "d").mkdir()
            (root / "d/written").write_bytes(b"nobody looks here")

            assert made.run("wait", "--timeout", "1").code == 1
            becomes(made, "/d", "MISCONFIGURED")
            assert "another directory lies there now" in rows(made)["/d"]["failure"]
            assert len(keys_of(s3, bucket)) == 12

            (root / "d/written").unlink()
            (root / "d").rmdir()
            if how == "moved":
                root.rmdir()
                elsewhere.rename(root)
            elif how == "mounted over":
                subprocess.run(["umount", root], check=True)  # noqa: S603, S607
            else:
                subprocess.run(["mount", "--bind", other, root], check=True)  # noqa: S603, S607
            made.ok("association", "update", "/d")
            becomes(made, "/d", "AVAILABLE")
            (root / "d/new").write_bytes(b"seen")
            made.settle()
            assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"seen"
            assert len(keys_of(s3, bucket)) == len(os.listdir(root / "d")) == 13
        finally:
            subprocess.run(["umount", "-l", "-q", root], check=False)  # noqa: S603, S607


@pytest.mark.parametrize("after", ["another", "none"])
def test_another_directory_in_an_associations_place_deletes_no_object(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, tmp_path: Path, after: str
) -> None:
    put(s3, bucket, *map(str, range(20)))
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    assert fsx.stop() == 0
    (fsx.tree / "d").rename(tmp_path / "elsewhere")
    if after == "another":
        (fsx.tree / "d").mkdir()
    fsx.start()
    becomes(fsx, "/d", "MISCONFIGURED")
    assert "association's directory" in rows(fsx)["/d"]["failure"]
    assert len(keys_of(s3, bucket)) == 20
    if after == "another":
        (fsx.tree / "d").rmdir()
    (tmp_path / "elsewhere").rename(fsx.tree / "d")
    fsx.ok("association", "update", "/d")
    fsx.settle()
    assert len(os.listdir(fsx.directory / "d")) == 20
    assert len(keys_of(s3, bucket)) == 20


def test_an_associations_directory_that_vanishes_behind_the_mount_deletes_no_object(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, tmp_path: Path
) -> None:
    put(s3, bucket, *map(str, range(20)))
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    (fsx.tree / "d").rename(tmp_path / "elsewhere")
    becomes(fsx, "/d", "MISCONFIGURED")
    assert len(keys_of(s3, bucket)) == 20
    (tmp_path / "elsewhere").rename(fsx.tree / "d")
    becomes(fsx, "/d", "AVAILABLE")
    fsx.settle()
    assert len(keys_of(s3, bucket)) == 20
    assert len(os.listdir(fsx.directory / "d")) == 20


# ---------------------------------------------------------------- borders


def test_renames_across_associations_are_moves(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    put(s3, bucket, "a/stub")
    fsx.associate(moto, f"s3://{bucket}/a/", "/a")
    fsx.associate(moto, f"s3://{bucket}/b/", "/b")
    (fsx.directory / "outside").mkdir()
    for source, target in (("a/stub", "b/stub"), ("a/stub", "outside/stub")):
        with pytest.raises(OSError, match="cross-device") as caught:
            (fsx.directory / source).rename(fsx.directory / target)
        assert caught.value.errno == errno.EXDEV
    subprocess.run(["mv", fsx.directory / "a/stub", fsx.directory / "b/moved"], check=True)  # noqa: S603, S607
    fsx.settle()
    assert bodies(s3, bucket) == {"b/moved": b"data of a/stub"}
    assert not (fsx.directory / "a/stub").exists()


def test_an_associations_directory_can_neither_go_nor_move(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    fsx.associate(moto, f"s3://{bucket}/", "/x/d")
    for path in ("x/d", "x"):
        for attempt in (
            lambda path=path: (fsx.directory / path).rmdir(),
            lambda path=path: (fsx.directory / path).rename(fsx.directory / "y"),
        ):
            with pytest.raises(OSError, match="busy"):
                attempt()
    with pytest.raises(OSError, match="busy"):
        shutil.rmtree(fsx.directory / "x")
    assert (fsx.directory / "x/d").is_dir()
    assert rows(fsx)["/x/d"]["state"] == "AVAILABLE"
