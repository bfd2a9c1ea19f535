"""Classic BPF (linux/filter.h): a small assembler with labels, joining of programs, attaching to sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import NamedTuple

from testbed import socketfilter
from testbed.errors import BadInput

MAXIMUM = 4096  # instructions, BPF_MAXINSNS
WHOLE = 0x40000  # what a program returns to keep all of a packet

RSH = 0x74  # A <- A >> k
JA, JEQ, JSET = 0x05, 0x15, 0x45
RET = 0x06

_CLASS, _MODE = 0x07, 0xE0
_LD, _LDX, _RET_CLASS = 0, 1, 6
_OF_PACKET = (0x20, 0x40, 0xA0)  # BPF_ABS, BPF_IND, BPF_MSH: k is an offset in the packet
_FARTHEST = 255


class Instruction(NamedTuple):
    """struct sock_filter."""

    code: int
    true: int
    false: int
    k: int


Program = tuple[Instruction, ...]


class Assembler:
    """Instructions one after the other; jumps go forward, to labels that stand later."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}
        self._made = 0

    def put(self, code: int, k: int) -> None:
        """An instruction that is no jump."""
        self._lines.append((code, k, "", ""))

    def jump(self, code: int, k: int, true: str = "", false: str = "") -> None:
        """A jump on a condition; no label: go on with the next instruction."""
        self._lines.append((code, k, true, false))

    def go(self, label: str) -> None:
        """A jump without a condition."""
        self._lines.append((JA, 0, label, ""))

    def label(self, name: str) -> None:
        """``name`` is the next instruction."""
        self._labels[name] = len(self._lines)

    def new(self) -> str:
        """A label that nobody else has."""
        self._made += 1
        return f".{self._made}"

    def program(self) -> Program:
        """All of it. Raises KeyError for a label that stands nowhere, OverflowError for a jump too far."""
        return tuple(self._resolved(at, *line) for at, line in enumerate(self._lines))

    def _resolved(self, at: int, code: int, k: int, true: str, false: str) -> Instruction:
        far = [self._labels[label] - at - 1 if label else 0 for label in (true, false)]
        if code == JA and true:
            return Instruction(code, 0, 0, far[0])
        if not 0 <= min(far) <= max(far) <= _FARTHEST:
            raise OverflowError(f"a jump over {far} instructions")
        return Instruction(code, far[0], far[1], k)


def shifted(program: Program, offset: int) -> Program:
    """The same program for what stands ``offset`` bytes later in the packet."""
    return tuple(
        each._replace(k=each.k + offset)
        if each.code & _CLASS in (_LD, _LDX) and each.code & _MODE in _OF_PACKET
        else each
        for each in program
    )


def joined(program: Program, accepted: int, refused: int) -> Program:
    """Its returns made jumps: over that many instructions behind its end. A negative number: return 0."""
    made = []
    for at, each in enumerate(program):
        if each.code & _CLASS == _RET_CLASS:
            if each.code != RET:
                raise BadInput("this expression returns what cannot be known before; use a simpler one")
            over = accepted if each.k else refused
            made.append(Instruction(JA, 0, 0, len(program) - at - 1 + over) if over >= 0 else each)
        else:
            made.append(each)
    return tuple(made)


def attach(sock: socket.socket, program: Program) -> None:
    """Let through to ``sock`` only what the program accepts. Raises BadInput when it is too long."""
    if len(program) > MAXIMUM:
        raise BadInput(f"the filter has {len(program)} instructions, the kernel takes {MAXIMUM}: simplify it")
    socketfilter.attach(sock, program)


def read(text: Iterable[str]) -> Program:
    """What ``tcpdump -ddd`` prints, without its first line, the number of instructions."""
    return tuple(Instruction(*(int(word) for word in line.split())) for line in text)
