"""A VM's NIC: a TAP device in the VM's network namespace whose queues the host's switch reads.

A queue hands over super-packets with offload metadata (IFF_VNET_HDR). The device persists when
the switch closes its queues, as a NIC stays in a VM whose switch is restarted. Cables whose frames are
held back have TAP devices too, plain ones that end with their descriptor.
"""

from __future__ import annotations

import fcntl
import os
import struct

from testbed.errors import MachineLacks

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOFFLOAD = 0x400454D0
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000
_CSUM, _TSO4, _TSO6, _TSO_ECN = 1, 2, 4, 8

_DEVICE = "/dev/net/tun"


def open_queues(interface: str, count: int = 1, *, lso: bool = True, checksum: bool = True) -> list[int]:
    """Create the TAP device ``interface`` (or take it over) in the calling thread's network namespace.

    lso, checksum: what the guest may leave to it; the former only with the latter. Returns a descriptor
    for each queue, in the order of the guest's numbers. Raises MachineLacks without TUN/TAP, OSError.
    """
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if count > 1 else 0)
    request = struct.pack("16sH22x", interface.encode(), flags)
    offloads = (_CSUM if checksum else 0) | (_TSO4 | _TSO6 | _TSO_ECN if lso and checksum else 0)
    queues: list[int] = []
    try:
        for _ in range(count):
            queues.append(_open())
            fcntl.ioctl(queues[-1], _TUNSETIFF, request)
            fcntl.ioctl(queues[-1], _TUNSETOFFLOAD, offloads)
        fcntl.ioctl(queues[0], _TUNSETPERSIST, 1)
    except BaseException:
        for queue in queues:
            os.close(queue)
        raise
    return queues


def open_wire() -> tuple[int, str]:
    """A TAP device for frames as they are; its descriptor, with which it ends, and its name.

    Raises MachineLacks without TUN/TAP, OSError.
    """
    descriptor = _open()
    try:
        request = struct.pack("16sH22x", b"wire%d", _IFF_TAP | _IFF_NO_PI)
        named = fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor, named[:16].rstrip(b"\0").decode()


def _open() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, PermissionError) as error:
        raise MachineLacks(
            f"{_DEVICE}: {error.strerror}: load the module tun, or give the container the device"
        ) from error
