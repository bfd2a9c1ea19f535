"""A signal that ends a command ends it as interrupted, whatever a library makes of it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from testbed.cli import main
from testbed.errors import LabError

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*NUMBERS, signal.SIGALRM)}
    hook = sys.unraisablehook
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)
    main._received.clear()


@pytest.mark.parametrize("error", [RuntimeError("Event loop stopped"), LabError("cannot wire")])
@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_signal_causes_is_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int, error: Exception
) -> None:
    def run(**_: object) -> None:
        try:
            os.kill(os.getpid(), number)
        except (KeyboardInterrupt, SystemExit):
            raise error from None

    monkeypatch.setattr(main.cli, "main", run)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 128 + number
    assert capsys.readouterr().err == "testbed: interrupted\n"


class Deaf:
    """Its end swallows what strikes there, as ends of objects do."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # the handler runs here


def test_an_interrupt_that_was_swallowed_strikes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(**_: object) -> None:
        Deaf()
        time.sleep(5)  # long enough to be struck

    monkeypatch.setattr(main.cli, "main", run)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == main.INTERRUPTED
    assert capsys.readouterr().err == "testbed: interrupted\n"


def test_an_error_without_a_signal_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(main.cli, "main", run)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main.main()
