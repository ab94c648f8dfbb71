"""POSIX metadata on objects: FSx's format written, all dialects read, nonsense ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.model.identity import Kind, Posix
from fsxsync.model.metadata import from_user_metadata, guess_content_type, is_ours, to_user_metadata

FULL = Posix(mode=0o644, uid=1000, gid=100, mtime_ns=1595002920123456789, atime_ns=1595002920000000000)


def test_a_file_is_written_exactly_as_fsx_writes_it() -> None:
    assert to_user_metadata(Kind.FILE, FULL) == {
        "file-permissions": "0100644",
        "file-owner": "1000",
        "file-group": "100",
        "file-atime": "1595002920000000000ns",
        "file-mtime": "1595002920123456789ns",
        "user-agent": "aws-fsx-lustre",
    }


@pytest.mark.parametrize(
    ("kind", "mode", "written"),
    [
        (Kind.DIRECTORY, 0o755, "0040755"),
        (Kind.DIRECTORY, 0o3777, "0043777"),
        (Kind.SYMLINK, 0o777, "0120777"),
        (Kind.SYMLINK, None, "0120777"),
        (Kind.FILE, 0o4755, "0104755"),
        (Kind.FILE, 0, "0100000"),
    ],
)
def test_permissions_have_seven_digits_with_the_type(kind: Kind, mode: int | None, written: str) -> None:
    assert to_user_metadata(kind, Posix(mode=mode))["file-permissions"] == written


TIMES = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
IDS = st.none() | st.integers(0, 2**32 - 2)


@given(
    st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK]),
    st.builds(Posix, mode=st.integers(0, 0o1777), uid=IDS, gid=IDS, mtime_ns=TIMES, atime_ns=TIMES, xattrs=st.none()),
)
def test_what_is_written_is_read_back(kind: Kind, posix: Posix) -> None:
    key = "d/" if kind is Kind.DIRECTORY else "f"

    assert from_user_metadata(to_user_metadata(kind, posix), key=key) == (kind, posix)


@pytest.mark.parametrize(
    ("text", "kind", "mode"),
    [
        ("0100644", Kind.FILE, 0o644),
        ("100755", Kind.FILE, 0o755),
        ("0644", Kind.FILE, 0o644),
        ("0", Kind.FILE, 0),
        ("0120777", Kind.SYMLINK, 0o777),
        ("0106755", Kind.FILE, 0o755),
        ("0101777", Kind.FILE, 0o1777),
        ("0040755", Kind.FILE, 0o755),
        ("rw-r--r--", Kind.FILE, None),
        ("0100648", Kind.FILE, None),
        ("7777777", Kind.FILE, None),
        ("-100644", Kind.FILE, None),
        ("", Kind.FILE, None),
        ("٠١٠٠٦٤٤", Kind.FILE, None),
    ],
)
def test_permissions_are_read_in_every_spelling_and_set_id_bits_never(text: str, kind: Kind, mode: int | None) -> None:
    assert from_user_metadata({"file-permissions": text}, key="f") == (kind, Posix(mode=mode))


@pytest.mark.parametrize(("text", "mode"), [("0046775", 0o2775), ("0041777", 0o1777)])
def test_a_directory_may_hand_its_group_down(text: str, mode: int) -> None:
    assert from_user_metadata({"file-permissions": text}, key="d/") == (Kind.DIRECTORY, Posix(mode=mode))


@pytest.mark.parametrize("text", ["0100664", "0040664", "0120664", "0664"])
def test_a_key_with_a_slash_at_its_end_is_a_directory_whatever_the_type_bits(text: str) -> None:
    assert from_user_metadata({"file-permissions": text}, key="d/") == (Kind.DIRECTORY, Posix(mode=0o664))


@pytest.mark.parametrize(
    ("meta", "mtime_ns"),
    [
        ({"file-mtime": "1595002920000000001ns"}, 1595002920000000001),
        ({"file-mtime": "1595002920001"}, 1595002920001000000),
        ({"File-Mtime": " 5ns "}, 5),
        ({"file-mtime": "-5ns"}, -5),
        ({"file-mtime": "9223372036854775808ns"}, None),
        ({"file-mtime": "9" * 5000}, None),
        ({"file-mtime": "1e9"}, None),
        ({"file-mtime": "yesterday"}, None),
        ({"mtime": "1595002920.123456789"}, 1595002920123456789),
        ({"mtime": "1595002920"}, 1595002920000000000),
        ({"mtime": "1595002920.1234567891"}, 1595002920123456789),
        ({"mtime": "-1.5"}, -1500000000),
        ({"mtime": "99999999999"}, None),
        ({"mtime": "nan"}, None),
        ({"mtime": "7", "file-mtime": "8ns"}, 8),
        ({"mtime": "7", "file-mtime": "nonsense"}, 7000000000),
    ],
)
def test_times_are_read_to_the_nanosecond_in_every_dialect(meta: dict[str, str], mtime_ns: int | None) -> None:
    assert from_user_metadata(meta, key="f")[1] == Posix(mtime_ns=mtime_ns)


def test_datasync_metadata_is_read() -> None:
    meta = {
        "file-permissions": "0755",
        "file-owner": "65534",
        "file-group": "65534",
        "file-atime": "1595002920000000000ns",
        "file-mtime": "1595002920000000000ns",
        "user-agent": "aws-datasync",
    }

    assert from_user_metadata(meta, key="f") == (
        Kind.FILE,
        Posix(0o755, 65534, 65534, 1595002920000000000, 1595002920000000000),
    )


@pytest.mark.parametrize(
    ("key", "mode", "kind", "wanted"),
    [
        ("f", "33188", Kind.FILE, 0o644),
        ("d/", "16877", Kind.DIRECTORY, 0o755),
        ("l", "41471", Kind.SYMLINK, 0o777),
        ("f", "100640", Kind.FILE, 0o640),
        ("d/", "40755", Kind.DIRECTORY, 0o755),
        ("d/", "41777", Kind.DIRECTORY, 0o1777),
        ("f", "35309", Kind.FILE, 0o755),
        ("f", "12", Kind.FILE, None),
        ("f", "0x81a4", Kind.FILE, None),
    ],
)
def test_s3fs_and_rclone_modes_are_told_apart_by_their_type_bits(
    key: str, mode: str, kind: Kind, wanted: int | None
) -> None:
    meta = {"mode": mode, "uid": "7", "gid": "8"}

    assert from_user_metadata(meta, key=key) == (kind, Posix(mode=wanted, uid=7, gid=8))


@pytest.mark.parametrize("text", ["-1", "4294967295", "99999999999", "root", "1.0", "", "\u0661"])
def test_an_owner_that_is_none_is_ignored_and_the_rest_counts(text: str) -> None:
    meta = {"file-owner": text, "file-group": "5"}

    assert from_user_metadata(meta, key="f")[1] == Posix(gid=5)


@given(st.dictionaries(st.sampled_from([*to_user_metadata(Kind.FILE, FULL), "mode", "uid", "gid", "mtime"]), st.text()))
def test_nothing_that_an_object_says_raises(meta: dict[str, str]) -> None:
    _, posix = from_user_metadata(meta, key="f")

    assert posix.mode is None or not posix.mode & ~0o3777


def test_foreign_metadata_is_told_from_ours() -> None:
    assert all(is_ours(name) for name in to_user_metadata(Kind.FILE, FULL))
    assert is_ours("File-Mtime")
    assert not any(is_ours(name) for name in ["mtime", "project", "file-", "file-acl"])


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (b"a/page.html", "text/html"),
        (b"a.b/photo.JPG", "image/jpeg"),
        (b"data.tar.gz", "application/gzip"),
        (b"table.csv.gz", "application/gzip"),
        (b"archive.tar", "application/x-tar"),
        (b"noext", "application/octet-stream"),
        (b"strange.zzz", "application/octet-stream"),
        (b"data:text/html,x.json", "application/json"),
        (b"\xff\xfe.txt", "text/plain"),
        (b".", "application/octet-stream"),
    ],
)
def test_content_types_are_guessed_from_the_name(path: bytes, wanted: str) -> None:
    assert guess_content_type(path) == wanted


def test_a_directory_and_a_symlink_are_no_text_whatever_their_name() -> None:
    assert guess_content_type(b"d.txt", Kind.DIRECTORY) == "binary/octet-stream"
    assert guess_content_type(b"l.txt", Kind.SYMLINK) == "application/octet-stream"
