"""Filters of packet sockets: classic BPF (linux/bpf_common.h, linux/filter.h), run by the kernel."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k

LD_WORD, LD_HALF, LD_BYTE = 0x20, 0x28, 0x30
JUMP_EQUAL, JUMP_SET, RETURN = 0x15, 0x45, 0x06
ANCILLARY = 0xFFFFF000  # SKF_AD_OFF: words beside the packet

_INSTRUCTION = struct.Struct("=HBBI")
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_ETH_P_ALL = 3  # the NIC's ingress program stops frames before sockets of a single protocol see them


def encode(program: Iterable[Instruction]) -> bytes:
    """As the kernel wants it."""
    return b"".join(_INSTRUCTION.pack(*each) for each in program)


def attach(sock: socket.socket, program: Iterable[Instruction]) -> None:
    """Let through to ``sock`` only what the program accepts. Raises OSError when it is none."""
    code = encode(program)
    kept = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("HP", len(code) // _INSTRUCTION.size, ctypes.addressof(kept))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)


def open_at(interface: str, program: Iterable[Instruction]) -> socket.socket:
    """A non-blocking packet socket for what comes in at an interface and is accepted. Raises OSError.

    Its filter is there before it is bound, so that nothing else is ever queued.
    """
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        attach(sock, program)
        sock.bind((interface, _ETH_P_ALL))
    except BaseException:
        sock.close()
        raise
    return sock
