"""Extended attributes as one value of user metadata: what is written is read back, and nothing else gets through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_world import Version, base_of, local_of, remote_of

from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.metadata import again_user_metadata, fits, from_user_metadata, to_user_metadata
from fsxsync.model.xattrs import decode_xattrs, encode_xattrs, travels
from fsxsync.sync.reconcile import Verdict, reconcile
from fsxsync.tree.moments import Moments
from fsxsync.tree.xattrs import read_xattrs, write_xattrs

NAMES = st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name).map(lambda name: b"user." + name)
XATTRS = st.dictionaries(NAMES.filter(travels), st.binary(max_size=40), max_size=5)


@given(XATTRS)
def test_what_is_written_is_read_back_and_is_a_header(xattrs: dict[bytes, bytes]) -> None:
    text = encode_xattrs(xattrs)

    assert decode_xattrs(text) == xattrs
    assert text.isascii()
    assert text.isprintable()
    assert text == text.strip()
    assert from_user_metadata({"Fsxsync-Xattrs": text}, key="f")[1].xattrs == text


@given(st.text(max_size=60))
def test_nothing_that_an_object_says_raises_or_sets_what_it_must_not(text: str) -> None:
    found = decode_xattrs(text)

    assert found is None or all(travels(name) for name in found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {}),
        ("a=", {b"user.a": b""}),
        ("a=MQ==,b=Mg==", {b"user.a": b"1", b"user.b": b"2"}),
        ("a=MQ==,a=Mg==", {b"user.a": b"2"}),
        ("fsxsync.stub=MQ==,fsxsync.=,a=", {b"user.a": b""}),
        ("%66sxsync.stub=MQ==", {}),
        ("=MQ==", {}),
        ("%00=MQ==", {}),
        ("n" * 251 + "=MQ==", {}),
        ("a", None),
        ("a=1", None),
        ("a=MQ==,", None),
        ("a=MQ==;b=Mg==", None),
        ("a=" + "A" * 2048, None),
    ],
)
def test_values(text: str, wanted: dict[bytes, bytes] | None) -> None:
    assert decode_xattrs(text) == wanted


@pytest.mark.parametrize(
    "name", [b"user.fsxsync.stub", b"user.fsxsync.", b"user.", b"trusted.a", b"security.capability", b"system.a", b"a"]
)
def test_other_attributes_do_not_travel(name: bytes) -> None:
    assert not travels(name)
    assert encode_xattrs({name: b"1"}) == ""


def test_a_change_of_metadata_replaces_them_only_if_it_says_something_of_them() -> None:
    before = {"project": "x", "Fsxsync-Xattrs": "a=MQ==", "file-owner": "1"}

    assert again_user_metadata(before, Kind.FILE, Posix())["Fsxsync-Xattrs"] == "a=MQ=="
    for said, wanted in (("", {}), ("b=Mg==", {"fsxsync-xattrs": "b=Mg=="})):
        after = again_user_metadata(before, Kind.FILE, Posix(xattrs=said))
        assert after == {"project": "x", "user-agent": "aws-fsx-lustre"} | wanted


@given(st.integers(0, 2048), st.integers(0, 2048))
def test_all_that_is_written_fits_and_the_foreign_part_stays_whole(foreign: int, own: int) -> None:
    before = {"project": "x" * foreign}
    text = encode_xattrs({b"user.a": b"x" * own})

    after = again_user_metadata(before, Kind.FILE, Posix(0o644, 1, 2, 3, 4, text))

    assert after["project"] == before["project"]
    without = to_user_metadata(Kind.FILE, Posix(0o644, 1, 2, 3, 4)) | before
    assert fits(after) or after == without
    assert ("fsxsync-xattrs" in after) == fits(without | {"fsxsync-xattrs": text})


# ---------------------------------------------------------------- reconcile

ONE = Version(1, 0o644)


def sides(base: str | None, local: str | None, remote: str | None) -> tuple[Base, Local, Remote]:
    row, here, there = base_of(ONE, released=False), local_of(ONE, base=ONE, is_stub=False), remote_of(ONE)
    assert row is not None
    assert here is not None
    assert there is not None
    return (
        row._replace(posix=row.posix._replace(xattrs=base)),
        here._replace(xattrs=local),
        # Not written once more with the same: that alone would be a reason to write the row.
        there._replace(posix=there.posix._replace(xattrs=remote), last_modified_ns=row.last_modified_ns),
    )


@pytest.mark.parametrize(
    ("base", "local", "remote", "verdict"),
    [
        (None, None, None, Verdict.NOTHING),  # they do not travel
        (None, "", None, Verdict.NOTHING),
        ("a=MQ==", "a=MQ==", "a=MQ==", Verdict.NOTHING),
        (None, "a=MQ==", None, Verdict.EXPORT_META),
        ("a=MQ==", "", "a=MQ==", Verdict.EXPORT_META),
        (None, "", "a=MQ==", Verdict.IMPORT_META),
        ("a=MQ==", "a=MQ==", None, Verdict.IMPORT_META),
        ("a=MQ==", "a=Mg==", "a=Mg==", Verdict.REFRESH),
    ],
)
def test_an_attribute_alone_is_a_change(
    base: str | None, local: str | None, remote: str | None, verdict: Verdict
) -> None:
    assert reconcile(*sides(base, local, remote), Policy()).verdict is verdict


@pytest.mark.parametrize(("choice", "wanted"), [(OnConflict.LOCAL, "a=Mg=="), (OnConflict.REMOTE, "a=Mw==")])
def test_attributes_that_both_sides_changed_are_the_policys(choice: OnConflict, wanted: str) -> None:
    action = reconcile(*sides("a=MQ==", "a=Mg==", "a=Mw=="), Policy(on_conflict=choice))

    assert action.posix is not None
    assert action.posix.xattrs == wanted


# ---------------------------------------------------------------- the tree


def test_a_file_gets_exactly_those_and_keeps_ours(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.touch()
    for name in ("user.old", "user.same", "user.fsxsync.stub"):
        os.setxattr(file, name, b"1")
    file.chmod(0o400)
    fd, notes = os.open(file, os.O_PATH), os.open(tmp_path, os.O_PATH)
    moments = Moments(notes, tmp_path.stat().st_dev)
    try:
        assert read_xattrs(fd) == {b"user.old": b"1", b"user.same": b"1"}

        assert write_xattrs(fd, {b"user.same": b"1", b"user.new": b"2", b"user.fsxsync.x": b"3"}, moments)

        assert read_xattrs(fd) == {b"user.same": b"1", b"user.new": b"2"}
        assert os.getxattr(file, "user.fsxsync.stub") == b"1"
        assert file.stat().st_mode & 0o777 == 0o400
        assert not write_xattrs(fd, {b"user.large": b"x" * 65537, b"user.new": b"2"}, moments)  # over XATTR_SIZE_MAX
        assert read_xattrs(fd) == {b"user.new": b"2"}
    finally:
        os.close(fd)
        os.close(notes)
