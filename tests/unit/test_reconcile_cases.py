"""reconcile: the cases that the small world of test_reconcile_whole does not hold."""

from __future__ import annotations

import pytest
from support.small_world import Version, base_of, local_of, remote_of

from fsxsync.model.association import Event, OnConflict, Policy
from fsxsync.model.identity import Base, Kind, Local, Posix, Remote
from fsxsync.model.stub import StubMark
from fsxsync.sync.reconcile import Verdict, needs_digest, reconcile

V = Verdict
ONE, TWO, THREE = Version(1, 0o644), Version(2, 0o644), Version(3, 0o644)


def sides(base: Version | None, tree: Version | None, bucket: Version | None, *, is_stub: bool = False):  # noqa: ANN201
    return (
        base_of(base, released=is_stub),
        local_of(tree, base=base, is_stub=is_stub),
        remote_of(bucket),
    )


def test_content_here_and_mode_there_are_both_applied() -> None:
    action = reconcile(*sides(ONE, TWO, Version(1, 0o600)), Policy())

    assert action.verdict is V.MERGE_EXPORT
    assert action.posix is not None
    assert action.posix.mode == 0o600


def test_mode_here_and_content_there_are_both_applied() -> None:
    action = reconcile(*sides(ONE, Version(1, 0o600), TWO), Policy())

    assert action.verdict is V.MERGE_IMPORT
    assert action.posix is not None
    assert action.posix.mode == 0o600


@pytest.mark.parametrize(
    ("choice", "later", "verdict", "mode"),
    [
        (OnConflict.LOCAL, False, V.EXPORT_META, 0o600),
        (OnConflict.REMOTE, True, V.IMPORT_META, 0o640),
        (OnConflict.NEWEST, True, V.EXPORT_META, 0o600),
        (OnConflict.NEWEST, False, V.IMPORT_META, 0o640),
        (OnConflict.KEEP_BOTH, True, V.EXPORT_META, 0o600),
        (OnConflict.KEEP_BOTH, False, V.IMPORT_META, 0o640),
    ],
)
def test_metadata_against_metadata(choice: OnConflict, later: bool, verdict: Verdict, mode: int) -> None:
    base, _, remote = sides(ONE, ONE, Version(1, 0o640))
    local = local_of(Version(1, 0o600), base=ONE, is_stub=False, later=later)

    action = reconcile(base, local, remote, Policy(on_conflict=choice))

    assert (action.verdict, action.conflict) == (verdict, True)
    assert action.posix is not None
    assert action.posix.mode == mode


@pytest.mark.parametrize(
    ("tree", "bucket", "suppressed"),
    [
        (TWO, ONE, V.EXPORT),
        (Version(1, 0o600), ONE, V.EXPORT_META),
        (None, ONE, V.EXPORT_DELETE),
        (ONE, TWO, V.IMPORT),
        (ONE, Version(1, 0o600), V.IMPORT_META),
        (ONE, None, V.IMPORT_DELETE),
        (TWO, Version(1, 0o600), V.MERGE_EXPORT),
        (Version(1, 0o600), TWO, V.MERGE_IMPORT),
        (TWO, None, V.EXPORT),
        (None, TWO, V.IMPORT),
        (Version(1, 0o600), None, V.IMPORT_DELETE),
        (None, Version(1, 0o600), V.EXPORT_DELETE),
    ],
)
def test_what_the_policy_does_not_allow_is_not_done_and_named(
    tree: Version | None, bucket: Version | None, suppressed: Verdict
) -> None:
    nothing = Policy(imports=frozenset(), exports=frozenset())

    action = reconcile(*sides(ONE, tree, bucket), nothing)

    assert (action.verdict, action.suppressed) == (V.NOTHING, suppressed)


def test_new_and_changed_are_two_events() -> None:
    only_new = Policy(exports=frozenset({Event.NEW}), imports=frozenset({Event.NEW}))

    assert reconcile(*sides(None, ONE, None), only_new).verdict is V.EXPORT
    assert reconcile(*sides(ONE, TWO, ONE), only_new).verdict is V.NOTHING
    assert reconcile(*sides(None, None, ONE), only_new).verdict is V.IMPORT
    assert reconcile(*sides(ONE, ONE, TWO), only_new).verdict is V.NOTHING


def test_a_conflict_that_may_not_import_waits_for_a_person() -> None:
    export_only = Policy(imports=frozenset())

    action = reconcile(*sides(ONE, TWO, THREE), export_only, same_bytes=False)

    assert (action.verdict, action.suppressed) == (V.BLOCKED, V.KEEP_BOTH)


@pytest.mark.parametrize(
    ("choice", "suppressed"), [(OnConflict.LOCAL, V.EXPORT_META), (OnConflict.REMOTE, V.IMPORT_META)]
)
def test_metadata_against_metadata_where_nothing_may_move_waits_for_a_person(
    choice: OnConflict, suppressed: Verdict
) -> None:
    nothing = Policy(imports=frozenset(), exports=frozenset(), on_conflict=choice)

    action = reconcile(*sides(ONE, Version(1, 0o600), Version(1, 0o640)), nothing)

    assert (action.verdict, action.suppressed, action.conflict) == (V.BLOCKED, suppressed, True)


@pytest.mark.parametrize(
    ("decided", "verdict"),
    [(OnConflict.LOCAL, V.EXPORT), (OnConflict.REMOTE, V.IMPORT), (OnConflict.KEEP_BOTH, V.KEEP_BOTH)],
)
def test_a_persons_word_on_a_conflict_stands_above_the_policy(decided: OnConflict, verdict: Verdict) -> None:
    nothing = Policy(imports=frozenset(), exports=frozenset(), on_conflict=OnConflict.NEWEST)

    action = reconcile(*sides(ONE, TWO, THREE), nothing, same_bytes=False, decided=decided)

    assert (action.verdict, action.conflict, action.suppressed) == (verdict, True, None)


def test_a_persons_word_decides_on_nothing_but_a_conflict() -> None:
    nothing = Policy(imports=frozenset(), exports=frozenset())

    for tree, bucket in [(TWO, ONE), (ONE, TWO), (None, ONE), (Version(1, 0o600), Version(1, 0o640)), (TWO, None)]:
        undecided = reconcile(*sides(ONE, tree, bucket), nothing, same_bytes=False)
        assert reconcile(*sides(ONE, tree, bucket), nothing, same_bytes=False, decided=OnConflict.LOCAL) == undecided


def test_an_export_only_association_with_policy_local_overwrites_what_it_saw() -> None:
    export_only = Policy(imports=frozenset(), on_conflict=OnConflict.LOCAL)

    action = reconcile(*sides(ONE, TWO, THREE), export_only, same_bytes=False)

    assert action.verdict is V.EXPORT
    assert action.remote is not None
    assert action.remote.etag == "etag-3"


def stub_without_base(etag: str) -> Local:
    local = local_of(ONE, base=None, is_stub=True)
    assert local is not None
    return local._replace(stub=StubMark(etag, 5, "k"))


def test_a_stub_that_lost_its_row_is_adopted_imported_or_lost_but_never_exported() -> None:
    assert reconcile(None, stub_without_base("etag-1"), remote_of(ONE), Policy()).verdict is V.ADOPT
    assert reconcile(None, stub_without_base("etag-1"), remote_of(TWO), Policy()).verdict is V.IMPORT
    assert reconcile(None, stub_without_base("etag-1"), None, Policy()).verdict is V.LOST


def test_a_stub_that_a_listing_made_of_a_symlink_is_none_yet() -> None:
    """A crash came before its row was written, and the object's kind, which its HEAD tells, before anybody asked."""
    remote = remote_of(ONE)
    assert remote is not None
    link = remote._replace(kind=Kind.SYMLINK)
    assert reconcile(None, stub_without_base("etag-1"), link, Policy()).verdict is V.IMPORT


def test_an_unreadable_mark_means_no_data_here() -> None:
    local = stub_without_base("etag-1")._replace(stub=StubMark.decode(b"garbage"))

    assert reconcile(None, local, remote_of(ONE), Policy()).verdict is V.IMPORT
    assert reconcile(base_of(ONE, released=True), local, remote_of(ONE), Policy()).verdict is V.IMPORT
    assert reconcile(None, local, None, Policy()).verdict is V.LOST


def test_a_truncated_stub_is_imported_again() -> None:
    base, local, remote = sides(ONE, ONE, ONE, is_stub=True)
    assert local is not None

    assert reconcile(base, local._replace(size=0), remote, Policy()).verdict is V.IMPORT


def test_a_stub_whose_mark_was_stripped_is_damaged_and_not_exported_as_zeros() -> None:
    base, local, remote = sides(ONE, ONE, ONE, is_stub=True)
    assert local is not None
    stripped = local._replace(stub=None, content_hash=b"z" * 16, ctime_ns=999)

    assert reconcile(base, stripped, remote, Policy(), same_bytes=False).verdict is V.DAMAGED
    assert reconcile(base, stripped, remote, Policy(), same_bytes=None).verdict is V.DAMAGED
    assert reconcile(base, stripped, remote, Policy(), same_bytes=True).verdict is V.ADOPT
    assert reconcile(base, stripped, None, Policy()).verdict is V.DAMAGED
    assert reconcile(base, stripped, remote_of(TWO), Policy(), same_bytes=False).verdict is V.DAMAGED


def test_a_file_that_was_loaded_and_not_written_down_is_known_by_its_digest() -> None:
    """A crash came between its mark and its row."""
    base, local, remote = sides(ONE, ONE, ONE, is_stub=True)
    assert base is not None
    assert local is not None
    base = base._replace(content_hash=b"d" * 16)
    loaded = local._replace(stub=None, content_hash=b"d" * 16, ctime_ns=999)

    assert reconcile(base, loaded, remote, Policy()).verdict is V.REFRESH
    assert reconcile(base, loaded, remote_of(TWO), Policy(), same_bytes=False).verdict is V.IMPORT
    assert reconcile(base, loaded, None, Policy()).verdict is V.IMPORT_DELETE


def directory(base: Base, **changes: object) -> tuple[Base, Local]:
    row = base._replace(kind=Kind.DIRECTORY, content_hash=None)
    local = Local(Kind.DIRECTORY, row.ino, 4096, row.mtime_ns, row.ctime_ns, row.mode, row.uid, row.gid)
    return row, local._replace(**changes)  # type: ignore[arg-type]


def marker(**changes: object) -> Remote:
    return Remote(Kind.DIRECTORY, "etag-1", 0, 500, posix=Posix(0o644, 0, 0, None))._replace(
        **changes,  # type: ignore[arg-type]
    )


def test_an_entry_made_in_a_directory_is_no_change_of_the_directory() -> None:
    base = base_of(ONE, released=False)
    assert base is not None
    row, local = directory(base, mtime_ns=700, ctime_ns=700)

    assert reconcile(row, local, marker(), Policy()).verdict in {V.NOTHING, V.REFRESH}


def test_times_that_somebody_set_on_a_directory_are_exported() -> None:
    base = base_of(ONE, released=False)
    assert base is not None
    row, local = directory(base, mtime_ns=300, ctime_ns=700)

    assert reconcile(row, local, marker(), Policy()).verdict is V.EXPORT_META


def test_an_implied_directory_is_in_sync_without_a_marker() -> None:
    base = base_of(ONE, released=False)
    assert base is not None
    row, local = directory(base)
    row = row._replace(etag=None, posix=Posix())

    assert reconcile(row, local, None, Policy()).verdict is V.NOTHING
    assert reconcile(row, local._replace(mode=0o700), None, Policy()).verdict is V.EXPORT_META
    assert reconcile(row, local, marker(), Policy()).verdict is V.IMPORT_META
    assert reconcile(row, None, None, Policy()).verdict is V.EXPORT_DELETE


def test_metadata_that_the_listing_could_not_tell_comes_with_the_head() -> None:
    base, local, remote = sides(ONE, ONE, ONE, is_stub=True)
    assert base is not None
    unknown = base._replace(posix_known=False, posix=Posix())

    assert reconcile(unknown, local, remote, Policy()).verdict is V.IMPORT_META
    only_new = Policy(imports=frozenset({Event.NEW}))
    assert reconcile(unknown, local, remote, only_new).verdict is V.IMPORT_META


def test_the_same_written_again_is_noted_unless_its_metadata_may_be_others() -> None:
    base, local, remote = sides(ONE, ONE, ONE)
    assert base is not None
    assert remote is not None
    again = remote._replace(last_modified_ns=base.last_modified_ns + 1)

    assert reconcile(base, local, again, Policy()).verdict is V.REFRESH
    assert reconcile(base, local, again._replace(posix_known=False), Policy()).verdict is V.NOTHING


def test_a_touched_file_is_not_uploaded_again() -> None:
    base, local, remote = sides(ONE, ONE, ONE)
    assert base is not None
    assert local is not None
    touched = local._replace(mtime_ns=800, ctime_ns=800)

    assert needs_digest(base, touched)
    assert reconcile(base, touched, remote, Policy()).verdict is V.REFRESH


def test_mtime_that_was_set_back_does_not_hide_a_write() -> None:
    base, local, remote = sides(ONE, ONE, ONE)
    assert base is not None
    assert local is not None
    rewritten = local._replace(ctime_ns=900, content_hash=b"x" * 16)

    assert needs_digest(base, rewritten._replace(content_hash=None))
    assert reconcile(base, rewritten, remote, Policy()).verdict is V.EXPORT


def test_an_object_that_turned_out_to_be_a_symlink_replaces_its_stub() -> None:
    base, local, remote = sides(ONE, ONE, ONE, is_stub=True)
    assert base is not None
    assert remote is not None
    unknown = base._replace(posix_known=False, posix=Posix())

    action = reconcile(unknown, local, remote._replace(kind=Kind.SYMLINK), Policy())

    assert action.verdict is V.IMPORT


def test_metadata_equal_but_for_an_owner_that_nobody_changed_is_no_conflict() -> None:
    """The file has another owner than its object says since it was imported (squashed, or no root's daemon)."""
    base, local, remote = sides(ONE, ONE, ONE)
    assert base is not None
    assert local is not None
    assert remote is not None
    base = base._replace(uid=7001, posix=base.posix._replace(uid=4001))
    mine = local._replace(uid=7001, mode=0o600, ctime_ns=900)
    theirs = remote._replace(posix=remote.posix._replace(uid=4001, mode=0o600))

    assert reconcile(base, mine, theirs, Policy()).verdict is V.REFRESH
    given = theirs._replace(posix=theirs.posix._replace(uid=4002))
    assert reconcile(base, mine, given, Policy()).conflict
