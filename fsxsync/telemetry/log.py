"""The log: for whoever runs the daemon. One line a fact: a constant message and fields (``extra=``).

What users and scripts read is the event log (`eventlog`). Every module that logs has
``log = logging.getLogger(__name__)``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
import unicodedata
from typing import Any, Literal, TextIO

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the reading direction: with them a name can look like another one."""
_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})

_SECRET = re.compile(
    r"""(?ix)
    (?P<name>
        x-amz-(?:signature|credential|security-token) \s* = \s*
      | x-amz-security-token ['"]? \s* :
      | (?:proxy-)?authorization ['"]? \s* [:=]
      | (?:aws_?)? secret_?(?:access_?)?key ['"]? \s* [:=]
      | (?:aws_?)? session_?token ['"]? \s* [:=]
    )
    (?P<space> \s* (?:b?['"])? )
    (?P<value> AWS4-[A-Z0-9-]+ [^'"\r\n]* | (?:basic|bearer) \s+ [^\s'"]+ | [^\s'"&,;]+ )
    """
)

_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET = ("botocore", "boto3", "urllib3", "s3transfer", "hypercorn", "werkzeug")
"""Their DEBUG lines hold signed requests, and nothing of theirs is a fact for our reader."""
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def escape(text: str) -> str:
    """A name from outside, safe to print: what would steer a terminal or break a line is shown as its
    code."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _CATEGORIES and character not in _BIDI:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as os.fsdecode gives it
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"


def redact(text: str) -> str:
    """Without what would let a reader act in our name: signatures, tokens, secret keys."""
    return _SECRET.sub(lambda found: f"{found['name']}{found['space']}…", text)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as ``extra=``."""
    return {name: value for name, value in vars(record).items() if name not in _OWN_FIELDS}


class KeyValueFormatter(logging.Formatter):
    """``2026-11-23T17:52:29.123Z WARNING fsxsync.sync.look: message path=/a b="c d"``; a traceback follows on
    lines that start with ``    |``. Under journald, which has the time, the line starts with ``<4>``."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        start = f"<{_SYSLOG.get(record.levelno, 6)}>" if self._journal else f"{_iso(record)} {record.levelname} "
        fields = "".join(f" {name}={_value(value)}" for name, value in fields_of(record).items())
        lines = [f"{start}{record.name}: {_printable(record.getMessage())}{fields}"]
        lines += [f"    | {_printable(line)}" for line in _trace(self, record).splitlines()]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and ``trace`` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _iso(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _printable(record.getMessage()),
        }
        for name, value in fields_of(record).items():
            plain = value is None or isinstance(value, int | float)
            document.setdefault(name, value if plain else _printable(_text(value)))
        trace = _trace(self, record)
        if trace:
            document["trace"] = [_printable(line) for line in trace.splitlines()]
        return json.dumps(document)


def setup_logging(
    level: str, *, style: Literal["text", "json"] = "text", stream: TextIO | None = None
) -> logging.Handler:
    """Send the log of this process to ``stream`` (stderr), in place of what was set up before.

    ``level`` is one of `LEVELS`.
    """
    journal = stream is None and "JOURNAL_STREAM" in os.environ
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else KeyValueFormatter(journal=journal))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, KeyValueFormatter | JsonFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


def _printable(text: str) -> str:
    return escape(redact(text))


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _value(value: object) -> str:
    text = _printable(_text(value))
    if text and not any(character in text for character in ' ="'):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _iso(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03d}Z"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
