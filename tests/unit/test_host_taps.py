"""A worker's taps: opened by an order, kept over changes, gone with their reader."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from support.host import CONFIGURE
from testbed.channel import Channel, pair
from testbed.errors import BadInput
from testbed.host.worker import Worker
from testbed.switch.pipeline import Pipeline
from testbed.switch.tap import TappedPipeline


class Ends:
    """A worker whose orders are carried out when they are given, and the reader's end of its taps."""

    def __init__(self, control: Channel, channel: Channel) -> None:
        self.worker = Worker(channel)
        self.control = control
        self.readers: list[socket.socket] = []

    def order(self, op: str, descriptors: tuple[int, ...] = (), **fields: object) -> dict[str, object]:
        """What the worker answers."""
        self.control.send({"op": op, **fields}, descriptors)
        self.worker._order()
        answer = self.control.receive()
        assert answer is not None
        return answer[0]

    def tap(self, name: str, point: str = "ingress") -> dict[str, object]:
        """Open a tap."""
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.readers.append(reader)
        with writer:
            return self.order("capture", (writer.fileno(),), id=name, point=point, vsid=None, snaplen=0)

    def turn(self) -> None:
        """What the worker's loop does with what is there to read."""
        for descriptor, _ in self.worker._poll.poll(0):
            self.worker._ready[descriptor]()

    @property
    def pipeline(self) -> Pipeline:
        """That in use."""
        return self.worker.datapath.pipeline


@pytest.fixture
def ends() -> Iterator[Ends]:
    control, worker = pair()
    with control, worker:
        made = Ends(control, worker)
        made.order("configure", **CONFIGURE)
        yield made
        for reader in made.readers:
            reader.close()
        made.turn()


def test_the_switchs_own_pipeline_is_back_when_all_readers_have_gone(ends: Ends) -> None:
    plain = ends.pipeline
    assert ends.tap("one")["result"] is None
    assert ends.tap("two")["result"] is None
    assert isinstance(ends.pipeline, TappedPipeline)
    ends.turn()  # nothing has happened
    ends.readers[0].close()
    ends.turn()
    assert isinstance(ends.pipeline, TappedPipeline)
    ends.readers[1].close()
    ends.turn()
    assert ends.pipeline is plain


def test_another_pipeline_is_tapped_too(ends: Ends) -> None:
    ends.tap("one")
    ends.order("configure", **{**CONFIGURE, "wnv": "below-switch"})
    assert isinstance(ends.pipeline, TappedPipeline)
    assert ends.pipeline.mode == "below-switch"
    ends.readers[0].close()
    ends.turn()
    assert type(ends.pipeline) is Pipeline
    assert ends.pipeline.mode == "below-switch"


def test_counts_are_known_after_the_end(ends: Ends) -> None:
    ends.tap("one")
    ends.worker.taps._open["one"].seen = 7
    assert ends.order("capture-counts", id="one")["result"] == {"seen": 7, "lost": 0}
    ends.readers[0].close()
    ends.turn()
    assert ends.order("capture-counts", id="one")["result"] == {"seen": 7, "lost": 0}
    assert ends.order("capture-counts", id="nobody")["result"] == {"seen": 0, "lost": 0}


def test_a_point_that_does_not_exist_is_refused_and_nothing_stays_open(ends: Ends) -> None:
    plain = ends.pipeline
    answer = ends.tap("one", "exit")
    assert answer["exit_code"] == BadInput.exit_code
    assert ends.readers[0].recv(1) == b""
    assert ends.pipeline is plain
