"""The filters as tables: names, the ignore list, sizes, and ages where content would travel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_world import Version, base_of, local_of, remote_of

from fsxsync.model.association import Association, Limits
from fsxsync.model.identity import Kind
from fsxsync.model.stub import StubMark
from fsxsync.sync.filters import Age, Filters

PLAIN = Association("dra-1", b"d", "bucket", "")
ONE, TWO = Version(1, 0o644), Version(2, 0o644)
S = 10**9
NOW_NS = 1000 * S


def filters(*ignored: str, **fields: object) -> Filters:
    return Filters(replace(PLAIN, **fields), ignored)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "usual", "wanted"),
    [
        ("f", True, True),
        (".f.swp", True, False),
        ("a/.f.swp/b", True, False),
        ("f.swp", True, True),
        ("f~", True, False),
        ("~f", True, True),
        (".nfs000012", True, False),
        (".fuse_hidden0001", True, False),
        (".f.swp", False, True),
        ("f~", False, True),
        (".nfs000012", False, True),
        (".fsxsync-staging", False, False),
        (".fsxsync-staging/new-1", True, False),
        (".fsxsyncignore", False, False),
        ("sub/.fsxsyncignore", False, True),
    ],
)
def test_names_that_are_left_out_by_default(path: str, usual: bool, wanted: bool) -> None:
    assert filters(default_excludes=usual).wants(path.encode(), directory=False) is wanted


@pytest.mark.parametrize(
    ("include", "exclude", "path", "wanted"),
    [
        (("*.csv",), (), "a/b.csv", True),
        (("*.csv",), (), "a/b.txt", False),
        (("a",), (), "x/a/b.txt", True),
        (("a/*",), (), "a/b/c", True),
        (("a/*",), (), "x/a/b", False),
        ((), ("*.tmp",), "a.tmp/b", False),
        ((), ("a/b",), "a/b/c", False),
        ((), ("a/b",), "a/bc", True),
        ((), ("/a/",), "x/a", False),
        (("*.csv",), ("x*",), "x.csv", False),
    ],
)
def test_globs(include: tuple[str, ...], exclude: tuple[str, ...], path: str, wanted: bool) -> None:
    assert filters(include=include, exclude=exclude).wants(path.encode(), directory=False) is wanted


@pytest.mark.parametrize(
    ("path", "directory", "wanted"),
    [
        ("a.log", False, False),
        ("sub/a.log", False, False),
        ("kept.log", False, True),
        ("build", True, False),
        ("build", False, True),
        ("x/build", True, True),
        ("build/x/y", False, False),
        ("build/kept.log", False, False),
        ("deep/cache", True, False),
        ("deep/cache/f", False, False),
        ("#f", False, False),
    ],
)
def test_the_ignore_list_is_read_as_git_reads_its_own(path: str, directory: bool, wanted: bool) -> None:
    made = filters("# comment", "", "*.log", "!kept.log", "/build/", "cache/", "\\#f")

    assert made.wants(path.encode(), directory=directory) is wanted
    assert made.ignored == ("*.log", "!kept.log", "/build/", "cache/", "\\#f")


def test_a_line_that_is_no_pattern() -> None:
    with pytest.raises(ValueError, match="!"):
        filters("!")


NAMES = st.sampled_from([b"a", b"b.log", b"kept.log", b"build", b"f~", b"\xff", b".x.swp", b"#", b" "])
LINES = st.lists(st.sampled_from(["*.log", "!kept.log", "build/", "/a", "a/**", "*", "!a", "#", "\\ "]), max_size=4)


@given(st.lists(NAMES, min_size=1, max_size=4), LINES, st.booleans(), st.booleans())
def test_what_lies_in_a_directory_that_is_left_out_is_left_out(
    parts: list[bytes], lines: list[str], usual: bool, directory: bool
) -> None:
    made = filters(*lines, default_excludes=usual)
    above = b"/".join(parts[:-1])

    if above and not made.wants(above, directory=True):
        assert not made.wants(b"/".join(parts), directory=directory)


@pytest.mark.parametrize(("size", "let_through"), [(9, False), (10, True), (20, True), (21, False)])
def test_a_version_of_another_size_leaves_the_whole_path_out(size: int, let_through: bool) -> None:
    made = filters(limits=Limits(min_size=10, max_size=20))
    base, local, remote = base_of(ONE, released=False), local_of(ONE, base=ONE, is_stub=False), remote_of(ONE)
    assert base is not None
    assert local is not None
    assert remote is not None
    right = (base._replace(size=15), local._replace(size=15), remote._replace(size=15))
    assert not made.leaves_out(*right)

    assert made.leaves_out(base._replace(size=size), *right[1:]) is not let_through
    assert made.leaves_out(right[0], local._replace(size=size), right[2]) is not let_through
    assert made.leaves_out(*right[:2], remote._replace(size=size)) is not let_through
    assert made.keeps(base._replace(size=size)) is let_through
    assert made.lists(False, size) is let_through
    assert made.lists(True, size)
    assert not made.leaves_out(None, local._replace(size=size, kind=Kind.DIRECTORY), None)


def test_a_directory_that_holds_keys_together_is_kept_whatever_its_name() -> None:
    made = filters(include=("*.csv",))
    base = base_of(ONE, released=False)
    assert base is not None

    assert not made.keeps(base._replace(path=b"sub", kind=Kind.DIRECTORY))
    assert made.keeps(base._replace(path=b"sub", kind=Kind.DIRECTORY, etag=None))


@pytest.mark.parametrize(
    ("base", "local", "remote", "until_s"),
    [
        (None, 995, None, 1005),
        (None, None, 995, 1005),
        (None, 995, 990, 1005),
        (ONE, 995, 990, 1005),
        (None, None, None, None),
        (ONE, None, 995, 1005),
        (ONE, None, None, None),
    ],
)
def test_new_content_waits_until_it_is_old_enough(
    base: Version | None, local: int | None, remote: int | None, until_s: int | None
) -> None:
    made = filters(limits=Limits(min_age_ns=10 * S))
    here, there = local_of(TWO, base=ONE, is_stub=False), remote_of(TWO)
    assert here is not None
    assert there is not None
    mine = here._replace(mtime_ns=local * S) if local is not None else None
    theirs = there._replace(last_modified_ns=remote * S) if remote is not None else None

    found = made.young_until_ns(base_of(base, released=False), mine, theirs)

    assert found == (until_s * S if until_s is not None else None)
    assert filters().young_until_ns(base_of(base, released=False), mine, theirs) is None


def test_what_is_in_sync_its_removal_and_its_metadata_wait_for_nothing() -> None:
    made = filters(limits=Limits(min_age_ns=10 * S, max_age_ns=10 * S))
    base = base_of(ONE, released=False)
    same, other_mode = local_of(ONE, base=ONE, is_stub=False), local_of(Version(1, 0o600), base=ONE, is_stub=False)

    for local, remote in [(same, remote_of(ONE)), (None, remote_of(ONE)), (same, None), (other_mode, remote_of(ONE))]:
        assert made.young_until_ns(base, local, remote) is None
        assert not made.is_too_old(base, local, remote, NOW_NS)


def test_a_renamed_released_file_is_never_parted_from_its_object() -> None:
    made = filters(limits=Limits(min_age_ns=10 * S, max_age_ns=10 * S))
    local = local_of(ONE, base=None, is_stub=True)
    assert local is not None
    assert isinstance(local.stub, StubMark)

    for time_ns in (0, NOW_NS):
        assert made.young_until_ns(None, local._replace(mtime_ns=time_ns), None) is None
        assert not made.is_too_old(None, local._replace(mtime_ns=time_ns), None, NOW_NS)


@pytest.mark.parametrize(("time_s", "too_old"), [(989, True), (990, False), (2000, False)])
def test_what_is_old_when_first_seen_stays(time_s: int, too_old: bool) -> None:
    made = filters(limits=Limits(max_age_ns=10 * S))
    local, remote = local_of(ONE, base=None, is_stub=False), remote_of(ONE)
    assert local is not None
    assert remote is not None
    mine, theirs = local._replace(mtime_ns=time_s * S), remote._replace(last_modified_ns=time_s * S)

    assert made.is_too_old(None, mine, None, NOW_NS) is too_old
    assert made.is_too_old(None, None, theirs, NOW_NS) is too_old
    assert not made.is_too_old(base_of(ONE, released=False), mine, theirs, NOW_NS)
    assert not made.is_too_old(None, mine._replace(kind=Kind.DIRECTORY), None, NOW_NS)
    assert (made.age_of_new(time_s * S, NOW_NS) is Age.TOO_OLD) is too_old


@pytest.mark.parametrize(
    ("age_s", "wanted"),
    [(0, Age.TOO_YOUNG), (9, Age.TOO_YOUNG), (10, Age.RIGHT), (20, Age.RIGHT), (21, Age.TOO_OLD), (-5, Age.TOO_YOUNG)],
)
def test_the_age_of_what_a_listing_shows(age_s: int, wanted: Age) -> None:
    made = filters(limits=Limits(min_age_ns=10 * S, max_age_ns=20 * S))

    assert made.age_of_new(NOW_NS - age_s * S, NOW_NS) is wanted
    assert filters().age_of_new(NOW_NS - age_s * S, NOW_NS) is Age.RIGHT


def test_names_may_lie_as_deep_as_they_like() -> None:
    """A path may have two thousand components; Python calls itself a thousand times."""
    one = filters("*.tmp", exclude=("x/*.log",))
    deep = b"d/" * 1500
    assert one.wants(deep + b"f", directory=False)
    assert not one.wants(deep + b"f.tmp", directory=False)
    assert not filters("/d/d/d/").wants(deep + b"f", directory=False)
    assert not filters(exclude=("d/d/d",)).wants(deep + b"f", directory=False)
