"""The changelog: one row a path, due when it was quiet or the cap is over, gone when a look settled it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsxsync.catalog.changelog import Entry, Hint
from fsxsync.catalog.database import Catalog

A, B = "dra-00000000000000001", "dra-00000000000000002"
DELAY, CAP = 10, 30


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(tmp_path / "catalog.db")
    yield catalog
    catalog.close()


def hint(
    catalog: Catalog, path: bytes, now_ns: int, *, association: str = A, delay: int = DELAY, cap: int = CAP
) -> None:
    catalog.changelog.add(
        [Hint(association, path, local=True, remote=False)], now_ns=now_ns, delay_ns=delay, cap_ns=cap
    )


def claim_one(catalog: Catalog, now_ns: int) -> Entry:
    (entry,) = catalog.changelog.claim(now_ns, 1, [A])
    return entry


def test_a_path_is_due_once_it_was_quiet(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    hint(catalog, b"a", 105)

    assert catalog.changelog.claim(114, 10, [A]) == []
    assert catalog.changelog.next_due_ns([A]) == 115
    assert claim_one(catalog, 115).path == b"a"


def test_a_path_that_is_never_quiet_is_due_at_the_cap(catalog: Catalog) -> None:
    for now_ns in range(100, 130, 5):
        hint(catalog, b"a", now_ns)

    assert catalog.changelog.next_due_ns([A]) == 130


def test_the_cap_counts_from_the_last_look(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    entry = claim_one(catalog, 130)
    hint(catalog, b"a", 131)
    hint(catalog, b"a", 132)

    assert not catalog.changelog.done(entry)

    assert catalog.changelog.next_due_ns([A]) == 142
    assert catalog.changelog.oldest_ns(A) == 131
    for now_ns in range(135, 175, 5):
        hint(catalog, b"a", now_ns)
    assert catalog.changelog.next_due_ns([A]) == 161


def test_hints_add_up(catalog: Catalog) -> None:
    log = catalog.changelog
    log.add([Hint(A, b"a", local=True, remote=False, ino=2**64 - 1)], now_ns=5, delay_ns=0, cap_ns=0)
    log.add([Hint(A, b"a", local=False, remote=True)], now_ns=6, delay_ns=0, cap_ns=0)

    (entry,) = log.pending(A, b"", 10)
    assert (entry.local, entry.remote, entry.ino, entry.first_seen_ns) == (True, True, 2**64 - 1, 5)
    assert log.by_inode(2**64 - 1) == [entry]
    assert log.count(A) == (1, 1, 1)


def test_age_counts_from_when_it_happened_but_not_from_the_future(catalog: Catalog) -> None:
    log = catalog.changelog
    rows = [
        Hint(A, b"a", local=False, remote=True, happened_ns=3),
        Hint(A, b"b", local=False, remote=True, happened_ns=99),
    ]
    log.add(rows, now_ns=50, delay_ns=0, cap_ns=0)

    assert [entry.first_seen_ns for entry in log.pending(A, b"", 9)] == [3, 50]
    assert log.oldest_ns(A) == 3


def test_nobody_else_gets_a_claimed_path(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    entry = claim_one(catalog, 200)

    assert catalog.changelog.claim(200, 10, [A]) == []
    assert catalog.changelog.next_due_ns([A]) is None
    assert catalog.changelog.pending(A, b"", 10) == [entry]

    assert catalog.changelog.done(entry)
    assert catalog.changelog.count(A) == (0, 0, 0)


def test_a_crash_gives_claimed_paths_back(catalog: Catalog, tmp_path: Path) -> None:
    hint(catalog, b"a", 100)
    entry = claim_one(catalog, 200)
    catalog.close()

    again = Catalog.open(tmp_path / "catalog.db")

    assert again.changelog.claim(200, 10, [A]) == [entry]
    again.close()


def test_a_hint_during_the_look_asks_for_another_one(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    entry = claim_one(catalog, 200)
    hint(catalog, b"a", 201)

    assert not catalog.changelog.done(entry)

    newer = claim_one(catalog, 211)
    assert newer.seq > entry.seq
    assert catalog.changelog.done(newer)


def test_a_row_that_was_deleted_and_hinted_again_is_newer(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    entry = claim_one(catalog, 200)
    catalog.changelog.delete_under(A, b"a")
    hint(catalog, b"a", 201)

    assert catalog.changelog.claim(999, 10, [A]) == []
    assert not catalog.changelog.done(entry)
    assert claim_one(catalog, 999).path == b"a"


def test_sequence_numbers_go_on_after_a_restart(catalog: Catalog, tmp_path: Path) -> None:
    for now_ns in range(5):
        hint(catalog, b"a", now_ns)
    catalog.close()
    again = Catalog.open(tmp_path / "catalog.db")
    entry = claim_one(again, 100)
    hint(again, b"a", 101)

    assert not again.changelog.done(entry)
    again.close()


def test_failures_are_counted_until_a_new_hint_comes(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    for attempt in range(3):
        entry = claim_one(catalog, 200)
        assert entry.attempts == attempt
        catalog.changelog.retry(entry, error="no \udcff luck", code="S3Error", at_ns=150)

    (failed,) = catalog.changelog.errors(A, 10)
    assert (failed.attempts, failed.last_error, failed.last_code) == (3, "no \\udcff luck", "S3Error")
    hint(catalog, b"a", 300)
    (entry,) = catalog.changelog.pending(A, b"a", 1)
    assert (entry.attempts, entry.last_error, entry.not_before_ns) == (0, "no \\udcff luck", 310)


def test_backing_off_takes_effect_unless_a_hint_came_meanwhile(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    catalog.changelog.retry(claim_one(catalog, 200), error="e", code="c", at_ns=900)
    assert catalog.changelog.next_due_ns([A]) == 900

    catalog.changelog.wake(A, 300)
    entry = claim_one(catalog, 300)
    assert entry.attempts == 1
    hint(catalog, b"a", 301)
    catalog.changelog.retry(entry, error="e", code="c", at_ns=900)
    assert catalog.changelog.next_due_ns([A]) == 311


def test_postponing_is_no_failure(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    catalog.changelog.postpone(claim_one(catalog, 200), at_ns=250, waiting_for="open for writing")

    (entry,) = catalog.changelog.pending(A, b"", 1)
    assert (entry.attempts, entry.last_error, entry.waiting_for) == (0, None, "open for writing")
    assert catalog.changelog.next_due_ns([A]) == 250


def test_a_success_forgets_the_error_also_if_a_newer_hint_waits(catalog: Catalog) -> None:
    hint(catalog, b"a", 100)
    catalog.changelog.retry(claim_one(catalog, 200), error="e", code="c", at_ns=200)
    entry = claim_one(catalog, 200)
    hint(catalog, b"a", 201)

    catalog.changelog.done(entry)

    assert catalog.changelog.errors(A, 10) == []
    assert catalog.changelog.count(A)[0] == 1


def test_associations_take_turns(catalog: Catalog) -> None:
    for number in range(10):
        hint(catalog, b"%d" % number, number)
    for number in range(3):
        hint(catalog, b"%d" % number, 1000, association=B)

    taken = catalog.changelog.claim(5000, 4, [A, B, A])

    assert sorted((entry.association, entry.path) for entry in taken) == [
        (A, b"0"),
        (A, b"1"),
        (B, b"0"),
        (B, b"1"),
    ]
    singles = [catalog.changelog.claim(5000, 1, [A, B])[0].association for _ in range(2)]
    assert sorted(singles) == [A, B]


def test_under_means_the_path_and_what_lies_below(catalog: Catalog) -> None:
    for path in (b"a-b", b"a", b"a/c", b"a/c/d", b"a0"):
        hint(catalog, path, 1)

    assert [entry.path for entry in catalog.changelog.pending(A, b"a", 10)] == [b"a", b"a/c", b"a/c/d"]
    assert catalog.changelog.pending(None, b"a", 1)[0].path == b"a"
    assert catalog.changelog.count_under(A, b"a") == 3
    catalog.changelog.delete_under(A, b"a")
    assert [entry.path for entry in catalog.changelog.pending(None, b"", 10)] == [b"a-b", b"a0"]


PATHS = st.sampled_from([b"a", b"a-", b"a/b", b"a/b/c", b"b"])
ASSOCIATIONS = st.sampled_from([A, B])
HINTS = st.builds(
    Hint,
    ASSOCIATIONS,
    PATHS,
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(1, 2),
    st.none() | st.integers(0, 400),
)


@dataclass
class Row:
    """What the model knows of a pending path; ``newer`` since it was claimed."""

    local: bool
    remote: bool
    ino: int | None
    first_seen: int
    window: int | None
    not_before: int
    attempts: int = 0
    error: str | None = None
    waiting_for: str = ""
    newer: bool = False

    def seen(self) -> tuple[object, ...]:
        return (
            self.local,
            self.remote,
            self.ino,
            self.first_seen,
            self.not_before,
            self.attempts,
            self.error,
            self.waiting_for,
        )


class ChangelogMachine(RuleBasedStateMachine):
    """Against a dictionary and the sentences of the docstrings."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "catalog.db"
        self.catalog = Catalog.open(self.file)
        self.model: dict[tuple[str, bytes], Row] = {}
        self.claimed: list[Entry] = []
        self.now = 0

    def teardown(self) -> None:
        self.catalog.close()
        self.folder.cleanup()

    def is_claimed(self, key: tuple[str, bytes]) -> bool:
        return any((entry.association, entry.path) == key for entry in self.claimed)

    @rule(
        hints=st.lists(HINTS, min_size=1, max_size=4),
        passed=st.integers(0, 20),
        delay=st.sampled_from([0, DELAY]),
    )
    def add(self, hints: list[Hint], passed: int, delay: int) -> None:
        self.now += passed
        self.catalog.changelog.add(hints, now_ns=self.now, delay_ns=delay, cap_ns=CAP)
        for one in hints:
            key = (one.association, one.path)
            happened = self.now if one.happened_ns is None else min(self.now, one.happened_ns)
            row = self.model.get(key)
            if row is None:
                # A look may still go on at a row that was deleted under it.
                self.model[key] = Row(one.local, one.remote, one.ino, happened, self.now, self.now + delay, newer=True)
                continue
            row.local |= one.local
            row.remote |= one.remote
            row.ino = one.ino if one.ino is not None else row.ino
            row.first_seen = min(row.first_seen, happened)
            if row.window is None or (self.is_claimed(key) and not row.newer):
                row.window = self.now
            row.not_before = min(self.now + delay, row.window + CAP)
            row.attempts = 0
            row.newer = True

    @rule(passed=st.integers(0, 40), limit=st.integers(1, 4), which=st.sampled_from([[A], [B], [A, B]]))
    def claim(self, passed: int, limit: int, which: list[str]) -> None:
        self.now += passed
        taken = self.catalog.changelog.claim(self.now, limit, which)

        due = {
            key: row
            for key, row in self.model.items()
            if key[0] in which and row.not_before <= self.now and not self.is_claimed(key)
        }
        assert len(taken) == min(limit, len(due))
        for association in which:
            mine = [entry.not_before_ns for entry in taken if entry.association == association]
            assert mine == sorted(row.not_before for key, row in due.items() if key[0] == association)[: len(mine)]
            left = len([key for key in due if key[0] == association]) - len(mine)
            others = max(
                (sum(e.association == other for e in taken) for other in which if other != association),
                default=0,
            )
            assert left == 0 or others <= len(mine) + 1
        for entry in taken:
            due[entry.association, entry.path].newer = False
        self.claimed += taken

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), deed=st.sampled_from(["done", "retry", "postpone"]), wait=st.integers(0, 50))
    def give_back(self, data: st.DataObject, deed: str, wait: int) -> None:
        entry = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove(entry)
        row = self.model.get((entry.association, entry.path))
        log, at_ns = self.catalog.changelog, self.now + wait
        if deed == "done":
            settled = log.done(entry)
            assert settled == (row is not None and not row.newer)
            if settled:
                del self.model[entry.association, entry.path]
            elif row is not None:
                assert row.window is not None
                row.first_seen, row.error, row.waiting_for = row.window, None, ""
            return
        if deed == "retry":
            log.retry(entry, error="e", code="c", at_ns=at_ns)
        else:
            log.postpone(entry, at_ns=at_ns, waiting_for="w")
        if row is None:
            return
        if deed == "retry":
            row.attempts, row.error, row.waiting_for = row.attempts + 1, "e", ""
        else:
            row.waiting_for = "w"
        if not row.newer:
            row.not_before, row.window = at_ns, None

    @rule(association=ASSOCIATIONS)
    def wake(self, association: str) -> None:
        self.catalog.changelog.wake(association, self.now)
        for key, row in self.model.items():
            if key[0] == association:
                row.not_before = min(row.not_before, self.now)

    @rule(association=ASSOCIATIONS, under=st.just(b"") | PATHS)
    def delete_under(self, association: str, under: bytes) -> None:
        self.catalog.changelog.delete_under(association, under)
        self.model = {key: row for key, row in self.model.items() if not self.lies_in(key, association, under)}

    @staticmethod
    def lies_in(key: tuple[str, bytes], association: str, under: bytes) -> bool:
        return key[0] == association and (not under or key[1] == under or key[1].startswith(under + b"/"))

    @precondition(lambda self: self.model)
    @rule()
    def crash(self) -> None:
        self.catalog.close()
        self.catalog = Catalog.open(self.file)
        self.claimed = []

    @invariant()
    def agrees(self) -> None:
        log = self.catalog.changelog
        pending = log.pending(None, b"", 100)
        seen = {
            (e.association, e.path): (
                e.local,
                e.remote,
                e.ino,
                e.first_seen_ns,
                e.not_before_ns,
                e.attempts,
                e.last_error,
                e.waiting_for,
            )
            for e in pending
        }
        assert seen == {key: row.seen() for key, row in self.model.items()}
        for association in (A, B):
            mine = {key[1]: row for key, row in self.model.items() if key[0] == association}
            flags = (sum(row.local for row in mine.values()), sum(row.remote for row in mine.values()))
            assert log.count(association) == (len(mine), *flags)
            assert log.oldest_ns(association) == min((row.first_seen for row in mine.values()), default=None)
            free = [row.not_before for path, row in mine.items() if not self.is_claimed((association, path))]
            assert log.next_due_ns([association]) == min(free, default=None)
            assert {e.path for e in log.errors(association, 99)} == {path for path, row in mine.items() if row.error}
            for under in (b"", b"a", b"a/b"):
                inside = sorted(path for path in mine if self.lies_in((association, path), association, under))
                assert [e.path for e in log.pending(association, under, 99)] == inside
                assert log.count_under(association, under) == len(inside)
        for ino in (1, 2):
            same = {key for key, row in self.model.items() if row.ino == ino}
            assert {(e.association, e.path) for e in log.by_inode(ino)} == same


TestChangelogMachine = ChangelogMachine.TestCase
TestChangelogMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
