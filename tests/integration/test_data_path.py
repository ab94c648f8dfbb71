# ruff: noqa: S603, S607 - unshare, cc, our own programs
"""Where passthrough can't be had all works without it, and `status` says why; who insisted on it is told at once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.instance import PROGRAM, Instance, instance
from support.moto_server import MotoServer
from support.ordinary_user import UID, OrdinaryUser

from fsxsync.mount.passthrough import why_not

TESTS = Path(__file__).parents[1]
CHUNK = 256 * 1024

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs root and /dev/fuse"
)

_LESS = (
    f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
    "from support.capabilities import CAP_SYS_ADMIN, drop; drop(CAP_SYS_ADMIN)\n"
    "from fsxsync.cli.main import main; main()"
)
WITHOUT_SYS_ADMIN = (sys.executable, "-c", _LESS)


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    if shutil.which("fusermount3") is None:
        pytest.skip("needs fusermount3")
    with OrdinaryUser() as user:
        (user.home / "mnt").mkdir()
        os.chown(user.home / "mnt", UID, UID)
        yield user


@pytest.fixture
def theirs(user: OrdinaryUser) -> Iterator[Instance]:
    """The user's instance."""
    environment = {"HOME": str(user.home), "FSXSYNC_CHUNK_SIZE": str(CHUNK)}
    with instance(user.home, program=user.program, **environment) as made:
        yield made


def data_path(made: Instance) -> tuple[str, str]:
    status = made.status()
    return status["data_path"], status["data_path_reason"]


def refused(made: Instance, *options: str) -> str:
    """The one line of a mount that fails."""
    made.directory.mkdir(parents=True, exist_ok=True)
    done = made.run("mount", made.directory, *options)
    assert done.code == 1
    assert done.out == ""
    line: str = done.err.splitlines()[-1]
    return line


# ---------------------------------------------------------------- an ordinary user


def test_an_ordinary_user_mounts_reads_writes_exports_and_unmounts(
    user: OrdinaryUser, theirs: Instance, moto: MotoServer, s3: Any, bucket: str
) -> None:
    large = os.urandom(5 * CHUNK)
    s3.put_object(Bucket=bucket, Key="there/small", Body=b"made over there")
    s3.put_object(Bucket=bucket, Key="there/large", Body=large)
    assert data_path(theirs) == ("fuse", "no passthrough: it needs CAP_SYS_ADMIN")
    theirs.associate(moto, f"s3://{bucket}/", "/d", "--poll", "1")
    theirs.settle()
    d = theirs.directory / "d"
    user.python(
        "import hashlib, mmap\n"
        "d, digest = sys.argv[1:]\n"
        "assert open(d + '/there/small').read() == 'made over there'\n"
        "assert hashlib.sha256(open(d + '/there/large', 'rb').read()).hexdigest() == digest\n"
        "os.makedirs(d + '/here/sub')\n"
        "open(d + '/here/sub/f', 'wb').write(b'x' * 3_000_000)\n"
        "open(d + '/here/sub/f', 'ab').write(b'tail')\n"
        "os.rename(d + '/there/small', d + '/there/moved')\n"
        "os.symlink('moved', d + '/there/link')\n"
        "os.setxattr(d + '/here/sub/f', 'user.note', b'kept')\n"
        "os.chmod(d + '/here/sub/f', 0o640)\n"
        "with open(d + '/there/large', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped:\n"
        "    mapped[:6] = b'mapped'\n"
        "os.truncate(d + '/there/large', 100)\n",
        d,
        sha256(large),
    )
    theirs.settle()

    assert s3.get_object(Bucket=bucket, Key="here/sub/f")["Body"].read() == b"x" * 3_000_000 + b"tail"
    assert s3.get_object(Bucket=bucket, Key="there/large")["Body"].read() == (b"mapped" + large[6:])[:100]
    assert s3.get_object(Bucket=bucket, Key="there/moved")["Body"].read() == b"made over there"
    told = s3.head_object(Bucket=bucket, Key="here/sub/f")["Metadata"]
    assert (told["file-owner"], told["file-permissions"]) == (str(UID), "0100640")
    theirs.ok("unmount", theirs.directory)
    assert theirs.until_ended() == 0
    assert user.mounts() == 0


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_an_ordinary_users_killed_daemon_is_started_anew_on_its_mount_point(
    user: OrdinaryUser, theirs: Instance
) -> None:
    user.python("open(sys.argv[1] + '/f', 'w').write('kept')", theirs.directory)
    theirs.kill()
    assert "not connected" in user.run("ls", theirs.directory).err

    theirs.start()

    assert user.python("print(open(sys.argv[1] + '/f').read())", theirs.directory) == "kept\n"
    assert user.mounts() == 1
    theirs.kill()
    assert "cleared away" in theirs.ok("unmount", theirs.directory).err
    assert user.mounts() == 0


def test_an_ordinary_users_daemon_ends_by_signal_while_files_are_open(user: OrdinaryUser, theirs: Instance) -> None:
    holder = subprocess.Popen(
        [*user.prefix, "sh", "-c", 'exec 3>"$1/f"; echo open; read _', "-", theirs.directory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"

    assert theirs.stop() == 0

    assert user.mounts() == 0
    holder.communicate("\n", timeout=20)


def test_an_ordinary_user_who_insists_is_told(user: OrdinaryUser) -> None:
    theirs = Instance(user.home, program=user.program, env={"HOME": str(user.home)})
    assert refused(theirs, "-o", "passthrough=on").startswith("fsxsync: passthrough=on: it needs CAP_SYS_ADMIN; ")
    assert "user_allow_other" in refused(theirs, "--allow-other")
    assert user.mounts() == 0


def test_root_of_a_user_namespace_is_served_without(user: OrdinaryUser) -> None:
    """A rootless container: all of root's capabilities, and none that counts for passthrough."""
    holder = subprocess.Popen(
        [*user.prefix, "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo ready; read _"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != "ready\n":
            pytest.skip("no user namespaces here")
        inside = ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--setuid=0", "--setgid=0", "--"]
        with instance(user.home, program=[*inside, *PROGRAM], HOME=str(user.home)) as made:
            assert data_path(made) == ("fuse", "no passthrough: it needs CAP_SYS_ADMIN")
            code = "f = sys.argv[1] + '/f'; open(f, 'w').write('works'); print(open(f).read())"
            assert user.python(code, made.directory, prefix=inside) == "works\n"
            assert made.stop() == 0
    finally:
        holder.communicate("\n")


# ---------------------------------------------------------------- root, and yet not


def test_root_without_its_capability_is_served_without(tmp_path: Path, moto: MotoServer, s3: Any, bucket: str) -> None:
    with instance(tmp_path, program=WITHOUT_SYS_ADMIN) as made:
        assert data_path(made) == ("fuse", "no passthrough: it needs CAP_SYS_ADMIN")
        made.associate(moto, f"s3://{bucket}/", "/d")
        (made.directory / "d/f").write_bytes(b"works")
        made.settle()
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"works"
        made.ok("unmount", made.directory)
        assert made.until_ended() == 0
        assert not os.path.ismount(made.directory)

        line = refused(made, "-o", "passthrough=on")
        assert line.startswith("fsxsync: passthrough=on: it needs CAP_SYS_ADMIN; mount with -o passthrough=auto")


def test_who_may_not_mount_at_all_is_told(tmp_path: Path) -> None:
    nothing = ["setpriv", "--bounding-set=-sys_admin", "--", *PROGRAM]
    made = Instance(tmp_path, program=nothing)
    assert refused(made).startswith(f"fsxsync: mounting at {made.directory}: ")
    assert "it needs CAP_SYS_ADMIN" in refused(made, "-o", "passthrough=on")
    assert not os.path.ismount(made.directory)


# ---------------------------------------------------------------- an older kernel


@pytest.fixture(scope="session")
def older_kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What makes /dev/fuse look like one before Linux 6.9, to be preloaded."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    made = tmp_path_factory.mktemp("kernel") / "kernel_before_6_9.so"
    source = TESTS / "c/kernel_before_6_9.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", made, source], check=True)
    return made


def test_an_older_kernel_serves_without(
    tmp_path: Path, older_kernel: Path, moto: MotoServer, s3: Any, bucket: str
) -> None:
    with instance(tmp_path, program=PROGRAM, LD_PRELOAD=str(older_kernel)) as made:
        path, why = data_path(made)
        assert path == "fuse"
        assert why.startswith("no passthrough: the kernel can't: it needs Linux 6.9 or later")
        made.associate(moto, f"s3://{bucket}/", "/d")
        (made.directory / "d/f").write_bytes(b"works")
        assert (made.directory / "d/f").read_bytes() == b"works"
        made.settle()
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"works"
        assert made.stop() == 0

        assert "Linux 6.9" in refused(made, "-o", "passthrough=on")


# ---------------------------------------------------------------- where it can be had


def test_it_is_had_without_asking(tmp_path: Path) -> None:
    if why_not(Path(tempfile.gettempdir())):
        pytest.skip("no passthrough here")
    with instance(tmp_path) as made:
        assert data_path(made) == ("passthrough", "")
