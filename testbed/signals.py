"""Handlers for a block, and signals that end the command kept away from what must not be left half-done.

Nothing masks them: a mask is one thread's, and a child process would inherit it.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import FrameType
from typing import TypeAlias

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
Handler: TypeAlias = Callable[[int, FrameType | None], object] | signal.Handlers


@contextlib.contextmanager
def handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """These handlers for the block; at its end those from before. In the main thread only."""
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """They take effect after the block. What is ignored stays so; a child that is begun in it hears them.

    Does nothing outside the main thread, to which alone Python hands signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        with handled(dict.fromkeys(heard, lambda number, _: came.append(number))):
            yield
    finally:
        if came:
            signal.raise_signal(came[0])


def undisturbed() -> AbstractContextManager[None]:
    """They are ignored: a roll-back is not interrupted by a second Ctrl-C."""
    return handled(dict.fromkeys(ENDING, signal.SIG_IGN))
