"""The one place where errors become errnos for the kernel."""

from __future__ import annotations

import errno
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyfuse3 import FUSEError

from fsxsync.errors import FsxSyncError
from fsxsync.mount.measuring import Measuring

log = logging.getLogger(__name__)


class Measured(Protocol):
    measuring: Measuring

    def catch_up(self) -> None:
        """Take in what happened before this request was made."""


S = TypeVar("S", bound=Measured)
P = ParamSpec("P")
R = TypeVar("R")


def replies(handler: Callable[Concatenate[S, P], Awaitable[R]]) -> Callable[Concatenate[S, P], Any]:
    """Wrap a FUSE handler: whatever it raises costs one request, never the mount.

    pyfuse3 ends the whole session on anything but FUSEError. Cancelled and InvariantBroken are no `Exception`
    and end it on purpose.
    """

    @functools.wraps(handler)
    async def wrapper(operations: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        began_ns = time.perf_counter_ns()
        try:
            operations.catch_up()
            return await handler(operations, *args, **kwargs)
        except FUSEError:
            raise
        except FsxSyncError as error:
            raise FUSEError(_told(error)) from error
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            expected = _first_expected(error)  # of downloads that failed side by side
            if expected is not None:
                raise FUSEError(_told(expected)) from error
            log.exception("bug in FUSE handler %s", handler.__name__)
            raise FUSEError(errno.EIO) from error
        finally:
            operations.measuring.handled(handler.__name__, time.perf_counter_ns() - began_ns)

    return wrapper


def _told(error: FsxSyncError) -> int:
    """EAGAIN is for us, who try again. To an application it means that a file is not to block, and none of them asked
    for that: Python's read() makes None of it, and says nothing."""
    return errno.EIO if error.errno == errno.EAGAIN else error.errno


def _first_expected(error: BaseException) -> FsxSyncError | None:
    """The first leaf of a group that holds nothing but expected errors."""
    if isinstance(error, BaseExceptionGroup) and error.split(FsxSyncError)[1] is None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error if isinstance(error, FsxSyncError) else None


class Unwanted(logging.Filter):
    """Drops what pyfuse3 says when the kernel did not want an answer any more (ENOENT): whoever asked was killed, or
    the mount was unmounted meanwhile. Nobody has to do anything about it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not ("fuse_reply_* failed" in str(record.msg) and record.args == (os.strerror(errno.ENOENT),))


UNWANTED = Unwanted()
