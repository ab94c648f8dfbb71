"""What a handler raises, and what the kernel is told."""

from __future__ import annotations

import errno
import logging
import os

import pytest
import trio
from pyfuse3 import FUSEError

from fsxsync.errors import AccessDenied, InvariantBroken, LocalChanged, NoSpace, Throttled
from fsxsync.mount.measuring import Measuring
from fsxsync.mount.replies import UNWANTED, replies


class Handlers:
    """Learns, as every class of handlers does, before it is asked."""

    has_learned = False

    def __init__(self) -> None:
        self.measuring = Measuring(dict)

    def catch_up(self) -> None:
        self.has_learned = True


async def outcome_of(error: BaseException) -> int:
    @replies
    async def handler(_: Handlers) -> None:
        raise error

    with pytest.raises(FUSEError) as caught:
        await handler(Handlers())
    return caught.value.errno


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FUSEError(errno.ESTALE), errno.ESTALE),
        (OSError(errno.ENOTEMPTY, "full"), errno.ENOTEMPTY),
        (PermissionError(errno.EACCES, "no"), errno.EACCES),
        (OSError("no number"), errno.EIO),
        (AccessDenied("reading"), errno.EACCES),
        (NoSpace("loading"), errno.ENOSPC),
        (ExceptionGroup("two", [NoSpace("loading"), NoSpace("loading")]), errno.ENOSPC),
        (Throttled("loading"), errno.EIO),  # EAGAIN is not for who waits
        (LocalChanged("loading"), errno.EIO),
    ],
)
async def test_an_expected_error_has_its_errno(
    error: BaseException, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert await outcome_of(error) == number
    assert not caplog.records


@pytest.mark.parametrize("error", [KeyError("a bug"), ExceptionGroup("a bug", [KeyError("a bug")])])
async def test_a_bug_is_logged_with_its_traceback_and_is_eio(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    assert await outcome_of(error) == errno.EIO
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "a bug" in caplog.text
    assert "Traceback" in caplog.text


async def test_what_was_answered_elsewhere_is_learned_before_the_handler_runs() -> None:
    @replies
    async def handler(handlers: Handlers) -> bool:
        return handlers.has_learned

    assert await handler(Handlers())


async def test_a_broken_invariant_passes() -> None:
    @replies
    async def handler(_: Handlers) -> None:
        raise InvariantBroken

    with pytest.raises(InvariantBroken):
        await handler(Handlers())


async def test_cancellation_passes() -> None:
    @replies
    async def handler(_: Handlers) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(0) as scope:
        await handler(Handlers())

    assert scope.cancelled_caught


@pytest.mark.parametrize(
    ("message", "argument", "shown"),
    [
        ("fuse_read(): fuse_reply_* failed with %s", os.strerror(errno.ENOENT), False),
        ("fuse_read(): fuse_reply_* failed with %s", os.strerror(errno.EINVAL), True),
        ("Failed to submit %s", os.strerror(errno.ENOENT), True),
    ],
)
def test_an_answer_that_nobody_waits_for_any_more_is_no_error(message: str, argument: str, shown: bool) -> None:
    record = logging.LogRecord("pyfuse3", logging.ERROR, "", 0, message, (argument,), None)

    assert UNWANTED.filter(record) is shown
