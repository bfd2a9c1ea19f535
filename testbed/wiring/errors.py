"""What the kernel refuses, in one sentence for the user."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from testbed.errors import LabError, MachineLacks


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn errors of netlink, ioctls and /proc/sys into LabError ("cannot DOING: why").

    A missing right is MachineLacks.
    """
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise _error(doing, error.code, f"{os.strerror(error.code)} ({error})") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise _error(doing, error.errno, f"{where}{error.strerror or error}") from error
    except LookupError as error:
        raise LabError(f"cannot {doing}: {error}") from error


def _error(doing: str, code: int | None, why: str) -> LabError | MachineLacks:
    if code in (errno.EPERM, errno.EACCES, errno.EROFS):
        return MachineLacks(f"cannot {doing}: {why}; see `testbed doctor`")
    return LabError(f"cannot {doing}: {why}")
