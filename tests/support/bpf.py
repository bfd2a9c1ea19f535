"""Run a loaded eBPF program on a frame, without a network (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

_BPF, _PROG_TEST_RUN = 321, 10  # x86-64's system call number; linux/bpf.h
_CONTEXT = 192  # bytes of struct __sk_buff
_CB = 48  # where its cb[5] lies


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
    )


class Ran(NamedTuple):
    verdict: int
    cb: tuple[int, ...]
    frame: bytes


def run(program: int, frame: bytes) -> Ran:
    """What the program says of a frame, what it has left in ``cb``, and the frame afterwards."""
    data = ctypes.create_string_buffer(frame, len(frame))
    out = ctypes.create_string_buffer(len(frame) + 256)
    context = ctypes.create_string_buffer(_CONTEXT)
    told = ctypes.create_string_buffer(_CONTEXT)
    attributes = _Attributes(
        prog_fd=program,
        data_size_in=len(frame),
        data_size_out=len(out),
        data_in=ctypes.addressof(data),
        data_out=ctypes.addressof(out),
        repeat=1,
        ctx_size_in=_CONTEXT,
        ctx_size_out=_CONTEXT,
        ctx_in=ctypes.addressof(context),
        ctx_out=ctypes.addressof(told),
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_BPF, _PROG_TEST_RUN, ctypes.byref(attributes), ctypes.sizeof(attributes)) < 0:
        raise OSError(ctypes.get_errno(), "BPF_PROG_TEST_RUN")
    words = (ctypes.c_uint32 * 5).from_buffer(told, _CB)
    return Ran(attributes.retval, tuple(words), out.raw[: attributes.data_size_out])
