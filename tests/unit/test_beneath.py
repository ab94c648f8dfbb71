"""Paths below the root: one is refused alone as well as among many."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fsxsync.errors import PathEscapes
from fsxsync.tree.beneath import check_path, check_paths

PIECES = st.sampled_from([b"a", b"/", b".", b"..", b"\n", b"\0", b"b.c", b".d", b"\n.", b"/\n"])
PATHS = st.lists(st.lists(PIECES, max_size=5).map(b"".join), max_size=4)


def refuses(path: bytes) -> bool:
    try:
        check_path(path)
    except PathEscapes:
        return True
    return False


@given(paths=PATHS)
@example(paths=[b"a", b"/b"])
@example(paths=[b"a/..", b"b"])
@example(paths=[b"..", b"b"])
@example(paths=[b"a\0"])
def test_many_are_refused_where_one_of_them_is(paths: list[bytes]) -> None:
    if any(map(refuses, paths)):
        with pytest.raises(PathEscapes):
            check_paths(paths)
    else:
        check_paths(paths)
