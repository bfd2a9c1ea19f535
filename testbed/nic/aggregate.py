"""An aggregate of links at a switch: which member a frame takes, and memory shared with ``bpf/aggregate.c``.

The rule: the member at position ``hash % number of active members``. The hash is over big-endian words:

- NVGRE (GRE with a key and nothing else, type 0x6558, over IPv4 or IPv6): the outer addresses and the key,
  which is the VSID and the FlowID (RFC 7637 section 3.2: the FlowID is there for this);
- TCP and UDP: addresses and ports; other IP and fragments: addresses;
- the rest: both MACs and the Ethernet type. A VLAN tag is passed over.

The hash starts with 0x7e57bed5. Each word, of 32 bits, is XORed onto it, and then it is put through the
finalizer of MurmurHash3 (fmix32). So all of its bits depend on all words, the low ones too.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

from testbed.nic.classifier import parse_ip

MEMBERS = 8
"""As many as an aggregate may have (teams of Windows may have 32 NICs, switches commonly take 8)."""
SLOW_MARK = 0x7E57BE00
"""A slow protocol's frame at the ears has this mark, plus the position of the member that it came by."""

_SEED = 0x7E57BED5
_GRE = 47
_NVGRE = b"\x20\x00\x65\x58"
_TAGS = (0x8100, 0x88A8)
_ACTIVE = struct.Struct("=Q")
_INDEXES = struct.Struct("=II8I")  # of the bridge's port, of its other end, of the members
_INDEXES_AT = _ACTIVE.size
_COUNTERS = struct.Struct("=8Q8Q8Q8Q2Q")
_COUNTERS_AT = _INDEXES_AT + _INDEXES.size
SIZE = _COUNTERS_AT + _COUNTERS.size
_BY_MEMBER = ("sent", "received", "inactive", "slow")


class Aggregate:
    """One aggregate in its programs.

    descriptor: of the eBPF map, not needed any longer once this exists. device, ears: indexes of the
    bridge's port and of its other end; members: of the members' interfaces. No member is active at first.
    """

    def __init__(self, descriptor: int, device: int, ears: int, members: Sequence[int]) -> None:
        if len(members) > MEMBERS:
            raise ValueError(f"{len(members)} members are more than {MEMBERS}")
        self.members = tuple(members)
        self._memory = mmap.mmap(descriptor, SIZE)
        self.write(())
        _INDEXES.pack_into(self._memory, _INDEXES_AT, device, ears, *_padded(members))

    def write(self, active: Sequence[int]) -> None:
        """These members are active, from the next frame on; their order is no matter."""
        positions = [place for place, member in enumerate(self.members) if member in active]
        word = len(positions) << 32 | sum(place << 4 * turn for turn, place in enumerate(positions))
        # 8 bytes at once, so that no frame sees a part of it (struct packs byte by byte)
        self._memory[: _ACTIVE.size] = word.to_bytes(_ACTIVE.size, "little")

    def active(self) -> list[int]:
        """The indexes of the active members, in the order in which the hash chooses among them."""
        (word,) = _ACTIVE.unpack_from(self._memory)
        return [self.members[word >> 4 * turn & MEMBERS - 1] for turn in range(word >> 32)]

    def counters(self) -> dict[int, dict[str, int]]:
        """Frames by the members' indexes: sent, received, inactive (dropped as the member was not), slow."""
        values = _COUNTERS.unpack_from(self._memory, _COUNTERS_AT)
        return {
            member: {name: values[turn * MEMBERS + place] for turn, name in enumerate(_BY_MEMBER)}
            for place, member in enumerate(self.members)
        }

    def drops(self) -> dict[str, int]:
        """Frames dropped that are no member's: no-member (nobody to send by), stranger (from elsewhere)."""
        no_member, stranger = _COUNTERS.unpack_from(self._memory, _COUNTERS_AT)[-2:]
        return {"no-member": no_member, "stranger": stranger}

    def close(self) -> None:
        """Let go of the memory; the aggregate goes on as it is."""
        self._memory.close()


def choose(frame: bytes, members: Sequence[int]) -> int | None:
    """The member by which a frame goes, of the active ones in the aggregate's order; None: there is none."""
    return members[hash_of(frame) % len(members)] if members else None


def hash_of(frame: bytes) -> int:
    """32 bits that are the same for all frames of a flow."""
    at, kind = 14, int.from_bytes(frame[12:14], "big")
    if kind in _TAGS:
        at, kind = 18, int.from_bytes(frame[16:18], "big")
    found = parse_ip(frame, at, kind)
    if found is None:
        data = frame[:12] + kind.to_bytes(4, "big")
    elif found.protocol == _GRE:
        head = frame[found.after : found.after + 8]
        data = found.addresses + (head[4:] if len(head) == 8 and head[:4] == _NVGRE else b"")
    else:
        data = found.addresses + found.ports
    value = _SEED
    for (word,) in struct.iter_unpack("!I", data):
        value ^= word
        value ^= value >> 16
        value = value * 0x85EBCA6B & 0xFFFFFFFF
        value ^= value >> 13
        value = value * 0xC2B2AE35 & 0xFFFFFFFF
        value ^= value >> 16
    return value


def _padded(members: Sequence[int]) -> list[int]:
    return [*members, *[0] * (MEMBERS - len(members))]
