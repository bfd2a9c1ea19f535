"""Frames at points of a lab while something happens: vm:NAME, HOST:NIC, cable:HOST/NIC and the others.

The points are those of ``testbed capture`` (docs/capture.md). A frame that must not appear is known to be
absent once a later one has passed on the same way: all of them are first in, first out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from testbed.capture import pcapng
from testbed.capture.filters import criteria
from testbed.conformance import observe
from testbed.lab import capture
from testbed.testing import nvgre

if TYPE_CHECKING:
    from testbed.capture.source import Reader
    from testbed.lab.lab import Lab
    from testbed.testing.nvgre import Nvgre

SECONDS = 5.0
_BATCH = 1 << 16
_PACE = 0.05


class Frame(NamedTuple):
    """time: nanoseconds since 1970. length: on the way; ``data`` may be cut. comments: of the switch."""

    point: str
    time: int
    data: bytes
    length: int
    outgoing: bool  # sent out of the interface at which it was seen
    comments: tuple[str, ...]

    @property
    def nvgre(self) -> Nvgre | None:
        """Its NVGRE headers and the frame inside, if it has any."""
        return nvgre.parse(self.data)

    @property
    def inner(self) -> bytes:
        """The customer's frame: the one inside NVGRE, or the frame itself."""
        found = self.nvgre
        return self.data if found is None else found.inner


Wanted = bytes | Callable[[Frame], bool]


class Watch:
    """All frames at some points since the ``with`` block was entered; afterwards those of the block.

    ``patterns``: names of points or globs. At a cable, outgoing is what goes to the host. Leaving the block
    raises AssertionError when frames were lost: then no count would be right.
    """

    def __init__(
        self,
        lab: Lab,
        patterns: Sequence[str],
        *,
        vsid: int | None = None,
        ca: str | None = None,
        bpf: str | None = None,
        snaplen: int = 0,
    ) -> None:
        self._lab = lab
        self._points = capture.choose(lab, patterns)
        self._criteria = criteria(vsid, ca, None, bpf)
        self._snaplen = snaplen
        self._stack = contextlib.ExitStack()
        self._readers: list[Reader] = []
        self._frames: list[Frame] = []

    def __enter__(self) -> Watch:
        opened = capture.opened(self._lab, self._points, self._criteria, self._snaplen)
        self._readers = self._stack.enter_context(opened)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            self._read()
            for reader in self._readers:
                reader.count()
            lost = [f"{reader.name}: {reader.lost}" for reader in self._readers if reader.lost]
        self._readers = []
        if lost and kind is None:
            raise AssertionError(f"frames came faster than they were read: {', '.join(lost)}")

    @property
    def points(self) -> list[str]:
        """The names of what is watched."""
        return [point.name for point in self._points]

    def frames(self, pattern: str = "*", wanted: Wanted = b"", outgoing: bool | None = None) -> list[Frame]:
        """Frames so far at the points that match, as they came at each point.

        ``wanted``: bytes that a frame holds, or what it fulfils. ``outgoing`` None: both directions.
        """
        self._read()
        return [each for each in self._frames if _fits(each, pattern, wanted, outgoing)]

    def count(self, pattern: str = "*", wanted: Wanted = b"", outgoing: bool | None = None) -> int:
        """How many :meth:`frames` there are."""
        return len(self.frames(pattern, wanted, outgoing))

    def wait(
        self,
        pattern: str,
        wanted: Wanted,
        again: Callable[[], object] = lambda: None,
        *,
        outgoing: bool | None = None,
        seconds: float = SECONDS,
        what: str = "the frame",
    ) -> Frame:
        """The first frame that fits. ``again`` is called at once and then now and then until it is there.

        Raises AssertionError with ``what`` at the deadline.
        """

        def fits(frame: Frame) -> bool:
            return _fits(frame, pattern, wanted, outgoing)

        sockets = [each.socket for each in self._readers]
        found = observe.first(self.frames, fits, sockets, again, seconds, _PACE)
        if found is None:
            raise AssertionError(f"{what} was not seen at {pattern} within {seconds:g} s")
        return found

    def _read(self) -> None:
        for reader in self._readers:
            self._frames += [
                Frame(
                    reader.name,
                    each.time,
                    each.data,
                    each.length,
                    each.flags & 3 == pcapng.OUTBOUND,
                    each.comments,
                )
                for each in reader.read(_BATCH)
            ]


def _fits(frame: Frame, pattern: str, wanted: Wanted, outgoing: bool | None) -> bool:
    if outgoing is not None and frame.outgoing is not outgoing:
        return False
    if not fnmatchcase(frame.point, pattern):
        return False
    return wanted in frame.data if isinstance(wanted, bytes) else wanted(frame)
