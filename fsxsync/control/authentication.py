"""Who may use the API over TCP: whoever can read the credentials in the state directory, and signs with them.

A loopback port is open to every user of the host, and to every program that one of them runs. An association links any
directory of the tree with any bucket, in the daemon's name; so requests are signed as AWS's clients sign them (SigV4),
with a key of this daemon's own. Its file has the form of AWS's credentials files: AWS_SHARED_CREDENTIALS_FILE may name
it. The keys in the daemon's own environment will do as well: whoever has them has the buckets anyway.
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fsxsync.errors import BadInput

FILE = "api-credentials"
SKEW_S = 15 * 60
"""As AWS: an older signature may be somebody else's, written down."""
_ALGORITHM = "AWS4-HMAC-SHA256"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} Credential=(?P<id>[^/,\s]+)/(?P<scope>(?P<day>\d{{8}})/[^/,\s]+/[^/,\s]+/aws4_request),\s*"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_MUST_BE_SIGNED = frozenset({"host", "x-amz-date", "x-amz-target"})


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A pair that signs requests."""

    access_key_id: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id}, …)"

    @classmethod
    def of(cls, file: Path) -> Credentials:
        """Those in ``file``, which is made if it is not there, readable by its owner only. Blocking.

        Raises:
            BadInput: it can't be made or read.
        """
        try:
            if not file.exists():
                _write(file, cls(f"FSXSYNC{secrets.token_hex(8).upper()}", secrets.token_urlsafe(32)))
            parser = configparser.ConfigParser(interpolation=None)
            parser.read_string(file.read_text())
            section = parser["default"]
            return cls(section["aws_access_key_id"], section["aws_secret_access_key"])
        except (OSError, configparser.Error, KeyError, UnicodeDecodeError) as error:
            raise BadInput(
                f"the API's credentials {file} can't be used",
                type(error).__name__,
                advice="remove them; they are made again",
            ) from error

    @classmethod
    def of_environment(cls, env: Mapping[str, str]) -> Credentials | None:
        """The pair that boto3 would take from there."""
        access_key_id, secret_key = env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")
        return cls(access_key_id, secret_key) if access_key_id and secret_key else None

    def check(self, method: str, path: str, headers: Mapping[str, str], body: bytes, *, now_s: float) -> None:
        """The request was signed with these, for this very content, a short while ago.

        ``headers`` by their lower-case names.

        Raises:
            BadInput: it was not.
        """
        found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        if found is None:
            raise _refused("it is not signed")
        signed, date = found["signed"].split(";"), headers.get("x-amz-date", "")
        if not set(signed) >= _MUST_BE_SIGNED or found["day"] != date[:8]:
            raise _refused("its signature leaves out what it has to cover")
        if abs(_seconds(date) - now_s) > SKEW_S:
            raise _refused("its signature is too old, or a clock is wrong")
        lines = [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed]
        asked = "\n".join((method, path, "", *lines, "", found["signed"], hashlib.sha256(body).hexdigest()))
        text = "\n".join((_ALGORITHM, date, found["scope"], hashlib.sha256(asked.encode()).hexdigest()))
        key = f"AWS4{self.secret_key}".encode()
        for part in found["scope"].split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        expected = hmac.digest(key, text.encode(), "sha256").hex()
        # Both are compared whatever comes of the first: how long it takes tells nothing.
        is_ours = hmac.compare_digest(found["id"].encode(), self.access_key_id.encode())
        if not hmac.compare_digest(found["signature"], expected) or not is_ours:
            raise _refused("its signature is not one of this daemon's credentials")


def check_any(
    any_of: Sequence[Credentials], method: str, path: str, headers: Mapping[str, str], body: bytes, *, now_s: float
) -> None:
    """See `Credentials.check`: with one of these.

    Raises:
        BadInput: with none of them.
    """
    found = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    named = next((one for one in any_of if found is not None and one.access_key_id == found["id"]), any_of[0])
    named.check(method, path, headers, body, now_s=now_s)


def _write(file: Path, made: Credentials) -> None:
    text = f"[default]\naws_access_key_id = {made.access_key_id}\naws_secret_access_key = {made.secret_key}\n"
    beside = file.with_name(file.name + ".new")
    beside.unlink(missing_ok=True)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as stream:
        stream.write(text)
    beside.rename(file)


def _seconds(date: str) -> float:
    try:
        return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise _refused("its x-amz-date is no time") from error


def _refused(why: str) -> BadInput:
    return BadInput(
        "the request is refused", why, advice=f"sign with the credentials in {FILE} of the daemon's state directory"
    )
