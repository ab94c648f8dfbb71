"""A bucket and a tree whose users mean harm: nothing outside the tree changes, nothing is merged or claimed that is not
so, no name steers a terminal, and no secret is told."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.instance import PROGRAM, Instance, eventually, instance, keys_of
from support.moto_server import MotoServer
from support.proxy import Answer, Proxy, Request, refusal

LONG = "p/" + "/".join(["c" * 255] * 4)  # 1,025 bytes
NAMES = {
    "control \x01\x02\x1b[31mred\x1b]0;title\x07": b"control",
    "line\rfsxsync: forged": b"line",
    "bidi \u202egnp.exe": b"bidi",
    unicodedata.normalize("NFC", "caf\u00e9"): b"composed",
    unicodedata.normalize("NFD", "caf\u00e9"): b"decomposed",
    "\u0430": b"cyrillic",
    "a": b"latin",
    "A": b"capital",
    "\u2024\u2024/up": b"look-alike dots",
    "\uff0fetc": b"look-alike slash",
    "\\..\\x": b"backslashes",
    "%2e%2e%2fx": b"percent",
    "...": b"three dots",
    " ": b"blank",
    "~root": b"tilde",
    "-rf": b"option",
    "$(reboot)`reboot`": b"shell",
    "n" * 255: b"255",
    LONG[2:1024]: b"1,024",
}
REFUSED = ("../up", "/absolute", "x//y", "./x", "x/./y", "x/../../y", "..", "x/..", "n" * 256, "nul\0x")
KINDS = {"fifo": "0010666", "block": "0060666", "character": "0020666", "socket": "0140777"}


def photograph(directory: Path) -> dict[str, tuple[object, ...]]:
    """Names, bytes and metadata of everything below a directory that nobody shall touch."""
    return {
        str(path): (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_mtime_ns)
        + ((path.read_bytes(),) if path.is_file() else ())
        for path in (directory, *sorted(directory.rglob("*")))
    }


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    made = tmp_path / "outside"
    (made / "sub").mkdir(parents=True)
    for name in ("passwd", "sub/f"):
        (made / name).write_text("theirs")
    return made


def says_nothing_raw(made: Instance, *arguments: str | Path) -> str:
    """What a command prints, on both channels; none of it steers a terminal."""
    done = made.run(*arguments)
    said = done.out + done.err
    steering = [c for c in said if c != "\n" and (unicodedata.category(c) in {"Cc", "Cs"} or c == "\u202e")]
    assert steering == [], said
    return said


def lay_out(s3: Any, bucket: str, outside: Path) -> None:
    """A prefix full of malice. What is below ``/etc`` is not tried: a test that fails shall harm nobody."""

    def put(name: str, body: bytes, **meta: str) -> None:
        said = {f"file-{word}": value for word, value in meta.items()}
        s3.put_object(Bucket=bucket, Key=f"p/{name}", Body=body, Metadata=said)

    for name, body in NAMES.items():
        put(name, body)
    for name in REFUSED:
        put(name, b"refused")
    for name, kind in KINDS.items():
        put(name, b"x", permissions=kind)
    put("powers", b"x", permissions="0107755", owner="12", group="34")
    put("nobody", b"x", permissions="0100640", owner="4294967295", group="-1", mtime="9" * 19)
    put("etc", b"/etc", permissions="0120777")
    for name, target in (("out", str(outside)), ("up", "../../../outside")):  # the second one from the tree
        put(name, target.encode(), permissions="0120777")
        put(f"{name}/passwd", b"ours", permissions="0100777")


@pytest.mark.needs("flat keys", "control characters")
def test_hostile_keys_and_metadata(fsx: Instance, moto: MotoServer, s3: Any, bucket: str, outside: Path) -> None:
    before = photograph(outside)
    lay_out(s3, bucket, outside)
    d = fsx.directory / "d"
    fsx.associate(moto, f"s3://{bucket}/p/", "/d", "--poll", "1")
    fsx.settle()

    for name, body in NAMES.items():
        assert (d / name).read_bytes() == body, name
    assert len([name for name in os.listdir(d) if unicodedata.normalize("NFC", name) == "caf\u00e9"]) == 2
    events = fsx.ok("events", "--json").json
    told = " ".join(event["message"] for event in events)
    assert [name for name in REFUSED if repr(f"p/{name}") not in told] == []
    for name in KINDS:
        assert stat.S_ISREG((d / name).lstat().st_mode)
    mode = (d / "powers").stat()
    assert (stat.S_IMODE(mode.st_mode) & 0o6000, mode.st_uid, mode.st_gid) == (0, 12, 34)
    assert (d / "nobody").stat().st_uid != 2**32 - 1
    bodies = [(path, path.read_bytes()) for path in d.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path, body in bodies if body == b"refused"] == []
    # The link takes the name or the directory does: it is a clash, and nothing was written through any link.
    assert {Path(row["path"]).name for row in fsx.ok("conflicts", "--json").json} >= {"passwd"}
    assert photograph(outside) == before

    for words in (["state", "-r", d], ["check"], ["events"], ["status"], ["associations"], ["conflicts"],
                  ["association", "show", "/d"], ["state", d / "\x1b[2Jmissing"], ["wait", "\x1b[2J"],
                  ["associate", "s3://b/\x1b[2J", "/\x1b[2J"], ["mount", "/\x1b[2J"], ["\x1b[2J"]):  # fmt: skip
        says_nothing_raw(fsx, *words)
    says_nothing_raw(fsx, "conflicts", "resolve", d / "line\rfsxsync: forged", "--keep", "local")

    # and back: an edit of such a file goes to its own key and no other
    count = len(keys_of(s3, bucket))
    for name in list(NAMES)[:6]:
        (d / name).write_bytes(b"edited " + NAMES[name])
    fsx.settle()
    arrived = [s3.get_object(Bucket=bucket, Key=f"p/{name}")["Body"].read() for name in list(NAMES)[:6]]
    assert arrived == [b"edited " + body for body in list(NAMES.values())[:6]]
    assert len(keys_of(s3, bucket)) == count


def test_names_that_steer_a_terminal_are_escaped_in_conflicts(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    name = "c\x1b[31m\r\u202ef.txt"
    s3.put_object(Bucket=bucket, Key=name, Body=b"first")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
    fsx.settle()
    (fsx.directory / "d" / name).write_bytes(b"ours")
    s3.put_object(Bucket=bucket, Key=name, Body=b"theirs")
    fsx.settle()
    assert "c\\x1b[31m\\x0d\\u202ef" in says_nothing_raw(fsx, "conflicts")
    assert len(fsx.ok("conflicts", "--json").json) == 1
    for words in (["events"], ["status"], ["state", "-r", fsx.directory]):
        says_nothing_raw(fsx, *words)
    assert "kept" in says_nothing_raw(fsx, "conflicts", "resolve", fsx.directory / "d" / name, "--keep", "remote")


def test_no_command_prints_a_name_that_steers_a_terminal(fsx: Instance, moto: MotoServer, s3: Any, bucket: str) -> None:
    """In a directory of such a name, too; what fails and what is pending tells names as well."""
    evil = "e\x1b[31m\r\u202ev\x9b"
    place = "/p\x1b[31m\u202e"  # FSx's paths have no line ends
    s3.put_object(Bucket=bucket, Key=evil, Body=b"first")
    s3.put_object(Bucket=bucket, Key=f"{evil}2", Body=b"gone")
    one = fsx.associate(moto, f"s3://{bucket}/", place, "--poll", "0", "--import", "new")
    fsx.settle()
    d = fsx.directory / place[1:]
    s3.delete_object(Bucket=bucket, Key=f"{evil}2")
    (d / "fifo\x1b[2J").mkdir()
    os.mkfifo(d / "fifo\x1b[2J/\x1bpipe")
    seen = ""
    with (d / f"{evil}3").open("wb") as writer:
        writer.write(b"open")
        writer.flush()
        for words in (
            ["wait", "--timeout", "1"],
            ["why", d / evil],
            ["why", d / f"{evil}2"],
            ["why", d / "fifo\x1b[2J/\x1bpipe"],
            ["state", "-r", d],
            ["state", "--set", "norelease", d / evil],
            ["restore", d],
            ["release", "--dry-run", d],
            ["release", d],
            ["export", "--dry-run", d],
            ["export", d],
            ["import", "--dry-run", d],
            ["reconcile", "--dry-run", d],
            ["diff", d],
            ["tasks"],
            ["check", "--verify"],
            ["check", "--repair", d],
            ["events"],
            ["status"],
            ["top"],
            ["association", "show", place],
            ["association", "update", place, "--poll", "\x1b[2J"],
            ["association", "update", place, "--squash", "\x1b[2J"],
            ["associate", f"s3://{bucket}/{evil}/", f"{place}/below"],
            ["task", "show", "\x1b[2J"],
            ["conflicts", "resolve", d / evil, "--keep", "local"],
        ):
            seen += says_nothing_raw(fsx, *words)
    for task in fsx.ok("tasks", "--json").json:
        seen += says_nothing_raw(fsx, "task", "show", task["id"])
    seen += says_nothing_raw(fsx, "association", "delete", one)
    assert seen.count("e\\x1b[31m\\x0d\\u202ev\\x9b") > 20


@contextmanager
def stopped(made: Instance) -> Iterator[None]:
    """The daemon does nothing meanwhile."""
    assert made.daemon is not None
    made.daemon.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        made.daemon.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("mounted", [True, False], ids=["mount", "watch"])
def test_a_directory_that_became_a_symlink(
    tmp_path: Path, moto: MotoServer, s3: Any, bucket: str, outside: Path, *, mounted: bool
) -> None:
    """Import, metadata, delete, rename, conflict and loading below it: all that is asked for goes nowhere else."""
    for name in ("f", "g", "h", "i"):
        s3.put_object(Bucket=bucket, Key=f"sub/{name}", Body=b"first")
    with instance(tmp_path, mounted=mounted) as fsx:
        fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
        fsx.settle()
        sub = fsx.tree / "d/sub"
        before = photograph(outside)
        with stopped(fsx):  # or it is through with one of these before the next
            (sub / "i").write_bytes(b"edited here")
            (fsx.tree / "d/sub").rename(fsx.tree / "moved")  # out of the association
            (fsx.tree / "d/sub").symlink_to(outside)
            s3.put_object(Bucket=bucket, Key="sub/f", Body=b"edited there")
            s3.delete_object(Bucket=bucket, Key="sub/g")
            s3.copy_object(
                Bucket=bucket,
                Key="sub/h",
                CopySource=f"{bucket}/sub/h",
                MetadataDirective="REPLACE",
                Metadata={"file-permissions": "0100777"},
            )
            s3.put_object(Bucket=bucket, Key="sub/i", Body=b"edited there too")
            s3.put_object(Bucket=bucket, Key="sub/passwd", Body=b"ours")
            s3.put_object(Bucket=bucket, Key="sub/sub/new", Body=b"ours")
        fsx.settle()
        if mounted:
            assert os.readlink(fsx.directory / "d/sub") == str(outside)
        assert photograph(outside) == before

        # What was edited there is still there; what stands in its way is said.
        assert {"sub/f", "sub/i", "sub/passwd", "sub/sub/new"} <= set(keys_of(s3, bucket))
        assert s3.get_object(Bucket=bucket, Key="sub/f")["Body"].read() == b"edited there"
        assert fsx.ok("conflicts", "--json").json
        # The link is exported as what it is, never as what it leads to.
        for key in keys_of(s3, bucket):
            assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() != b"theirs"

        (fsx.tree / "d/sub").unlink()
        fsx.settle()
        assert (fsx.directory / "d/sub/f").read_bytes() == b"edited there"
        assert photograph(outside) == before


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Another process lets two names change places as fast as it can; at the end each is what it was."""
    words = [sys.executable, "-c", _SWAP, str(one), str(other)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout is not None
        assert process.stdout.readline() == b"swapping\n"
        yield
        process.communicate(b"enough\n", timeout=30)
        assert process.returncode == 0


_SWAP = """
import os, select, sys
from fsxsync import _core
one, other = map(os.fsencode, sys.argv[1:])
swaps = 0
while True:
    ends = select.select([0], [], [], 0)[0]
    if ends and swaps % 2 == 0:
        break
    try:
        _core.renameat2(-100, one, -100, other, _core.RENAME_EXCHANGE)
    except FileNotFoundError:  # an import or a delete is at it
        if ends:
            break
        continue
    swaps += 1
    if swaps == 1:
        print("swapping", flush=True)
"""


def use_through(mount: Path, number: int) -> None:
    """What an application does in a directory that it has open, so that it follows no symlink by itself."""
    here = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.listdir(here)
        for name in ("passwd", f"new-{number}"):
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=here)
            os.write(fd, b"ours")
            os.close(fd)
            os.chmod(name, 0o640, dir_fd=here)
            os.utime(name, (1, 1), dir_fd=here)
            os.rename(name, "moved", src_dir_fd=here, dst_dir_fd=here)
            os.link("moved", name, src_dir_fd=here, dst_dir_fd=here)
            os.unlink("moved", dir_fd=here)
        os.mkdir(f"d-{number}", dir_fd=here)
        os.symlink("/etc", f"l-{number}", dir_fd=here)
        os.unlink("f", dir_fd=here)
    finally:
        os.close(here)


def test_a_directory_swapped_for_a_symlink_again_and_again(
    fsx: Instance, moto: MotoServer, s3: Any, bucket: str, outside: Path
) -> None:
    """Behind the mount, while applications and the other user of the bucket change what is in it."""
    names = ("f", "passwd", "sub/f", "new")
    for name in names:
        s3.put_object(Bucket=bucket, Key=f"s/{name}", Body=b"first")
    fsx.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    fsx.settle()
    (fsx.tree / "link").symlink_to(outside)
    before = photograph(outside)
    asked = len(fsx.ok("events", "--json").json)
    with swapping(fsx.tree / "d/s", fsx.tree / "link"):
        for number in range(24):
            with suppress(OSError):
                use_through(fsx.directory / "d/s", number)
            if number % 8 == 0:
                for name in names:
                    mode = {"file-permissions": "0100777"}
                    s3.put_object(Bucket=bucket, Key=f"s/{name}", Body=b"edited %d" % number, Metadata=mode)
                s3.delete_object(Bucket=bucket, Key="s/sub/f")
                fsx.run("wait", "--timeout", "1")
    (fsx.tree / "d/after").write_text("it goes on")
    fsx.settle()
    assert photograph(outside) == before
    assert "after" in keys_of(s3, bucket)
    said = [event["message"] for event in fsx.ok("events", "--json").json[asked:]]
    assert [message for message in said if "bug" in message or "InternalError" in message] == []
    bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys_of(s3, bucket)]
    assert b"theirs" not in bodies


# ---------------------------------------------------------------- secrets

ID, SECRET, TOKEN = "AKIARECOGNISABLE", "recognisable/secret+key", "recognisable-session-token=="
SIGNED = "https://bucket.example/key?X-Amz-Signature=recognisable5ignature&X-Amz-Security-Token=recognisable-token"


def test_no_secret_is_told(tmp_path: Path) -> None:
    """Neither credentials, nor the signed address that a store hands back in its error."""

    denies = False

    def rule(request: Request) -> Answer:
        if request.method == "GET" and "list-type" in request.query and not denies:
            return Answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        text = f"denied: {SIGNED.replace('&', '&amp;')} and AWSSecretAccessKey={SECRET}"
        return refusal(403, "AccessDenied", text)

    secrets = {"AWS_ACCESS_KEY_ID": ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    words = [word.encode() for word in (SECRET, TOKEN, "recognisable5ignature", "recognisable-token")]
    logging = {"FSXSYNC_LOG_LEVEL": "DEBUG"}
    with Proxy(None, rule=rule) as store, instance(tmp_path, program=PROGRAM, **logging, **secrets) as made:
        options = ("--endpoint-url", store.url, "--poll", "1")
        said = [made.run("associate", "s3://bucket/r/", "/r", *options, "--read-only")]
        (made.directory / "f").write_text("x")
        denies = True
        said.append(made.run("associate", "s3://bucket/p/", "/d", *options))
        eventually(lambda: "denied" in made.run("associations").out + made.run("events").out)
        asked = (["associations"], ["status"], ["status", "--json"], ["events"], ["events", "--json"])
        said += [made.run(*arguments) for arguments in asked]
        for row in made.ok("associations", "--json").json:
            said += [made.run("association", word, row["id"]) for word in ("show", "update")]
        assert sum("denied" in one.err + one.out for one in said) > 2, [one.err + one.out for one in said]
        assert made.daemon is not None
        pids = [made.daemon.pid, *children(made.daemon.pid)]
        commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)
        environments = b"".join(Path(f"/proc/{pid}/environ").read_bytes() for pid in pids[1:])
        told = "".join(one.out + one.err for one in said).encode()
        made.stop()
        assert made.log is not None
        made.log.seek(0)
        log = made.log.read()
        files = b"".join(path.read_bytes() for path in made.state_dir.rglob("*") if path.is_file())
    for word in words:
        for place, held in (("commands", told), ("log", log), ("files", files), ("cmdline", commands)):
            assert word not in held, (place, word)
        assert word not in environments, ("environ of children", word)


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # the thread ended meanwhile
            found += map(int, (task / "children").read_text().split())
    return found


# ---------------------------------------------------------------- who may come in


def test_the_state_directory_and_the_socket_are_their_owners(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    with instance(tmp_path) as made:
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in made.state_dir.iterdir()}
        assert stat.S_IMODE(made.state_dir.stat().st_mode) == 0o700
        socket = next(path for path in made.state_dir.iterdir() if stat.S_ISSOCK(path.lstat().st_mode))
        assert modes.pop(socket.name) == 0o600
        assert modes.pop("tree") & 0o022 == 0
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}


def test_names_that_lie_deeper_than_python_calls_itself_end_no_daemon(
    made: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    """A key holds 512 names, a path on the host any number; Python calls itself a thousand times."""
    deep = "d/" * 505 + "f"
    s3.put_object(Bucket=bucket, Key=deep, Body=b"deep")
    made.associate(moto, f"s3://{bucket}/", "/d")
    made.settle()
    assert (made.directory / "d" / deep).stat().st_size == 4
    (made.tree / "d/.fsxsyncignore").write_text("*.tmp\n")
    above = os.open(made.tree / "d", os.O_RDONLY)
    for _ in range(600):
        os.mkdir("e", dir_fd=above)
        below = os.open("e", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=above))
    os.close(above)

    made.settle()

    assert made.is_alive()
    assert made.ok("restore", made.directory / "d" / deep)
    assert (made.directory / "d" / deep).read_bytes() == b"deep"
    assert made.status()["associations"][0]["not_exportable"] == 600 - 1024 // 2 + 1
    assert made.stop() == 0
    made.start()
    made.settle()
    subprocess.run(["rm", "-r", made.directory / "d/e", made.directory / "d/d"], check=True)  # noqa: S603, S607
    made.settle()
    assert keys_of(s3, bucket) == []
