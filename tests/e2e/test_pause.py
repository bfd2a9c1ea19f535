"""`testbed test --pause-on-fail` at a terminal: the lab waits, Enter goes on, Ctrl-C ends it all."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import termios
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from support.cli import TWO_HOSTS, Cli
from support.waiting import until

pytestmark = pytest.mark.e2e
SECONDS = 60.0
PAUSED = rb"mtu\.py::(\S+)\s+failed\.\s+Its\s+lab\s+(\S+)\s+is\s+as"  # a narrow terminal breaks lines


class Terminal:
    """A terminal with `testbed` at it."""

    def __init__(self, cli: Cli, *words: object) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 200))
        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = cli.start(*words, start_new_session=True, **streams)
        os.close(slave)
        self.shown = b""

    def read(self) -> bool:
        """Take what it shows now; always true."""
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.shown += os.read(self.master, 1 << 16)
            except OSError:  # nobody has the other end any more
                break
        return True

    def pauses(self, count: int) -> list[tuple[str, str]]:
        """Tests and labs of the first pauses, once there are so many."""
        until(
            lambda: self.read() and len(re.findall(PAUSED, self.shown)) >= count,
            f"not {count} pauses",
            SECONDS,
        )
        return [(test.decode(), lab.decode()) for test, lab in re.findall(PAUSED, self.shown)]

    def end(self) -> int:
        """Its exit code; what it shows until then is taken."""
        until(lambda: self.read() and self.process.poll() is not None, "it does not end", SECONDS)
        return self.process.returncode


@contextlib.contextmanager
def at_terminal(cli: Cli, *words: object) -> Iterator[Terminal]:
    terminal = Terminal(cli, *words)
    try:
        with cli.ended(terminal.process):
            yield terminal
    finally:
        os.close(terminal.master)


def test_the_lab_waits_and_then_is_gone(cli: Cli, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    words = ("test", TWO_HOSTS, "--engine", "namespaces", "--suite", "mtu", "--plant", "headers-forgotten")
    with at_terminal(cli, *words, "--pause-on-fail", "--junit", junit) as terminal:
        os.write(terminal.master, b"\n")  # typed before anybody asked
        ((test, lab),) = terminal.pauses(1)
        assert test == "test_one_byte_more[ipv4]"
        assert f"testbed exec {lab} host1 -- sh".encode() in terminal.shown
        assert cli.output(lab, "host1", "hostname") == "host1\n"
        assert len(terminal.pauses(1)) == 1, "it went on by itself"
        os.write(terminal.master, b"\n")
        (_, (test, same)) = terminal.pauses(2)
        assert (test, same) == ("test_one_byte_more[ipv6]", lab)
        assert cli.names() == [lab]
        terminal.process.send_signal(signal.SIGINT)  # as the terminal does it for Ctrl-C
        assert terminal.end() == 128 + signal.SIGINT
    assert cli.names() == []
    cases = ET.parse(junit).iter("testcase")
    assert [case.get("name") for case in cases if case.find("failure") is not None] == [
        "test_one_byte_more[ipv4]",
        "test_one_byte_more[ipv6]",
    ]
