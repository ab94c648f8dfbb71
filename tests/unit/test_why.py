"""`fsxsync why` has a sentence for each state, and says what to do where there is something."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsxsync.model.identity import Base, Kind, Local, Remote, base_of
from fsxsync.model.stub import StubMark
from fsxsync.model.why import _PROBLEMS, Evidence, Waiting, explain, next_step, what_it_is

LOCAL = Local(Kind.FILE, 7, 5, 10, 10, 0o644, 0, 0)
STUB = LOCAL._replace(stub=StubMark("e", 5, "p/a"))
REMOTE = Remote(Kind.FILE, "e", 5, 10)
BASE: Base = base_of("dra-1", b"a", LOCAL, REMOTE)
SYNCED = Evidence(
    path="/d/a",
    association="dra-1",
    directory="/d",
    repository="s3://b/p/",
    lifecycle="AVAILABLE",
    key="p/a",
    base=BASE,
    local=LOCAL,
    remote=REMOTE,
    exports=frozenset({"NEW", "CHANGED", "DELETED"}),
    imports=frozenset({"NEW", "CHANGED", "DELETED"}),
    verdict="NOTHING",
)


@pytest.mark.parametrize(
    ("seen", "is_", "why", "advice", "next_"),
    [
        (SYNCED, "a synced file", "Both sides agree", "", "nothing"),
        (Evidence("/x", local=LOCAL), "in no association", "ordinary file", "fsxsync associate", "nothing"),
        (replace(SYNCED, local=STUB), "a released file", "reading it loads", "fsxsync restore PATH", "nothing"),
        (replace(SYNCED, local=STUB, resident_bytes=3), "3 of 5 bytes are here", "", "", "nothing"),
        (replace(SYNCED, is_written=True), "", "open for writing", "", ""),
        (replace(SYNCED, is_loading=True), "", "being loaded", "", ""),
        (replace(SYNCED, left_out="--exclude *.tmp"), "", "excluded: --exclude *.tmp", "change the filter", "nothing"),
        (replace(SYNCED, noarchive=True), "", "noarchive is set", "--clear noarchive", ""),
        (replace(SYNCED, norelease=True), "", "norelease is set", "", ""),
        (replace(SYNCED, lifecycle="MISCONFIGURED", failure="gone"), "", "MISCONFIGURED: gone", "mend", ""),
        (replace(SYNCED, lifecycle="DELETING"), "", "DELETING", "", ""),
        (replace(SYNCED, base=None, remote=None, verdict="EXPORT"), "never exported", "", "", "upload"),
        (
            replace(SYNCED, verdict="NOTHING", suppressed="EXPORT", exports=frozenset()),
            "a changed file",
            "(--export none) does not let it upload the file",
            "update ID --export",
            "nothing",
        ),
        (replace(SYNCED, verdict="IMPORT"), "a changed file", "nobody was told", "reconcile PATH", "take the path"),
        (
            replace(SYNCED, waiting=Waiting(5, 0, is_local=True, next_s=1), verdict="EXPORT"),
            "",
            "export is pending since 5 s: it comes up in 1 s",
            "",
            "upload",
        ),
        (
            replace(SYNCED, waiting=Waiting(5, 3, "403: grant it", is_local=True, next_s=8)),
            "",
            "export failed 3 times: 403: grant it; it is tried again in 8 s",
            "",
            "",
        ),
        (replace(SYNCED, waiting=Waiting(5, 0, waiting_for="the scan")), "", "since 5 s: the scan", "", ""),
        (
            replace(SYNCED, remote=None, remote_error="no answer"),
            "",
            "looked at: no answer",
            "",
            "not known",
        ),
        (replace(SYNCED, in_conflict=True, kept_as="/d/a.conflict"), "", "kept as /d/a.conflict", "resolve PATH", ""),
        (replace(SYNCED, in_conflict=True), "", "in conflict", "resolve PATH", ""),
        (replace(SYNCED, is_copy_of="/d/b"), "", "both sides of /d/b", "resolve PATH", ""),
        (
            replace(SYNCED, in_the_way_of=("/d/a/below",)),
            "",
            "no directory, and in the repository there is /d/a/below",
            "resolve PATH/below --keep",
            "",
        ),
        (
            replace(SYNCED, noarchive=True, problems=(("not-exportable", "noarchive"),), verdict="EXPORT"),
            "",
            "noarchive is set",
            "--clear noarchive",
            "nothing: it is not exported",
        ),
        (replace(SYNCED, not_exportable="a FIFO", verdict="EXPORT"), "", "", "", "nothing: it is not exported"),
        (replace(SYNCED, not_exportable="a FIFO"), "", "can't be exported: a FIFO", "another name", ""),
        (replace(SYNCED, local=None, verdict="EXPORT_DELETE"), "gone here", "", "", "delete the object"),
        (replace(SYNCED, local=None, base=None, verdict="IMPORT"), "an object without a file", "", "", "take the path"),
        (
            replace(SYNCED, local=STUB, remote=None, problems=(("lost", "m"),), verdict="LOST"),
            "a lost file",
            "object is gone",
            "put the object back",
            "until its object is back",
        ),
    ],
)
def test_a_state_in_words(seen: Evidence, is_: str, why: str, advice: str, next_: str) -> None:
    assert is_ in what_it_is(seen)
    assert why in " ".join(said.text for said in explain(seen))
    assert advice in " ".join(said.advice for said in explain(seen))
    assert next_ in next_step(seen)


def test_a_file_that_noarchive_keeps_here_wants_no_other_name() -> None:
    said = explain(replace(SYNCED, noarchive=True, problems=(("not-exportable", "noarchive"),), verdict="EXPORT"))
    assert [one.advice for one in said] == ["'fsxsync state --clear noarchive PATH'"]


def test_nothing_is_loaded_of_a_lost_file() -> None:
    lost = replace(SYNCED, local=STUB, remote=None, problems=(("lost", "m"),), is_loading=True)
    assert "being loaded" not in " ".join(said.text for said in explain(lost))
    assert next_step(lost) == "nothing until its object is back"


@pytest.mark.parametrize("kind", sorted(_PROBLEMS))
def test_every_problem_has_its_words_and_its_message(kind: str) -> None:
    said = explain(replace(SYNCED, problems=((kind, "the message"),)))

    assert len(said) == 1
    assert "the message" in said[0].text
    assert len(said[0].text) > 40
    assert said[0].advice or kind == "restoring"
