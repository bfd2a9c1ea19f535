"""Offload features of a cable's two ends: what makes a wire carry frames or aggregates.

Names are the kernel's (net/ethtool/common.c), as ``ethtool -k`` prints them for veth. One
SIOCETHTOOL ioctl changes all features of an interface and a second one reads them back, both in
the network namespace of the calling thread.

``wire: frames`` is a real cable. The NIC in the host has no segmentation offload *towards the
wire*, so the kernel cuts super-packets into MTU frames just before they enter the cable (LSO) and
completes their checksums there. GRO at the receiving NIC coalesces them again (RSC); a veth does
that only while its peer, the switch port, has every TCP segmentation feature off
(drivers/net/veth.c, veth_skb_is_eligible_for_gro).

``wire: aggregated`` passes super-packets through unchanged: LSO and RSC in one. GRO does nothing there,
as the switch port has its segmentation features; it stays on, since switching it loses what a veth has
queued, and a cable may be switched while it is in use.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import socket
import struct
from collections.abc import Iterable, Mapping

from testbed.errors import LabError
from testbed.topology.schema import Wire

_SIOCETHTOOL = 0x8946  # linux/sockios.h
# linux/ethtool.h
_GSTRINGS = 0x1B
_GSSET_INFO = 0x37
_GFEATURES = 0x3A
_SFEATURES = 0x3B
_SS_FEATURES = 4
_NAME_LENGTH = 32

_TSO = (
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
)
_OTHER_SEGMENTATION = (
    "tx-udp-segmentation",
    "tx-sctp-segmentation",
    "tx-gre-segmentation",
    "tx-gre-csum-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
)
_SEGMENTATION = _TSO + _OTHER_SEGMENTATION
_CHECKSUM = "tx-checksum-ip-generic"
_GRO = "rx-gro"

CABLE_HOST: Mapping[Wire, Mapping[str, bool]] = {
    # Without checksum offload the frames on the cable carry complete checksums.
    "frames": dict.fromkeys((*_SEGMENTATION, _CHECKSUM), False) | {_GRO: True},
    "aggregated": dict.fromkeys((*_SEGMENTATION, _CHECKSUM), True) | {_GRO: True},
}
"""Features of the end of a cable that is the NIC in the host, by wire."""

CABLE_FABRIC: Mapping[Wire, Mapping[str, bool]] = {
    "frames": dict.fromkeys((*_SEGMENTATION, _GRO), False),
    "aggregated": dict.fromkeys(_SEGMENTATION, True) | {_GRO: False},
}
"""Features of the end of a cable that is the switch port, by wire."""


def guest_features(*, lso: bool) -> dict[str, bool]:
    """Features of a guest's adapter, a TAP or veth device, by whether it may hand over super-packets."""
    return dict.fromkeys(_TSO[:3], lso) | {"tx-generic-segmentation": lso}


def adapter_features(*, lso: bool, checksum: bool) -> dict[str, bool]:
    """All features of a guest's adapter that its offloads decide, each as far as the adapter supports it."""
    return {_CHECKSUM: checksum} | guest_features(lso=lso)


def _ioctl_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def _ethtool(sock: socket.socket, interface: str, request: bytes, size: int) -> bytes:
    """One SIOCETHTOOL call with ``request`` padded to ``size`` bytes; what the kernel left in it."""
    buffer = ctypes.create_string_buffer(request, size)
    # struct ifreq: the name, then a union of which ifr_data, a pointer, is used here
    fcntl.ioctl(sock, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), ctypes.addressof(buffer)))
    return buffer.raw


@functools.cache
def _feature_names() -> tuple[str, ...]:
    """The name of every feature bit of this kernel; all interfaces share them, ``lo`` is always there."""
    with _ioctl_socket() as sock:
        # struct ethtool_sset_info: cmd, reserved, u64 mask of string sets, then one u32 length
        info = _ethtool(sock, "lo", struct.pack("=IIQ", _GSSET_INFO, 0, 1 << _SS_FEATURES), 20)
        (count,) = struct.unpack_from("=I", info, 16)
        # struct ethtool_gstrings: cmd, string set, length, then the strings
        request = struct.pack("=III", _GSTRINGS, _SS_FEATURES, count)
        strings = _ethtool(sock, "lo", request, 12 + count * _NAME_LENGTH)[12:]
    return tuple(
        strings[at : at + _NAME_LENGTH].split(b"\0")[0].decode()
        for at in range(0, count * _NAME_LENGTH, _NAME_LENGTH)
    )


def _read(sock: socket.socket, interface: str) -> int:
    """Bit mask of the active features."""
    words = (len(_feature_names()) + 31) // 32
    data = _ethtool(sock, interface, struct.pack("=II", _GFEATURES, words), 8 + 16 * words)
    # per word of 32 features: available, requested, active, never changed
    return sum(struct.unpack_from("=I", data, 8 + 16 * word + 8)[0] << 32 * word for word in range(words))


def _mask(names: tuple[str, ...], wanted: Iterable[str]) -> int:
    return sum(1 << names.index(name) for name in wanted)


def get_features(interface: str) -> dict[str, bool]:
    """The active offload features of ``interface`` in the calling thread's network namespace, by name.

    Raises OSError (ENODEV: no such interface).
    """
    with _ioctl_socket() as sock:
        active = _read(sock, interface)
    return {name: bool(active >> bit & 1) for bit, name in enumerate(_feature_names()) if name}


def set_features(interface: str, wanted: Mapping[str, bool]) -> None:
    """Switch offload features of ``interface`` in the calling thread's network namespace.

    A feature that the kernel does not know is passed over when it is wanted off. Raises LabError
    naming every wanted feature that did not take, OSError (ENODEV: no such interface).
    """
    with _ioctl_socket() as sock:
        names = _feature_names()
        known = {name: value for name, value in wanted.items() if name in names}
        valid = _mask(names, known)
        requested = _mask(names, (name for name, value in known.items() if value))
        words = (len(names) + 31) // 32
        request = struct.pack("=II", _SFEATURES, words) + b"".join(
            struct.pack("=II", valid >> 32 * word & 0xFFFFFFFF, requested >> 32 * word & 0xFFFFFFFF)
            for word in range(words)
        )
        _ethtool(sock, interface, request, len(request))
        active = _read(sock, interface)
    refused = [name for name, value in known.items() if bool(active >> names.index(name) & 1) is not value]
    refused += [name for name, value in wanted.items() if value and name not in known]
    if refused:
        states = ", ".join(f"{name} {'on' if wanted[name] else 'off'}" for name in refused)
        raise LabError(f"interface {interface}: the kernel did not switch {states}")
