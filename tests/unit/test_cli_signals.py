"""A signal that ends a command ends it as interrupted, whatever a library makes of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from testbed.cli import main
from testbed.errors import LabError

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
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


def test_an_error_without_a_signal_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(**_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(main.cli, "main", run)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        main.main()
