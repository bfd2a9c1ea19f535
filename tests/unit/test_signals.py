"""Signals that end the command, held back or ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from testbed import signals


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """What handlers of ours hear; afterwards the handlers are as before."""
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: came.append(number)) for number in signals.ENDING
    }
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


def test_deferred_to_the_end_of_the_block(heard: list[int]) -> None:
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert heard == []
    assert heard == [signal.SIGTERM]
    os.kill(os.getpid(), signal.SIGHUP)
    assert heard == [signal.SIGTERM, signal.SIGHUP]


def test_deferred_even_if_the_block_fails(heard: list[int]) -> None:
    def fail() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        raise KeyError

    with pytest.raises(KeyError), signals.deferred():
        fail()
    assert heard == [signal.SIGHUP]


def test_what_is_ignored_stays_so_and_a_child_hears_the_rest(heard: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command = ["python3", "-c", "import signal; print(*map(signal.getsignal, (2, 15)), sep='\\n')"]
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    assert said.split() == ["1", "0"]  # SIG_IGN, SIG_DFL
    assert heard == []


def test_other_threads_have_nothing_to_defer(heard: list[int]) -> None:
    before = [signal.getsignal(number) for number in signals.ENDING]
    inside: list[object] = []

    def work() -> None:
        with signals.deferred():
            inside.extend(signal.getsignal(number) for number in signals.ENDING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(5)
    assert inside == before


def test_undisturbed(heard: list[int]) -> None:
    with signals.undisturbed():
        os.kill(os.getpid(), signal.SIGTERM)
    assert heard == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
