"""What is wrong is said in one line that helps: what, why, what to do. Nothing is lost by it or left behind."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.instance import PROGRAM, Done, Instance, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, refusal

DRA = "dra-0123456789abcdef0"
NOBODY = 65534


def complains(done: Done, code: int, *words: str) -> None:
    """One line on stderr in our form, and the exit code of CLI.md."""
    assert done.code == code, done.err + done.out
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert re.fullmatch(r"fsxsync: [^:]+.*: .+; .+", lines[0]), done.err
    for word in words:
        assert word in lines[0]
    assert done.out == ""


def is_untouched(made: Instance) -> None:
    """No association, no directory for one, nothing mounted by us but what was."""
    assert made.ok("associations", "--json").json == []
    assert os.listdir(made.tree) == []


def mounts_below(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory}" in line]


def daemons_of(made: Instance) -> list[str]:
    """Processes that have the state directory's lock open."""
    lock = str(made.state_dir / "daemon.lock")
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it went meanwhile, or is not ours to look at
            for number in os.listdir(f"/proc/{process}/fd"):
                with suppress(OSError):
                    link = f"/proc/{process}/fd/{number}"
                    found += [link] if os.readlink(link) == lock else []
    return found


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Instance]:
    """An instance that is not running."""
    with instance(tmp_path, start=False) as made:
        made.directory.mkdir()
        yield made


# ---------------------------------------------------------------- words on the command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--nope", "1"],
        ["--import", "created"],
        ["--import", "none,new"],
        ["--import", ""],
        ["--export", "all"],
        ["--events", "https://sqs/q"],
        ["--events", "sqs:queue"],
        ["--poll", "-1"],
        ["--poll", "soon"],
        ["--on-conflict", "mine"],
        ["--endpoint-url", "localhost:9000"],
        ["--endpoint-url", "https://key:secret@localhost:9000"],
        ["--endpoint-url", "https://localhost:9000/?X-Amz-Signature=x"],
        ["--region", "eu central"],
        ["--acl", "everybody"],
        ["--sse", "rot13"],
        ["--storage-class", "cheap"],
        ["--restore-archived", "now"],
        ["--uid", "root"],
        ["--uid", "-1"],
        ["--gid", "4294967295"],
        ["--file-mode", "rw-r--r--"],
        ["--file-mode", "0999"],
        ["--dir-mode", "75"],
        ["--squash", "65534"],
        ["--squash", "nobody:nogroup"],
        ["--squash", "0:4294967295"],
    ],
    ids=" ".join,
)
def test_associate_refuses_bad_options_before_it_asks_anybody(stopped: Instance, arguments: list[str]) -> None:
    where = ["s3://bucket/p/", "/d"] if arguments else []
    complains(stopped.run("associate", *where, *arguments), 2, "associate --help")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("bucket/p", "/d"),
        ("http://bucket/p", "/d"),
        ("s3:bucket", "/d"),
        ("s3://", "/d"),
        ("s3:///p", "/d"),
        ("s3://b", "/d"),
        ("s3://buck et/p", "/d"),
        ("s3://bucket//p", "/d"),
        ("s3://bucket/p\n", "/d"),
        ("s3://bucket/p", "d"),
        ("s3://bucket/p", ""),
        ("s3://bucket/p", "/a/../b"),
        ("s3://bucket/p", "/a/."),
        ("s3://bucket/p", "/" + "n" * 256),
        ("s3://bucket/p", "/a\nb"),
    ],
)
def test_associate_refuses_what_is_no_uri_and_no_path(stopped: Instance, uri: str, path: str) -> None:
    complains(stopped.run("associate", uri, path), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["mount", "-o", "bogus"],
        ["mount", "-o", "attr_timeout=long"],
        ["mount", "--metrics-listen", "9100"],
        ["mount", "--metrics-listen", "127.0.0.1:99999"],
        ["mount", "--api-listen", "0.0.0.0:0"],
        ["mount", "--config", "/nonexistent.toml"],
        ["mount", "--nope"],
    ],
    ids=" ".join,
)
def test_mount_refuses_bad_options(stopped: Instance, arguments: list[str]) -> None:
    complains(stopped.run(arguments[0], stopped.directory, *arguments[1:], timeout=30), 2)
    assert mounts_below(stopped.base) == []
    assert daemons_of(stopped) == []


@pytest.mark.parametrize(
    "text",
    [
        "export_delay_s = ",
        "no_such_setting = 1",
        "chunk_size = 'much'",
        "transfer_threads = true",
        "allow_other = 7",
        b"\xff",
    ],
)
def test_a_bad_config_file(stopped: Instance, tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "fsxsync.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    complains(stopped.run("mount", stopped.directory, "--config", file, timeout=30), 2, str(file))
    assert not stopped.state_dir.exists()


def test_a_bad_setting_in_the_environment(tmp_path: Path) -> None:
    with instance(tmp_path, start=False, FSXSYNC_PART_SIZE="1") as made:
        made.directory.mkdir()
        complains(made.run("mount", made.directory, timeout=30), 2, "FSXSYNC_PART_SIZE")
        assert not made.state_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["association", "show", "nonsense"], 2),
        (["association", "show", DRA], 1),
        (["association", "delete", "/nothing"], 1),
        (["association", "update", "/nothing"], 1),
        (["associate", "s3://bucket/", "/d", "--poll", "nan"], 2),
        (["wait", "/etc"], 2),
        (["wait", "--timeout", "-1"], 2),
        (["state", "/etc/passwd"], 2),
        (["events", "--level", "LOUD"], 2),
        (["unmount", "/etc"], 2),
        (["nonsense"], 2),
    ],
    ids=str,
)
def test_words_that_name_nothing(fsx: Instance, arguments: list[str], code: int) -> None:
    complains(fsx.run(*arguments, timeout=30), code)


def test_a_file_that_is_not_there_has_no_state(fsx: Instance) -> None:
    done = fsx.run("state", fsx.directory / "missing")
    assert done.code == 1
    assert done.err.startswith("fsxsync: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--anonymous", "--profile", "p"],
        ["--read-only", "--export", "new"],
        ["--profile", "nosuch"],
        ["--include", "/"],
    ],
    ids=" ".join,
)
def test_options_that_only_the_daemon_can_judge(
    fsx: Instance, moto: MotoServer, bucket: str, options: list[str]
) -> None:
    done = fsx.run("associate", f"s3://{bucket}/", "/d", "--endpoint-url", moto.url, *options)
    complains(done, 1 if options == ["--profile", "nosuch"] else 2)
    is_untouched(fsx)


@pytest.mark.parametrize(
    "arguments",
    [
        ["associations"],
        ["associate", "s3://bucket/", "/d"],
        ["association", "delete", "/d"],
        ["status"],
        ["state", "/etc/passwd"],
        ["wait"],
        ["unmount"],
    ],
    ids=" ".join,
)
def test_no_daemon(stopped: Instance, arguments: list[str]) -> None:
    complains(stopped.run(*arguments, timeout=30), 3, "fsxsync mount")
    assert not stopped.state_dir.exists()


# ---------------------------------------------------------------- the repository


def test_a_bucket_that_is_not_there(fsx: Instance, moto: MotoServer, s3: Any) -> None:
    done = fsx.run("associate", "s3://no-such-bucket/p/", "/a/b", "--endpoint-url", moto.url)
    complains(done, 1, "no-such-bucket", "create the bucket")
    is_untouched(fsx)


@pytest.mark.parametrize(
    ("status", "code", "word"),
    [
        (403, "AccessDenied", "s3:ListBucket"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "AWS_ACCESS_KEY_ID"),
        (404, "NoSuchBucket", "create the bucket"),
    ],
)
def test_a_store_that_refuses(fsx: Instance, status: int, code: str, word: str) -> None:
    with Proxy(None, rule=lambda _request: refusal(status, code)) as store:
        done = fsx.run("associate", "s3://bucket/p/", "/a/b", "--endpoint-url", store.url)
    complains(done, 1, word, "s3://bucket/p/")
    is_untouched(fsx)


@pytest.mark.parametrize(
    "answer", [Answer(200, b"<html>hello</html>"), Answer(404, b"not found"), Answer(200), Answer(301), Answer(501)]
)
def test_a_server_that_is_no_store(fsx: Instance, answer: Answer) -> None:
    with Proxy(None, rule=lambda _request: answer) as store:
        done = fsx.run("associate", "s3://bucket/p/", "/a/b", "--endpoint-url", store.url)
    assert done.code == 1, done.err
    assert done.err.startswith("fsxsync: ")
    assert done.err.count("\n") == 1
    is_untouched(fsx)


def test_an_endpoint_where_nobody_listens(fsx: Instance) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        complains(fsx.run("associate", "s3://bucket/p/", "/d", "--endpoint-url", url), 1, url, "--endpoint-url")
    is_untouched(fsx)


def test_no_credentials_at_all(tmp_path: Path, moto: MotoServer, bucket: str) -> None:
    with instance(tmp_path, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="") as made:
        done = made.run("associate", f"s3://{bucket}/", "/d", "--endpoint-url", moto.url)
        complains(done, 1, "credentials", "AWS_ACCESS_KEY_ID")
        is_untouched(made)


def test_a_queue_that_is_not_there(fsx: Instance, moto: MotoServer, bucket: str) -> None:
    queue = f"sqs:{moto.url}/123456789012/no-such-queue"
    done = fsx.run("associate", f"s3://{bucket}/", "/d", "--endpoint-url", moto.url, "--events", queue)
    complains(done, 1, "no-such-queue")
    is_untouched(fsx)


def test_a_path_that_is_a_file(fsx: Instance, moto: MotoServer, bucket: str) -> None:
    (fsx.directory / "f").write_text("mine")
    for path in ("/f", "/f/below"):
        done = fsx.run("associate", f"s3://{bucket}/", path, "--endpoint-url", moto.url)
        complains(done, 2, path)
    assert (fsx.directory / "f").read_text() == "mine"
    assert fsx.ok("associations", "--json").json == []


# ---------------------------------------------------------------- the mount point


@pytest.mark.parametrize("kind", ["missing", "a file", "not empty", "busy", "in the state directory", "around it"])
def test_a_mount_point_that_will_not_do(stopped: Instance, tmp_path: Path, kind: str) -> None:
    point = tmp_path / "point"
    if kind == "a file":
        point.write_text("mine")
    elif kind == "around it":
        point = tmp_path
    elif kind == "in the state directory":
        point = stopped.state_dir / "point"
        point.mkdir(parents=True)
    elif kind != "missing":
        point.mkdir()
    if kind == "not empty":
        (point / "file").write_text("mine")
    if kind == "busy":
        subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)  # noqa: S603, S607
    try:
        for more in ([], ["--daemon"]):
            done = stopped.run("mount", point, *more, timeout=60)
            complains(done, 1, str(point))
            assert daemons_of(stopped) == []
    finally:
        if kind == "busy":
            subprocess.run(["umount", point], check=True)  # noqa: S603, S607
    assert mounts_below(tmp_path) == []
    assert point.exists() == (kind != "missing")
    if kind == "not empty":
        assert (point / "file").read_text() == "mine"


@pytest.mark.parametrize("kind", ["missing", "a file", "in the state directory", "around it"])
def test_a_directory_that_can_not_be_watched(stopped: Instance, tmp_path: Path, kind: str) -> None:
    directory = {
        "in the state directory": stopped.state_dir / "d",
        "around it": tmp_path,
    }.get(kind, tmp_path / "d")
    if kind == "a file":
        directory.write_text("mine")
    elif kind == "in the state directory":
        directory.mkdir(parents=True)
    complains(stopped.run("watch", directory, timeout=60), 2, str(directory))
    assert daemons_of(stopped) == []


def test_a_second_daemon_on_a_state_directory(fsx: Instance, moto: MotoServer, tmp_path: Path) -> None:
    assert fsx.daemon is not None
    (tmp_path / "other").mkdir()
    for point in (tmp_path / "other", fsx.directory):
        for more in ([], ["--daemon"]):
            done = fsx.run("mount", point, *more, timeout=60)
            complains(done, 1, f"pid {fsx.daemon.pid}", "fsxsync unmount")
    (fsx.directory / "f").write_text("still serves")
    assert (fsx.tree / "f").read_text() == "still serves"


def in_own_namespace(made: Instance, script: str, *arguments: str | Path) -> Done:
    """Run a command behind other mounts, which go with it."""
    words = ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh", *PROGRAM, *map(str, arguments)]
    done = subprocess.run(  # noqa: S603
        words, env=made.environment(), capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_without_dev_fuse(stopped: Instance) -> None:
    done = in_own_namespace(stopped, "mount -t tmpfs none /dev", "mount", stopped.directory)
    complains(done, 1, "/dev/fuse", "modprobe fuse")
    assert daemons_of(stopped) == []


def test_a_dev_fuse_that_is_none(stopped: Instance, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    done = in_own_namespace(stopped, f"mount --bind {tmp_path}/empty /dev/fuse", "mount", stopped.directory)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("fsxsync: mounting at ")  # libfuse has said why on a line of its own
    assert daemons_of(stopped) == []


def test_a_file_system_without_extended_attributes(stopped: Instance, tmp_path: Path) -> None:
    (tmp_path / "ram").mkdir()
    for command in ("mount", "watch"):
        done = in_own_namespace(
            stopped,
            f"mount -t ramfs none {tmp_path}/ram; mkdir {tmp_path}/ram/d",
            "--state-dir",
            tmp_path / "ram/state",
            command,
            stopped.directory if command == "mount" else tmp_path / "ram/d",
        )
        complains(done, 1, "ext4")


# ---------------------------------------------------------------- users and rights


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that any user may enter; pytest's own belong to root alone."""
    made = Path(tempfile.mkdtemp(prefix="fsxsync-test-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def as_nobody(made: Instance, *arguments: str | Path) -> Done:
    words = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *PROGRAM, *map(str, arguments)]
    if subprocess.run([*words[:4], sys.executable, "-c", ""], check=False).returncode:  # noqa: S603
        pytest.skip("another user may not run this interpreter")
    environment = made.environment() | {"HOME": "/nonexistent"}
    done = subprocess.run(  # noqa: S603
        words, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_a_state_directory_that_can_not_be_written(open_to_all: Path) -> None:
    with instance(open_to_all, start=False) as made:
        made.directory.mkdir()
        for more in ([], ["--daemon"]):
            complains(as_nobody(made, "mount", made.directory, *more), 2, str(made.state_dir))
        made.state_dir.mkdir(mode=0o755)
        complains(as_nobody(made, "mount", made.directory), 2, str(made.state_dir))
        assert os.listdir(made.state_dir) == []


def test_somebody_elses_daemon(open_to_all: Path) -> None:
    with instance(open_to_all) as made:
        done = as_nobody(made, "status")
        complains(done, 1 if done.code == 1 else 3, str(made.state_dir))
        assert made.ok("status").code == 0


# ---------------------------------------------------------------- the catalog


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(8192))


def text(file: Path) -> None:
    file.write_text("not a database\n" * 500)


def truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def overwritten(file: Path) -> None:
    """The header is fine, the pages are not."""
    with file.open("r+b") as stream:
        stream.seek(4096)
        stream.write(b"\xa5" * (file.stat().st_size - 4096))


def somebody_elses(file: Path) -> None:
    file.unlink()
    database = sqlite3.connect(file)
    database.execute("CREATE TABLE theirs (x)")
    database.commit()
    database.close()


@pytest.mark.parametrize("damage", [garbage, text, truncated, overwritten, somebody_elses])
def test_a_corrupt_catalog_and_its_advice(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, damage: Any) -> None:
    for number in range(8):
        s3.put_object(Bucket=bucket, Key=f"{number}", Body=b"from the bucket %d" % number)
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    d = fsx.directory / "d"
    for number in range(4):
        assert (d / f"{number}").read_bytes() == b"from the bucket %d" % number
        (d / f"own {number}").write_text(f"made here {number}")
    fsx.settle()
    assert fsx.stop() == 0
    before = {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)}
    inodes = {path.name: path.stat().st_ino for path in (fsx.tree / "d").iterdir()}
    catalog = fsx.state_dir / "catalog.db"
    damage(catalog)
    damaged = catalog.read_bytes()

    for more in ([], ["--daemon"]):
        done = fsx.run("mount", fsx.directory, *more, timeout=60)
        complains(done, 1, "catalog", "move catalog.db*")
    assert catalog.read_bytes() == damaged  # it may be worth something to somebody
    assert daemons_of(fsx) == []
    assert mounts_below(fsx.directory) == []

    aside = fsx.base / "aside"
    aside.mkdir()
    for file in fsx.state_dir.glob("catalog.db*"):
        file.rename(aside / file.name)
    fsx.start()
    fsx.associate(moto, f"s3://{bucket}/", "/d")
    fsx.settle()

    assert {key: s3.head_object(Bucket=bucket, Key=key)["LastModified"] for key in keys_of(s3, bucket)} == before
    assert {path.name: path.stat().st_ino for path in (fsx.tree / "d").iterdir()} == inodes
    (row,) = fsx.ok("associations", "--json").json
    assert (row["state"], row["exported"], row["conflicts"], row["pending"]) == ("AVAILABLE", 0, 0, 0)
    flags = {path.name: fsx.state(path)["flags"] for path in d.iterdir()}
    assert {name for name, words in flags.items() if "released" in words} == {"4", "5", "6", "7"}
    assert all({"exists", "archived"} <= set(words) and "dirty" not in words for words in flags.values())
    for number in range(8):
        assert (d / f"{number}").read_bytes() == b"from the bucket %d" % number


def test_hang_ups_leave_no_half_made_things(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """Somebody presses ^C while an association is made: it is made all the same, or not at all."""
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    words: Sequence[str] = [*PROGRAM, "associate", f"s3://{bucket}/", "/d", "--endpoint-url", moto.url]
    client = subprocess.Popen(words, env=fsx.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    client.kill()
    client.wait()
    rows = fsx.ok("associations", "--json").json
    assert (fsx.tree / "d").exists() == bool(rows)
