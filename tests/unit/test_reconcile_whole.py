"""reconcile, tried whole: every case of a small world, judged by sentences (DESIGN §3, §8); the test is tried too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import pytest
from support.small_world import Version, base_of, local_of, remote_of

from fsxsync.model.association import OnConflict, Policy
from fsxsync.model.doubt import Trust
from fsxsync.sync import reconcile as module
from fsxsync.sync.reconcile import QUIET, TABLE, Delta, Verdict, reconcile

D, V = Delta, Verdict


CONTENTS = (1, 2, 3)
MODES = (0o600, 0o640, 0o644)
VERSIONS: list[Version | None] = [None, *(Version(c, m) for c in CONTENTS for m in MODES)]
POLICIES = [Policy(on_conflict=choice) for choice in OnConflict]


@dataclass(frozen=True, slots=True)
class Case:
    base: Version | None
    tree: Version | None
    bucket: Version | None
    digests_known: bool
    is_stub: bool
    policy: Policy


def world() -> Iterator[Case]:
    for base, tree, bucket, known, policy in product(VERSIONS, VERSIONS, VERSIONS, (True, False), POLICIES):
        yield Case(base, tree, bucket, known, False, policy)
        # A stub stands for a version that was in the bucket once; here: the base's.
        if tree is not None and base is not None and tree.content == base.content and known:
            yield Case(base, tree, bucket, known, True, policy)


WORLD = list(world())


def decide(case: Case, trust: Trust = Trust.FULL) -> module.Action:
    base = base_of(case.base, released=case.is_stub)
    local = local_of(case.tree, base=case.base, is_stub=case.is_stub)
    remote = remote_of(case.bucket)
    same: bool | None = None
    if case.tree and case.bucket and case.digests_known:
        same = case.tree.content == case.bucket.content
    return reconcile(base, local, remote, case.policy, same_bytes=same, trust=trust)


def act(case: Case, action: module.Action) -> tuple[Version | None, Version | None, list[Version]]:
    """What the two sides hold afterwards, and what was kept beside the path."""
    tree, bucket = case.tree, case.bucket
    mode = action.posix.mode if action.posix else None
    match action.verdict:
        case V.EXPORT | V.MERGE_EXPORT:
            assert tree is not None
            both = Version(tree.content, mode if mode is not None else tree.mode)
            return both, both, []
        case V.EXPORT_META | V.IMPORT_META:
            assert tree is not None
            assert bucket is not None
            chosen = mode if mode is not None else (tree.mode if action.verdict is V.EXPORT_META else bucket.mode)
            return Version(tree.content, chosen), Version(bucket.content, chosen), []
        case V.EXPORT_DELETE:
            return tree, None, []
        case V.IMPORT | V.MERGE_IMPORT:
            assert bucket is not None
            both = Version(bucket.content, mode if mode is not None else bucket.mode)
            return both, both, []
        case V.IMPORT_DELETE:
            return None, bucket, []
        case V.KEEP_BOTH:
            assert tree is not None
            return bucket, bucket, [tree]
        case V.ADOPT:
            assert tree is not None
            assert bucket is not None
            chosen = mode if mode is not None else tree.mode
            return Version(tree.content, chosen), Version(bucket.content, chosen), []
        case _:
            return tree, bucket, []


def contents(*versions: Version | None) -> set[int]:
    return {version.content for version in versions if version is not None}


def broken(case: Case) -> str | None:  # noqa: C901, PLR0912
    """Name the first sentence that does not hold for one case, or None."""
    action = decide(case)
    verdict = action.verdict
    tree, bucket, kept = act(case, action)
    base = case.base
    equal_content = contents(case.tree) == contents(case.bucket)
    if case.digests_known and case.tree == case.bucket and verdict not in QUIET:
        return "what is equal already moves no bytes"
    if not case.digests_known and not case.is_stub and verdict is V.ADOPT:
        return "doubt is never adopted"
    one_content = case.tree and case.bucket and contents(base, case.tree, case.bucket) == contents(base)
    if one_content and verdict in {V.EXPORT, V.IMPORT, V.KEEP_BOTH, V.MERGE_EXPORT, V.MERGE_IMPORT}:
        return "metadata alone moves no bytes"
    if case.is_stub and verdict in {V.EXPORT, V.MERGE_EXPORT, V.KEEP_BOTH}:
        return "a stub is never exported"
    if case.tree == base and not case.is_stub and (tree, bucket) != (case.bucket, case.bucket):
        return "the bucket moved alone: the tree follows, deletes included"
    if case.bucket == base and (tree, bucket) != (case.tree, case.tree) and base is not None:
        return "the tree moved alone: the bucket follows, deletes included"
    edited_here = case.tree is not None and not case.is_stub and contents(case.tree) != contents(base)
    edited_there = case.bucket is not None and contents(case.bucket) != contents(base)
    after = contents(tree, bucket, *kept)
    wins_alone = case.policy.on_conflict is not OnConflict.KEEP_BOTH
    if edited_here and not edited_there and not contents(case.tree) <= after:
        return "no bytes that were edited here are gone"
    if edited_there and not edited_here and not contents(case.bucket) <= after:
        return "no bytes that were edited there are gone"
    if edited_here and edited_there and not equal_content:
        wanted = contents(case.tree, case.bucket)
        if not wins_alone and not wanted <= after:
            return "keep-both keeps both"
        if wins_alone and len(after) != 1:
            return "a policy with a winner has one"
        if case.policy.on_conflict is OnConflict.LOCAL and after != contents(case.tree):
            return "local means the file"
        if case.policy.on_conflict is OnConflict.REMOTE and after != contents(case.bucket):
            return "remote means the object"
    if edited_here and case.bucket is None and tree != case.tree:
        return "an edit beats a delete there"
    if edited_there and case.tree is None and tree != case.bucket:
        return "an edit beats a delete here"
    if base and case.tree is None and case.bucket and case.bucket.content == base.content and bucket is not None:
        return "a delete here beats metadata there"
    if base and case.bucket is None and case.tree and case.tree.content == base.content and tree is not None:
        return "a delete there beats metadata here"
    if tree != bucket:
        return "one look settles it"
    if base and case.tree and case.bucket and not case.is_stub:
        for one, other in ((case.tree, case.bucket), (case.bucket, case.tree)):
            is_content_alone = one.content != base.content and one.mode == base.mode
            is_mode_alone = other.content == base.content and other.mode != base.mode
            if is_content_alone and is_mode_alone and (tree, kept) != (Version(one.content, other.mode), []):
                return "content on one side and a mode on the other are both applied"
    if base and case.tree and case.bucket and verdict not in {V.KEEP_BOTH, *QUIET}:
        here, there = case.tree.mode != base.mode, case.bucket.mode != base.mode
        replaced = (verdict is V.IMPORT and edited_here and edited_there) or (verdict is V.EXPORT and edited_there)
        if here != there and tree is not None and not replaced:
            wanted_mode = case.tree.mode if here else case.bucket.mode
            one_edit = edited_here != edited_there or not (edited_here or edited_there)
            if one_edit and tree.mode != wanted_mode and not (edited_there and here is False and not edited_here):
                return "a mode that one side changed reaches the other"
    return None


def test_every_case() -> None:
    wrong = {case: sentence for case in WORLD if (sentence := broken(case))}

    assert not wrong, f"{len(wrong)} of {len(WORLD)}: {next(iter(wrong.items()))}"


def test_a_quiet_pair_costs_nothing_and_a_crash_before_the_row_costs_one_look() -> None:
    for case in WORLD:
        tree, bucket, _ = act(case, decide(case))
        settled = Case(tree, tree, bucket, True, False, case.policy)
        again = Case(case.base, tree, bucket, True, False, case.policy)

        assert decide(settled).verdict in {V.NOTHING, V.REFRESH}, case
        assert decide(again).verdict in QUIET | {V.EXPORT_META, V.IMPORT_META}, (case, decide(again).verdict)


@pytest.mark.parametrize("trust", [Trust.EDITS, Trust.NONE])
def test_after_a_power_cut_no_object_and_no_edit_is_gone(trust: Trust) -> None:
    """Whatever the policy says: what is missing or changed here may be what the file system lost."""
    for case in WORLD:
        tree, bucket, kept = act(case, decide(case, trust))
        after = contents(tree, bucket, *kept)
        is_edit = case.tree is not None and not case.is_stub and contents(case.tree) != contents(case.base)
        is_known = case.bucket is not None and contents(case.bucket) == contents(case.base)
        if case.bucket is not None and not (trust is Trust.EDITS and is_edit and is_known):
            assert contents(case.bucket) <= after, case
        if is_edit:
            assert contents(case.tree) <= after, case


# Rows whose change no sentence can tell from the right one: the states are equal in effect.
EQUAL_IN_EFFECT = {
    ((D.NONE, D.NONE), V.FORGET): "no row to drop",
    ((D.NONE, D.NONE), V.REFRESH): "no row to write",
    ((D.NONE, D.NONE), V.ADOPT): "nothing to write",
    ((D.GONE, D.GONE), V.NOTHING): "only the row stays",
    ((D.GONE, D.GONE), V.REFRESH): "only the row stays",
    ((D.GONE, D.GONE), V.ADOPT): "only the row stays",
    ((D.SAME, D.SAME), V.REFRESH): "a row is written again",
    ((D.SAME, D.SAME), V.ADOPT): "a row is written again",
    ((D.SAME, D.SAME), V.FORGET): "found again by adoption",
}
MUTANTS = [
    (row, other)
    for row, right in TABLE.items()
    for other in (
        V.NOTHING,
        V.EXPORT,
        V.EXPORT_META,
        V.EXPORT_DELETE,
        V.IMPORT,
        V.IMPORT_META,
        V.IMPORT_DELETE,
        V.CONFLICT,
    )
    if other is not right and (row, other) not in EQUAL_IN_EFFECT
]


@pytest.mark.parametrize(("row", "other"), MUTANTS, ids=lambda value: str(getattr(value, "name", value)))
def test_a_wrong_row_is_found(row: tuple[Delta, Delta], other: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE, row, other)

    def is_wrong(case: Case) -> bool:
        try:
            return broken(case) is not None
        except AssertionError:
            return True  # an action on a side that is not there

    assert any(is_wrong(case) for case in WORLD)
