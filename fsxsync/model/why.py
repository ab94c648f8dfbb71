"""`fsxsync why`: what is known of a path, and what that means in words. Pure: each state has its sentences.

A sentence says what is; its advice what somebody can do, or that nothing need be done.
"""

from __future__ import annotations

from dataclasses import dataclass

from fsxsync.model.identity import Base, Kind, Local, Remote


@dataclass(frozen=True, slots=True)
class Said:
    """``advice`` is '' where nothing is to be done."""

    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Waiting:
    """The path's entry in the changelog."""

    age_s: float
    attempts: int
    error: str = ""
    waiting_for: str = ""
    is_local: bool = False
    is_remote: bool = False
    next_s: float = 0.0
    """Seconds until it is looked at; 0: now."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that was found out about a path. ``path`` is from the file system's root, for people."""

    path: str
    association: str = ""
    directory: str = ""
    repository: str = ""
    lifecycle: str = ""
    failure: str = ""
    key: str = ""
    not_exportable: str = ""
    """Why no object can be called so."""
    left_out: str = ""
    """Which filter leaves it out."""
    base: Base | None = None
    local: Local | None = None
    remote: Remote | None = None
    remote_error: str = ""
    """Why the object could not be looked at."""
    waiting: Waiting | None = None
    problems: tuple[tuple[str, str], ...] = ()
    """(kind, message)."""
    in_conflict: bool = False
    kept_as: str = ""
    """The copy beside it."""
    is_copy_of: str = ""
    """It is such a copy itself."""
    in_the_way_of: tuple[str, ...] = ()
    """Paths below it whose objects can't be files here: it is no directory."""
    is_written: bool = False
    is_loading: bool = False
    resident_bytes: int = 0
    norelease: bool = False
    noarchive: bool = False
    exports: frozenset[str] = frozenset()
    imports: frozenset[str] = frozenset()
    verdict: str = ""
    """What a look would do now; `reconcile.Verdict`'s name."""
    suppressed: str = ""
    """What it would do if the policy let it."""


_RESOLVE = "'fsxsync conflicts resolve PATH --keep local|remote|both'"
_PROBLEMS = {
    "lost": Said(
        "It is lost: its data was only in the repository, and its object is gone from there.",
        "put the object back, from a version or a backup, then 'fsxsync import PATH'; or remove the file",
    ),
    "damaged": Said(
        "It is a released file that lost its mark, or was written to behind the mount: it is not exported, since "
        "nobody knows which of its bytes are real.",
        "'fsxsync check --repair PATH' puts the mark back if it has no bytes; else copy it aside and remove it here",
    ),
    "damaged-object": Said(
        "What the store sends does not fit the checksum it tells, twice: nothing of it is used.",
        "compare the object with another copy, and upload it again",
    ),
    "refused": Said(
        "Its object can't be a file here, and stays in the repository.",
        "rename one of the two sides; the object is not touched by us",
    ),
    "not-exportable": Said("No object can hold it, so it stays here.", "give it another name, or leave it here"),
    "held": Said(
        "It waits for something in the repository, and goes on by itself.",
        "see the message: a lock that runs out, or an archived object that somebody has to restore",
    ),
    "restoring": Said("Its archived object is being restored, which takes up to days; readers wait for it."),
    "conflict": Said(
        "Both sides changed, and the association's policy lets neither move.",
        _RESOLVE,
    ),
}
_VERDICTS = {
    "NOTHING": "nothing: both sides agree, or may differ",
    "REFRESH": "write down what both sides are; no bytes move",
    "ADOPT": "write down that both sides are equal; no bytes move",
    "FORGET": "forget it: it is on neither side any more",
    "EXPORT": "upload the file",
    "EXPORT_META": "change the object's metadata",
    "EXPORT_DELETE": "delete the object, if it still is the version that was synced",
    "IMPORT": "let the object take the path",
    "IMPORT_META": "change the file's mode, owner and times",
    "IMPORT_DELETE": "remove the file, as its object was",
    "MERGE_EXPORT": "upload the file with the metadata of both sides",
    "MERGE_IMPORT": "let the object take the path, with the metadata of both sides",
    "KEEP_BOTH": "conflict: let the object take the path, and keep the file beside it",
    "LOST": "say that its data is lost",
    "DAMAGED": "say that it is damaged, and export nothing",
    "BLOCKED": "conflict: wait for a person's word",
}


def next_step(seen: Evidence) -> str:
    """What the next look would do."""
    if not seen.association or seen.left_out:
        return "nothing"
    if seen.remote_error:
        return "not known while the object can't be looked at"
    if _is_lost(seen) and seen.verdict in {"NOTHING", "LOST"}:
        return "nothing until its object is back"
    if seen.verdict in {"EXPORT", "MERGE_EXPORT"} and (seen.noarchive or seen.not_exportable):
        return "nothing: it is not exported"
    return _VERDICTS.get(seen.verdict, "nothing")


def _is_lost(seen: Evidence) -> bool:
    return any(kind == "lost" for kind, _ in seen.problems)


def what_it_is(seen: Evidence) -> str:
    """One sentence: the path's state."""
    local, base = seen.local, seen.base
    if local is None:
        if base is not None:
            return "gone here since it was last in sync"
        return "an object without a file here" if seen.remote is not None else "nothing: it is on neither side"
    kind = {Kind.FILE: "file", Kind.DIRECTORY: "directory", Kind.SYMLINK: "symlink", Kind.OTHER: "special file"}[
        local.kind
    ]
    if not seen.association:
        return f"a {kind} in no association"
    if local.stub is not None:
        if _is_lost(seen):
            return f"a lost {kind}: a stub whose object is gone"
        here = f", {seen.resident_bytes} of {local.size} bytes are here" if seen.resident_bytes else ""
        return f"a released {kind}: its data is in the repository{here}"
    if base is None or base.etag is None:
        if local.kind is Kind.DIRECTORY and base is not None:
            return "a directory that the repository has only through the keys below it"
        return f"a {kind} that was never exported"
    return f"a synced {kind}" if seen.verdict in {"NOTHING", "REFRESH"} and not seen.suppressed else f"a changed {kind}"


def explain(seen: Evidence) -> tuple[Said, ...]:
    """Why it is as it is: the most important sentence first."""
    if not seen.association:
        return (
            Said(
                "It lies in no association: an ordinary file of this host.",
                "'fsxsync associate S3URI PATH' links a directory with a repository",
            ),
        )
    said = [*_standing(seen), *_of_problems(seen), *_of_pending(seen), *_of_policy(seen)]
    return tuple(said) or (_at_rest(seen),)


def _standing(seen: Evidence) -> list[Said]:
    said: list[Said] = []
    if seen.left_out:
        said.append(Said(f"It is excluded: {seen.left_out}.", "change the filter if it shall take part"))
    if seen.lifecycle in {"MISCONFIGURED", "FAILED"}:
        said.append(
            Said(
                f"Its association is {seen.lifecycle}: {seen.failure}. Changes are kept until that is mended.",
                "mend what the message says; it is tried again by itself, at least every 30 s",
            )
        )
    elif seen.lifecycle in {"CREATING", "UPDATING", "DELETING"}:
        said.append(Said(f"Its association is {seen.lifecycle}; it goes on when that is over."))
    if seen.remote_error:
        said.append(Said(f"Its object could not be looked at: {seen.remote_error}."))
    return said


def _of_problems(seen: Evidence) -> list[Said]:
    said = _of_conflicts(seen)
    for kind, message in seen.problems:
        if kind == "not-exportable" and seen.noarchive:
            continue  # that is why, and it is said below
        known = _PROBLEMS.get(kind, Said(""))
        said.append(Said(f"{known.text} ({message})" if known.text else message, known.advice))
    if seen.noarchive:
        said.append(
            Said("noarchive is set on it or above it: it is not exported.", "'fsxsync state --clear noarchive PATH'")
        )
    elif seen.not_exportable and seen.local is not None and not any(k == "not-exportable" for k, _ in seen.problems):
        said.append(Said(f"It can't be exported: {seen.not_exportable}.", _PROBLEMS["not-exportable"].advice))
    return said


def _of_conflicts(seen: Evidence) -> list[Said]:
    said: list[Said] = []
    if seen.is_copy_of:
        said.append(
            Said(
                f"It is a conflict copy: both sides of {seen.is_copy_of} had changed, and this was the file here.",
                _RESOLVE,
            )
        )
    if seen.kept_as:
        said.append(
            Said(
                f"It is in conflict: the object took the path, and the file that was here is kept as {seen.kept_as}.",
                _RESOLVE,
            )
        )
    elif seen.in_conflict and not any(kind == "conflict" for kind, _ in seen.problems):
        said.append(
            Said(
                "It is in conflict: a file on one side, a directory on the other, or both changed.",
                f"{_RESOLVE}, or rename one side",
            )
        )
    said += [
        Said(
            f"It is in conflict: here it is no directory, and in the repository there is {other}.",
            f"'fsxsync conflicts resolve PATH{other.removeprefix(seen.path)} --keep local|remote|both', "
            "or rename one side",
        )
        for other in seen.in_the_way_of
    ]
    return said


def _of_pending(seen: Evidence) -> list[Said]:
    if seen.is_written:
        return [Said("Somebody has it open for writing: it is exported once that is closed.")]
    if seen.is_loading and not _is_lost(seen):
        return [Said("Its data is being loaded.")]
    waiting = seen.waiting
    if waiting is None or seen.left_out:
        return []
    what = {(True, False): "export", (False, True): "import"}.get((waiting.is_local, waiting.is_remote), "sync")
    if waiting.error:
        times = "once" if waiting.attempts == 1 else f"{waiting.attempts} times"
        again = f"; it is tried again in {waiting.next_s:.0f} s" if waiting.next_s > 0 else "; it is tried again now"
        return [Said(f"Its {what} failed {times}: {waiting.error}{again}.")]
    if waiting.waiting_for:
        return [Said(f"Its {what} is pending since {waiting.age_s:.0f} s: {waiting.waiting_for}.")]
    return [Said(f"Its {what} is pending since {waiting.age_s:.0f} s: it comes up in {waiting.next_s:.0f} s.")]


def _of_policy(seen: Evidence) -> list[Said]:
    if seen.left_out or not seen.suppressed:
        return []
    what = _VERDICTS.get(seen.suppressed, seen.suppressed)
    side, words = ("export", seen.exports) if "EXPORT" in seen.suppressed else ("import", seen.imports)
    allowed = ",".join(sorted(word.lower() for word in words)) or "none"
    return [
        Said(
            f"The two sides differ, and the association's policy (--{side} {allowed}) does not let it {what}.",
            f"'fsxsync association update ID --{side} new,changed,deleted', or a task: 'fsxsync {side} PATH'",
        )
    ]


def _at_rest(seen: Evidence) -> Said:
    local = seen.local
    if local is not None and local.stub is not None:
        kept = "" if not seen.norelease else " norelease is set: once loaded it stays."
        return Said(
            f"It was imported, or released; reading it loads its data.{kept}", "'fsxsync restore PATH' loads it now"
        )
    if seen.verdict not in {"NOTHING", "REFRESH", "ADOPT", "FORGET", ""}:
        return Said(
            "The two sides differ, and nothing is pending: a change that nobody was told of yet.",
            "a task brings it: 'fsxsync reconcile PATH'; or wait for the next listing or scan",
        )
    if local is None and seen.remote is None and seen.base is None:
        return Said("Nothing is here, nothing is in the repository, and nothing is pending.")
    kept = " norelease is set on it or above it: its data stays here." if seen.norelease else ""
    return Said(f"Both sides agree, and nothing is pending.{kept}")
