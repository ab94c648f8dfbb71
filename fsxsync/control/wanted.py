"""What ``Associate`` and ``UpdateAssociation`` ask for: members of a request -> an `Association`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from fsxsync.control.members import ARCHIVE_PATH_MAX, Members
from fsxsync.errors import AssociationNotFound, BadInput
from fsxsync.model.association import (
    ALL_EVENTS,
    Association,
    Event,
    Limits,
    OnConflict,
    Policy,
    parse_directory,
    parse_s3_uri,
)

POLL_S = 60.0
"""How often the listing is read where no queue tells of changes."""
POLL_MAX_S = 7 * 86400.0
SIZE_MAX = (1 << 63) - 1
AGE_MAX_S = 200 * 365 * 86400
"""Nanoseconds of it still fit in the catalog's 64 bits."""
ID_MAX = (1 << 32) - 2
"""The highest uid or gid: -1 means "leave it" to chown(2)."""
ACLS = (
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
)
RESTORES = ("off", "bulk", "standard", "expedited")
RESTORE_DAYS_MAX = 36500
_EVENT_WORDS = tuple(event.value.lower() for event in Event)
_SSE = r"AES256|aws:kms(:.+)?"

CHANGEABLE = frozenset(
    {
        "import",
        "export",
        "events",
        "poll_s",
        "on_conflict",
        "include",
        "exclude",
        "default_excludes",
        "min_size",
        "max_size",
        "min_age_s",
        "max_age_s",
        "endpoint_url",
        "region",
        "profile",
        "anonymous",
        "requester_pays",
        "acl",
        "sse",
        "storage_class",
        "export_xattrs",
        "restore_archived",
        "restore_days",
        "uid",
        "gid",
        "file_mode",
        "dir_mode",
        "squash",
        "read_only",
    }
)
CREATABLE = CHANGEABLE | {"repository", "path", "import_metadata", "wait"}


def new_association(members: Members) -> Association:
    """The association that a request describes, without an id.

    Raises:
        BadInput: a member is unknown, missing or off.
    """
    members.only(CREATABLE)
    bucket, prefix = parse_s3_uri(members.required_text("repository", longest=ARCHIVE_PATH_MAX))
    plain = Association(
        id="",
        directory=parse_directory(members.required_text("path")),
        bucket=bucket,
        prefix=prefix,
        policy=Policy(ALL_EVENTS, ALL_EVENTS),
        import_metadata=members.flag("import_metadata") is not False,
    )
    if "poll_s" not in members:
        plain = replace(plain, poll_s=POLL_S if members.text("events") in {None, "none"} else 0.0)
    return changed_association(plain, members)


def changed_association(before: Association, members: Members) -> Association:
    """``before`` with what the request names; what it does not name stays.

    Raises:
        BadInput
    """
    access, defaults = before.access, before.defaults
    uid, gid = members.whole("uid", 0, ID_MAX), members.whole("gid", 0, ID_MAX)
    poll_s, region = members.number("poll_s", 0, POLL_MAX_S), members.text("region", r"[A-Za-z0-9-]+")
    anonymous, pays = members.flag("anonymous"), members.flag("requester_pays")
    usual, xattrs = members.flag("default_excludes"), members.flag("export_xattrs")
    after = replace(
        before,
        access=replace(
            access,
            endpoint_url=members.text("endpoint_url", r"https?://[^/\s@?#]+(/[^\s?#]*)?") or access.endpoint_url,
            region=region or access.region,
            profile=members.text("profile") or access.profile,
            anonymous=access.anonymous if anonymous is None else anonymous,
            requester_pays=access.requester_pays if pays is None else pays,
            acl=members.word("acl", ACLS) or access.acl,
            sse=members.text("sse", _SSE) or access.sse,
            storage_class=members.text("storage_class", r"[A-Z0-9_]+") or access.storage_class,
        ),
        defaults=replace(
            defaults,
            uid=defaults.uid if uid is None else uid,
            gid=defaults.gid if gid is None else gid,
            file_mode=_mode(members, "file_mode", defaults.file_mode),
            dir_mode=_mode(members, "dir_mode", defaults.dir_mode),
        ),
        squash=_owner(members, "squash", before.squash),
        events=_queue(members, before) if "events" in members else before.events,
        events_made=members.text("events") == "create" if "events" in members else before.events_made,
        poll_s=before.poll_s if poll_s is None else poll_s,
        include=_globs(members, "include", before.include),
        exclude=_globs(members, "exclude", before.exclude),
        default_excludes=before.default_excludes if usual is None else usual,
        limits=_limits(members, before.limits),
        export_xattrs=before.export_xattrs if xattrs is None else xattrs,
        restore_archived=members.word("restore_archived", RESTORES) or before.restore_archived,
        restore_days=members.whole("restore_days", 1, RESTORE_DAYS_MAX) or before.restore_days,
    )
    if after.access.anonymous and after.access.profile:
        raise members.refuse("anonymous", "it can't be used together with a profile")
    return _with_policy(after, members)


def _with_policy(association: Association, members: Members) -> Association:
    policy = association.policy
    imports = _events(members, "import", policy.imports)
    exports = _events(members, "export", policy.exports)
    wish = members.flag("read_only")
    read_only = association.read_only if wish is None else wish
    if association.access.anonymous:
        # Whoever sends no credentials can't be told from anybody else, and no store lets anybody write.
        if wish is False:
            raise members.refuse("read_only", "an anonymous association can only be read")
        read_only = True
    if read_only:
        if exports and "export" in members:
            which = "an anonymous" if association.access.anonymous else "a read-only"
            raise members.refuse("export", f"{which} association exports nothing")
        exports = frozenset()
    word = members.word("on_conflict", tuple(choice.value for choice in OnConflict))
    on_conflict = OnConflict(word) if word else policy.on_conflict
    return replace(association, read_only=read_only, policy=Policy(imports, exports, on_conflict))


def _events(members: Members, name: str, before: frozenset[Event]) -> frozenset[Event]:
    words = members.texts(name, most=len(_EVENT_WORDS))
    if words is None:
        return before
    for word in words:
        if word not in _EVENT_WORDS:
            raise members.refuse(name, f"'{word}' is none of {', '.join(_EVENT_WORDS)}")
    return frozenset(Event(word.upper()) for word in words)


def _queue(members: Members, before: Association) -> str | None:
    source = members.text("events")
    if source is None or source == "none":
        return None
    if source == "create":  # its URL is known once it is made
        return before.events if before.events_made else None
    if not re.fullmatch(r"sqs:https?://[^/\s]+/\S+", source):
        raise members.refuse("events", f"'{source}' is neither sqs:QUEUE_URL nor create nor none")
    return source.removeprefix("sqs:")


def _mode(members: Members, name: str, before: int) -> int:
    text = members.text(name)
    if text is None:
        return before
    if not re.fullmatch(r"(0o?)?[0-7]{3,4}", text):
        raise members.refuse(name, f"'{text}' is no octal mode like 0644")
    return int(text.removeprefix("0o"), 8)


def _owner(members: Members, name: str, before: tuple[int, int] | None) -> tuple[int, int] | None:
    text = members.text(name, r"[0-9]{1,10}:[0-9]{1,10}|none")
    if text is None:
        return before
    if text == "none":
        return None
    uid, gid = map(int, text.split(":"))
    if max(uid, gid) > ID_MAX:
        raise members.refuse(name, f"'{text}' has an id over {ID_MAX}")
    return uid, gid


def _globs(members: Members, name: str, before: tuple[str, ...]) -> tuple[str, ...]:
    globs = members.texts(name, most=1000)
    if globs is None:
        return before
    for glob in globs:
        if not glob.strip("/"):
            raise members.refuse(name, f"'{glob}' matches no path below the association")
    return globs


def _limits(members: Members, before: Limits) -> Limits:
    """Sizes in bytes and ages in seconds; 0 takes a limit away."""
    after = Limits(
        min_size=_limit(members.whole("min_size", 0, SIZE_MAX), before.min_size),
        max_size=_limit(members.whole("max_size", 0, SIZE_MAX), before.max_size),
        min_age_ns=_age(members, "min_age_s", before.min_age_ns),
        max_age_ns=_age(members, "max_age_s", before.max_age_ns),
    )
    for name, low, high in (
        ("min_size", after.min_size, after.max_size),
        ("min_age_s", after.min_age_ns, after.max_age_ns),
    ):
        if low is not None and high is not None and low > high:
            raise members.refuse(name, "it is over the maximum, so that nothing would travel")
    return after


def _limit(given: int | None, before: int | None) -> int | None:
    return before if given is None else given or None


def _age(members: Members, name: str, before: int | None) -> int | None:
    given = members.number(name, 0, AGE_MAX_S)
    return _limit(None if given is None else int(given * 1e9), before)


def find(word: str, associations: Iterable[Association]) -> Association:
    """The association with that id, or at that path of the file system.

    Raises:
        AssociationNotFound, BadInput
    """
    if word.startswith("/"):
        directory = parse_directory(word)
        for association in associations:
            if association.directory == directory:
                return association
        raise AssociationNotFound(f"association {word}", "there is none at that path")
    if not re.fullmatch(r"dra-[0-9a-f]{8,}", word):
        raise BadInput(f"'{word}' is no association", "it is neither an id nor a path", advice="write dra-… or /path")
    for association in associations:
        if association.id == word:
            return association
    raise AssociationNotFound(f"association {word}", "there is none of that id")
