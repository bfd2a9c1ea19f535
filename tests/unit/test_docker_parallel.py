"""What the docker engine does in parallel is over when it returns, however it returns."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from testbed.engines.docker.engine import _each

SECONDS = 10.0


def test_an_interrupt_waits_for_what_is_under_way() -> None:
    """Containers that are made after a roll-back has looked would be left for ever."""
    may_end = threading.Event()
    begun: list[int] = []
    ended: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(0.2, may_end.set).start()
        assert may_end.wait(SECONDS)
        ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        _each(range(100), work)
    assert begun
    assert sorted(begun) == sorted(ended)
    assert len(begun) < 100  # what had not begun was not begun


def test_all_are_done_before_the_first_error_is_told() -> None:
    ended: list[int] = []

    def work(item: int) -> None:
        if item in (3, 5):
            raise ValueError(item)
        ended.append(item)

    with pytest.raises(ValueError, match=r"^3$"):
        _each(range(10), work)
    assert len(ended) == 8
    assert _each([], work) == []
