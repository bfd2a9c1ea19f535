"""The keyboard, key by key: the terminal does not wait for Enter and does not repeat what is typed."""

from __future__ import annotations

import os
import re
import sys
import termios
import tty
from typing import Any

_NAMES = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[C": "right",
    "\x1b[D": "left",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOC": "right",
    "\x1bOD": "left",
    "\x1b[H": "home",
    "\x1b[1~": "home",
    "\x1bOH": "home",
    "\x1b[5~": "page-up",
    "\x1b[6~": "page-down",
    "\x1b[Z": "back-tab",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x1b": "escape",
}
# ECMA-48 control sequences, SS3 keys, and single characters
_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|[\s\S]")


def parse(text: str) -> list[str]:
    """What was typed as keys: characters, and names of other keys; unknown ones are left out."""
    keys = (_NAMES.get(key, key) for key in _KEY.findall(text))
    return [key for key in keys if not key.startswith("\x1b")]


class Keyboard:
    """Use it in a ``with`` block: afterwards the terminal is as it was. ``descriptor``: to wait for."""

    def __init__(self) -> None:
        self.descriptor = sys.stdin.fileno()
        self._before: list[Any] = []
        self.closed = False

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self.descriptor)
        tty.setcbreak(self.descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self._before)

    def read(self) -> list[str]:
        """Keys pressed since; one call after the descriptor was readable. ``closed``: no more will come."""
        try:
            data = os.read(self.descriptor, 1024)
        except OSError:  # the terminal is gone
            data = b""
        self.closed = not data
        return parse(data.decode(errors="replace"))
