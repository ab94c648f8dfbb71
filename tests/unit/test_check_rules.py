"""The rules of `fsxsync check`, row by row: what is broken, and what only looks so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsxsync.model.association import ALL_EVENTS, Event, Policy
from fsxsync.model.finding import Rule
from fsxsync.model.identity import Base, Kind, Local
from fsxsync.model.stub import StubMark
from fsxsync.sync.rules import Place, broken, misplaced

MARK = StubMark(etag="e1", size=7, key="p/f")
PLACE = Place("d/f", "dra-1", "p/f", Policy())
LOCAL = Local(Kind.FILE, ino=10, size=7, mtime_ns=1, ctime_ns=2, mode=0o644, uid=0, gid=0, blocks=8)
STUB = LOCAL._replace(stub=MARK)
ROW = Base("dra-1", b"f", Kind.FILE, 10, 7, 1, 2, 0o644, 0, 0, "e1", 7, 5, content_hash=b"h" * 16, posix=LOCAL.posix)
RELEASED = ROW._replace(released=True, content_hash=None)
DIRECTORY = Local(Kind.DIRECTORY, ino=11, size=4096, mtime_ns=1, ctime_ns=1, mode=0o755, uid=0, gid=0)
DIRECTORY_ROW = Base("dra-1", b"f", Kind.DIRECTORY, 11, 4096, 1, 1, 0o755, 0, 0, "e0", 0, 5)
LINK = Local(Kind.SYMLINK, ino=12, size=1, mtime_ns=1, ctime_ns=1, mode=0o777, uid=0, gid=0, target=b"x")
LINK_ROW = Base("dra-1", b"f", Kind.SYMLINK, 12, 1, 1, 1, 0o777, 0, 0, "e2", 1, 5, target=b"x")
UNREADABLE = StubMark.decode(b"{")

BROKEN: dict[str, tuple[Base | None, Local | None, set[Rule]]] = {
    "the file is gone": (ROW, None, {Rule.ROW_WITHOUT_FILE}),
    "the stub is gone": (RELEASED, None, {Rule.ROW_WITHOUT_FILE}),
    "the directory is gone": (DIRECTORY_ROW, None, {Rule.ROW_WITHOUT_FILE}),
    "a file that nobody knows": (None, LOCAL, {Rule.FILE_WITHOUT_ROW}),
    "a directory that nobody knows": (None, DIRECTORY, {Rule.FILE_WITHOUT_ROW}),
    "a symlink that nobody knows": (None, LINK, {Rule.FILE_WITHOUT_ROW}),
    "a stub that nobody knows": (None, STUB, {Rule.FILE_WITHOUT_ROW}),
    "the mark was stripped": (RELEASED, LOCAL, {Rule.RELEASED_WITHOUT_MARK}),
    "written over a stub": (RELEASED, LOCAL._replace(size=9, mtime_ns=5), {Rule.UNSEEN_CHANGE}),
    "a mark on a resident file": (ROW, STUB, {Rule.RESIDENT_WITH_MARK}),
    "a stub that was cut": (RELEASED, STUB._replace(size=3), {Rule.STUB_SIZE}),
    "a stub of another version": (RELEASED, STUB._replace(stub=replace(MARK, etag="e9")), {Rule.STUB_VERSION}),
    "a stub of another key": (RELEASED, STUB._replace(stub=replace(MARK, key="p/g")), {Rule.STUB_KEY}),
    "all three": (
        RELEASED,
        STUB._replace(size=1, stub=StubMark("e9", 2, "p/g")),
        {Rule.STUB_SIZE, Rule.STUB_VERSION, Rule.STUB_KEY},
    ),
    "a mark that can't be read": (RELEASED, STUB._replace(stub=UNREADABLE), {Rule.STUB_UNREADABLE}),
    "another size": (ROW, LOCAL._replace(size=8), {Rule.UNSEEN_CHANGE}),
    "another time": (ROW, LOCAL._replace(mtime_ns=9), {Rule.UNSEEN_CHANGE}),
    "another inode": (ROW, LOCAL._replace(ino=99), {Rule.UNSEEN_CHANGE}),
    "another mode": (ROW, LOCAL._replace(mode=0o600), {Rule.UNSEEN_CHANGE}),
    "another owner": (ROW, LOCAL._replace(uid=1), {Rule.UNSEEN_CHANGE}),
    "another mode of a stub": (RELEASED, STUB._replace(mode=0o600), {Rule.UNSEEN_CHANGE}),
    "another mode of a directory": (DIRECTORY_ROW, DIRECTORY._replace(mode=0o700), {Rule.UNSEEN_CHANGE}),
    "another target": (LINK_ROW, LINK._replace(target=b"y", mtime_ns=3), {Rule.UNSEEN_CHANGE}),
    "a symlink for a file": (ROW, LINK, {Rule.UNSEEN_CHANGE}),
}
SOUND: dict[str, tuple[Base | None, Local | None]] = {
    "nothing": (None, None),
    "a resident file": (ROW, LOCAL),
    "a released file": (RELEASED, STUB),
    "a directory": (DIRECTORY_ROW, DIRECTORY),
    "a directory in which something happened": (DIRECTORY_ROW, DIRECTORY._replace(mtime_ns=8, ctime_ns=8, size=1)),
    "an implied directory": (DIRECTORY_ROW._replace(etag=None), DIRECTORY),
    "a symlink": (LINK_ROW, LINK),
    "a hard link was made elsewhere": (ROW, LOCAL._replace(ctime_ns=9, nlink=2)),
    "a stub whose loading began": (RELEASED, STUB._replace(ctime_ns=9, blocks=80)),
}


def rules(row: Base | None, local: Local | None, *, pending: bool = False, place: Place = PLACE) -> set[Rule]:
    found = broken(row, local, pending, place)
    assert {(one.path, one.association) for one in found} <= {(place.path, place.association)}
    assert len({one.rule for one in found}) == len(found)
    return {one.rule for one in found}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_told(case: str) -> None:
    row, local, expected = BROKEN[case]
    assert rules(row, local) == expected


@pytest.mark.parametrize("case", SOUND)
def test_what_is_sound_is_not(case: str) -> None:
    assert rules(*SOUND[case]) == set()


@pytest.mark.parametrize("case", BROKEN)
def test_nothing_is_said_of_what_somebody_will_look_at(case: str) -> None:
    row, local, expected = BROKEN[case]
    assert rules(row, local, pending=True) == expected & {Rule.STUB_UNREADABLE}


def test_every_rule_of_a_path_has_a_row() -> None:
    later = {rule for rule in Rule if rule.value.startswith(("object-", "local-"))}
    elsewhere = {Rule.STAGING_LEFTOVER, Rule.RESERVED_ATTRIBUTE, Rule.STUB_ASTRAY}
    assert set().union(*(expected for _, _, expected in BROKEN.values())) == set(Rule) - later - elsewhere


NO_EXPORTS = replace(PLACE, policy=Policy(exports=frozenset()))
CHANGES = (
    "the file is gone",
    "a file that nobody knows",
    "another size",
    "another mode",
    "another target",
    "written over a stub",
)


@pytest.mark.parametrize("case", CHANGES)
def test_what_the_policy_keeps_here_breaks_no_rule(case: str) -> None:
    row, local, _ = BROKEN[case]
    assert rules(row, local, place=NO_EXPORTS) == set()
    assert rules(row, local, place=replace(PLACE, stays=True)) == set()


def test_each_event_of_the_policy_counts_for_itself() -> None:
    told = {
        event: {case for case in CHANGES if rules(*BROKEN[case][:2], place=replace(PLACE, policy=Policy(exports=kept)))}
        for event in Event
        if (kept := ALL_EVENTS - {event})
    }
    assert told == {
        Event.NEW: set(CHANGES) - {"a file that nobody knows"},
        Event.DELETED: set(CHANGES) - {"the file is gone"},
        Event.CHANGED: {"the file is gone", "a file that nobody knows"},
    }


@pytest.mark.parametrize("case", [case for case in BROKEN if "a stub" in case or "mark" in case])
def test_a_stub_is_judged_whatever_the_policy_says(case: str) -> None:
    row, local, expected = BROKEN[case]
    if row is not None and local is not None and Rule.UNSEEN_CHANGE not in expected:
        assert rules(row, local, place=NO_EXPORTS) == expected
        assert rules(row, local, place=replace(PLACE, stays=True)) == expected


def test_outside_of_every_association_only_stubs_are_wrong() -> None:
    nowhere = Place("f", "", None, Policy())
    assert rules(None, LOCAL, place=nowhere) == set()
    assert rules(None, DIRECTORY, place=nowhere) == set()
    assert rules(None, STUB, place=nowhere) == {Rule.STUB_ASTRAY}
    assert rules(None, STUB._replace(stub=UNREADABLE), place=nowhere) == {Rule.STUB_UNREADABLE}


def test_a_change_is_told_by_what_changed() -> None:
    (found,) = broken(ROW, LOCAL._replace(size=8, mtime_ns=3), False, PLACE)
    assert "(size, mtime)" in found.message


def test_reserved_attributes_are_named() -> None:
    found = misplaced([b"user.fsxsync.tree", b"user.fsxsync.x\xff"], PLACE)
    assert [one.rule for one in found] == [Rule.RESERVED_ATTRIBUTE] * 2
    assert "user.fsxsync.tree" in found[0].message
