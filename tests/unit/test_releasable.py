"""The short way to judge a file against the long one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.release import Use, refuse_release
from fsxsync.sync.releasable import is_plain

LOCAL = Local(Kind.FILE, 7, 3, 1, 2, 0o644, 0, 0)
ROW = Base("dra-1", b"f", Kind.FILE, 7, 3, 1, 2, 0o644, 0, 0, "e", 3, 4)
OTHER = {
    "kind": Kind.SYMLINK,
    "size": 0,
    "mtime_ns": 9,
    "ctime_ns": 9,
    "mode": 0o600,
    "uid": 9,
    "gid": 9,
    "ino": 9,
    "nlink": 2,
}
OTHER_ROW = {**OTHER, "etag": None, "remote_size": 0, "released": True}
del OTHER_ROW["nlink"]


@given(
    local=st.sets(st.sampled_from(sorted(OTHER)), max_size=3),
    row=st.sets(st.sampled_from(sorted(OTHER_ROW)), max_size=3),
)
@example(local=set(), row=set())
@example(local=set(), row={"remote_size"})
@example(local=set(), row={"etag"})
@example(local={"kind"}, row={"kind"})
@example(local={"nlink"}, row=set())
@example(local=set(), row={"released"})
def test_nothing_is_against_the_release_of_a_plain_file(local: set[str], row: set[str]) -> None:
    here = LOCAL._replace(**{name: OTHER[name] for name in local})
    known = ROW._replace(**{name: OTHER_ROW[name] for name in row})
    if is_plain(here, known):
        assert refuse_release(here, (known,), Use()) is None
    assert is_plain(LOCAL, ROW)


def test_what_goes_on_is_against_it() -> None:
    for name in ("is_open", "is_loading", "is_pending", "is_kept"):
        assert refuse_release(LOCAL, (ROW,), replace(Use(), **{name: True})) is not None
