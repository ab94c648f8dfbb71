"""What users may do who neither are root nor run the daemon: release and restore what they own, and nothing else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from support.instance import PROGRAM, Done, Instance, instance
from support.moto_server import MotoServer
from support.ordinary_user import UID, OrdinaryUser

from fsxsync.control.listening import listen_public
from fsxsync.model.stub import XATTR

OTHER = 61_235


@pytest.fixture
def user() -> Iterator[OrdinaryUser]:
    with OrdinaryUser() as made:
        yield made


def ask(user: OrdinaryUser, made: Instance, *arguments: str) -> Done:
    return user.run(*PROGRAM, "--state-dir", made.state_dir, *arguments)


def test_users_of_a_shared_mount_release_and_restore_what_they_own(
    user: OrdinaryUser, moto: MotoServer, bucket: str
) -> None:
    base = user.home / "service"
    base.mkdir()
    with instance(base, program=[*user.inside, *PROGRAM], options=["--allow-other"]) as made:
        made.associate(moto, f"s3://{bucket}/", "/d", "--poll", "0")
        d = made.directory / "d"
        user.python(
            'for n in ("mine", "theirs", "hidden/f"):\n'
            '    os.makedirs(os.path.dirname(f"{sys.argv[1]}/{n}"), exist_ok=True)\n'
            '    open(f"{sys.argv[1]}/{n}", "w").write(n)\n'
            'os.chown(f"{sys.argv[1]}/mine", int(sys.argv[2]), -1)\n'
            'os.chown(f"{sys.argv[1]}/theirs", int(sys.argv[3]), -1)\n'
            'os.chmod(f"{sys.argv[1]}/hidden", 0o700)\n',
            d, str(UID), str(OTHER), prefix=user.inside,
        )  # fmt: skip
        made.settle()

        def stubs() -> list[str]:
            names = ("mine", "theirs", "hidden/f")
            return [name for name in names if XATTR.decode() in os.listxattr(made.tree / "d" / name)]

        done = ask(user, made, "release", "--json", str(d))
        assert done.code == 0, done.err
        assert stubs() == ["mine"]
        assert [done.json["total"], done.json["succeeded"]] == [1, 1]  # nothing tells of the others
        assert ask(user, made, "restore", str(d / "mine")).code == 0
        assert stubs() == []
        assert user.python("print(open(sys.argv[1]).read())", d / "mine") == "mine\n"

        for name in ("theirs", "hidden/f", "hidden/nothing"):
            refused = ask(user, made, "release", str(d / name))
            assert (refused.code, "you own no such file" in refused.err) == (2, True)
        for arguments in (
            ["status"],
            ["state", str(d / "mine")],
            ["tasks"],
            ["export", str(d / "mine")],
            ["release", "--report", f"s3://{bucket}/r", str(d / "mine")],
            ["association", "delete", "/d", "--force"],
            ["unmount"],
        ):
            refused = ask(user, made, *arguments)
            assert (refused.code, "neither root nor the user who runs the daemon" in refused.err) == (1, True), refused
        for arguments in (["state", str(d / "mine")], ["why", str(d / "mine")], ["wait", str(d)], ["diff"], ["check"]):
            refused = ask(user, made, *arguments)
            assert refused.err.startswith(f"fsxsync: {arguments[0].capitalize()} is refused: you are neither"), refused
        assert stubs() == []
        assert os.stat(made.state_dir).st_mode & 0o777 == 0o700


def test_no_other_user_is_served_where_the_mount_is_not_shared(user: OrdinaryUser) -> None:
    base = user.home / "service"
    base.mkdir()
    with instance(base, program=[*user.inside, *PROGRAM]) as made:
        refused = ask(user, made, "release", str(made.directory))
        assert (refused.code, "its socket belongs to somebody else" in refused.err) == (3, True)

        # Nor is somebody believed who has taken the name by which others ask.
        user_id = os.geteuid()
        os.seteuid(OTHER)
        try:
            impostor: socket.socket = listen_public(made.state_dir)
        finally:
            os.seteuid(user_id)
        with impostor:
            refused = ask(user, made, "release", str(made.directory))
            assert (refused.code, "its socket belongs to somebody else" in refused.err) == (3, True)
