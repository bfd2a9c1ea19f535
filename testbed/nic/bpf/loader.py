"""Load a compiled eBPF object through libbpf and hand out its programs' file descriptors."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from testbed.errors import MachineLacks

_OBJECTS = Path(__file__).parent


@cache
def _libbpf() -> ctypes.CDLL:
    for soname in ("libbpf.so.1", "libbpf.so.0"):
        try:
            lib = ctypes.CDLL(soname, use_errno=True)
            break
        except OSError:
            continue
    else:
        raise MachineLacks("libbpf.so.1 is missing: install the package libbpf1")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [text, pointer]),
        ("bpf_object__load", ctypes.c_int, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__find_program_by_name", pointer, [pointer, text]),
        ("bpf_program__fd", ctypes.c_int, [pointer]),
        ("bpf_object__find_map_fd_by_name", ctypes.c_int, [pointer, text]),
        ("libbpf_set_print", pointer, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    lib.libbpf_set_print(None)  # libbpf writes to stderr on its own otherwise
    return lib


def load(object_name: str, *programs: str) -> list[int]:
    """File descriptors of ``programs`` in ``testbed/nic/bpf/<object_name>.o``, in that order.

    The caller closes them; attached programs live on without them. Raises MachineLacks when the
    object was not compiled or the kernel refuses it.
    """
    with _loaded(object_name) as (lib, handle):
        return [_program(lib, handle, name) for name in programs]


def load_with_map(object_name: str, name: str, *programs: str) -> tuple[int, list[int]]:
    """File descriptors of a map and of programs that use it; otherwise as :func:`load`."""
    with _loaded(object_name) as (lib, handle):
        found = lib.bpf_object__find_map_fd_by_name(handle, name.encode())
        if found < 0:
            raise MachineLacks(f"the eBPF object holds no map {name}: install testbed again")
        return os.dup(found), [_program(lib, handle, program) for program in programs]


@contextmanager
def _loaded(object_name: str) -> Iterator[tuple[ctypes.CDLL, int]]:
    path = _OBJECTS / f"{object_name}.o"
    if not path.exists():
        raise MachineLacks(
            f"{path} is not compiled: install clang, llvm, libbpf-dev and linux-libc-dev, "
            "then install testbed again"
        )
    lib = _libbpf()
    handle = lib.bpf_object__open_file(os.fsencode(path), None)
    if not handle:
        raise MachineLacks(f"libbpf can't read {path}: {os.strerror(ctypes.get_errno())}")
    try:
        if (code := lib.bpf_object__load(handle)) < 0:
            raise MachineLacks(f"the kernel refuses the eBPF programs of {path.name}: {os.strerror(-code)}")
        yield lib, handle
    finally:
        lib.bpf_object__close(handle)


def _program(lib: ctypes.CDLL, handle: int, name: str) -> int:
    program = lib.bpf_object__find_program_by_name(handle, name.encode())
    if not program:
        raise MachineLacks(f"the eBPF object holds no program {name}: install testbed again")
    # Closing the object closes its own descriptor, so hand out a copy.
    return os.dup(lib.bpf_program__fd(program))
