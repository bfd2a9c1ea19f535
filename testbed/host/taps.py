"""The taps of a worker: captures that look into its switch, each until its reader goes."""

from __future__ import annotations

import socket
from collections.abc import Callable

from testbed.channel import Message
from testbed.errors import BadInput
from testbed.switch.datapath import Datapath
from testbed.switch.pipeline import Pipeline
from testbed.switch.state import SwitchState
from testbed.switch.tap import POINTS, Tap, TappedPipeline


class Taps:
    """Puts the switch's pipeline into place, tapped or not.

    ``watch`` calls a handler when the reader has gone, ``unwatch`` no more; ``renewed`` is called when the
    datapath has got another pipeline, which others may look at, too. KEPT results of taps that
    ended can still be asked for.
    """

    KEPT = 64

    def __init__(
        self,
        state: SwitchState,
        datapath: Datapath,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._datapath = datapath
        self._watch = watch
        self._unwatch = unwatch
        assert isinstance(datapath.pipeline, Pipeline)
        self.plain = datapath.pipeline
        """The switch's pipeline, without taps."""
        self._renewed = renewed
        self._open: dict[str, Tap] = {}
        self._ended: dict[str, Message] = {}

    def use(self, pipeline: Pipeline) -> None:
        """The switch has another pipeline."""
        self.plain = pipeline
        taps = list(self._open.values())
        neighbor, drops = self._state.neighbor, self._datapath.drops
        self._datapath.pipeline = TappedPipeline(pipeline, taps, neighbor, drops) if taps else pipeline
        self._renewed()
        self._state.forget_flows()

    def open(self, message: Message, descriptor: int) -> None:
        """A tap at one point; the descriptor, a Unix socket, is the tap's from now on. Raises BadInput."""
        sock = socket.socket(fileno=descriptor)
        if message["point"] not in POINTS:
            sock.close()
            raise BadInput(f"there is no point {message['point']!r} in a switch: one of {', '.join(POINTS)}")
        tap = Tap(sock, message["point"], message["vsid"], message["snaplen"])
        self._open[message["id"]] = tap
        self._watch(descriptor, lambda: self._close(message["id"]))
        self.use(self.plain)

    def counts(self, name: str) -> Message:
        """Packets that a tap has seen, and those of them that its reader had no room for."""
        if tap := self._open.get(name):
            return {"seen": tap.seen, "lost": tap.lost}
        return self._ended.get(name, {"seen": 0, "lost": 0})

    def _close(self, name: str) -> None:
        """Its reader has gone."""
        tap = self._open[name]
        self._ended[name] = self.counts(name)
        while len(self._ended) > self.KEPT:
            del self._ended[next(iter(self._ended))]
        del self._open[name]
        self._unwatch(tap.socket.fileno())
        tap.socket.close()
        self.use(self.plain)
