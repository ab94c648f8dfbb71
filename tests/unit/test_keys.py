"""Object keys and paths: each has one counterpart, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsxsync.errors import KeyNotPosix, NotExportable
from fsxsync.model.keys import key_of, path_of

COMPONENTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join)
PREFIXES = st.sampled_from(["", "p/", "deep/er/ü/", "a b+c%2F/"])


@given(PATHS, PREFIXES, st.booleans())
def test_a_path_comes_back_from_its_key(path: str, prefix: str, directory: bool) -> None:
    key = key_of(path.encode(), prefix, directory=directory)

    assert path_of(key, prefix) == (path.encode(), directory)


@given(st.text(alphabet="a./\0é"), PREFIXES)
def test_a_key_comes_back_from_its_path_or_is_refused(rest: str, prefix: str) -> None:
    try:
        path, directory = path_of(prefix + rest, prefix)
    except KeyNotPosix:
        return

    assert key_of(path, prefix, directory=directory) == prefix + rest


def test_the_prefix_itself_is_the_directory() -> None:
    assert path_of("p/", "p/") == (b"", True)
    assert key_of(b"", "p/", directory=True) == "p/"


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("p/a//b", "empty part"),
        ("p//", "empty part"),
        ("p//a", "empty part"),
        ("p/a/b//", "empty part"),
        ("p/.", "the part '.'"),
        ("p/a/../../etc/passwd", "the part '..'"),
        ("p/../", "the part '..'"),
        ("p/a\0b", "NUL"),
        ("p/" + "é" * 128, "longer than 255"),
        ("p/a/" + "x" * 256 + "/b", "longer than 255"),
        ("p/\ud800", "Unicode"),
        ("q/a", "outside"),
        ("p", "outside"),
    ],
)
def test_a_key_that_is_no_path_is_refused_with_the_reason(key: str, why: str) -> None:
    with pytest.raises(KeyNotPosix, match=why) as refused:
        path_of(key, "p/")

    assert refused.value.code == "S3ObjectPathNotPosixCompliant"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["...", ".hidden", "a..b", " ", "\n", "a+b%20c", "x" * 255])
def test_odd_names_are_names(name: str) -> None:
    assert path_of("p/" + name, "p/") == (name.encode(), False)


def test_a_name_that_is_no_utf8_stays_local() -> None:
    with pytest.raises(NotExportable, match="UTF-8") as refused:
        key_of(b"a/\xff\xfe", "p/", directory=False)

    assert refused.value.code == "InternalError"


def test_a_key_has_1024_bytes_and_not_one_more() -> None:
    deep = b"/".join([b"x" * 255] * 4)  # 1023 bytes
    assert len(key_of(deep[1:], "p/", directory=False)) == 1024

    for prefix, directory in [("pp/", False), ("p/", True)]:
        with pytest.raises(NotExportable) as refused:
            key_of(deep[1:], prefix, directory=directory)
        assert refused.value.code == "PathSizeTooLong"
