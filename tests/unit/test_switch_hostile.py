"""Whatever comes in, the switch neither fails nor loses it without a name, in both places of the filter."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support import corpus
from support.accounting import (
    CONFIGS,
    EXTENSIONS,
    PLAIN_PORTS,
    Account,
    Config,
    arrived,
    is_for_many,
    sent,
    told,
)
from support.frames import encapsulated, ip
from support.mutations import lying, sealed, truncated
from support.random_frames import broken, tenant_frames, vnet_headers, wire_frames
from support.random_input import repeatable
from support.switch import PLAIN, VMS, MemorySwitch, mac_of, nic_mac, pa
from testbed.packets import nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import HostPolicy

ALL = pytest.mark.parametrize("config", CONFIGS, ids=str)
FEW = settings(repeatable, max_examples=40)
_DOMAINS = {5001: (5001, 5002), 5002: (5001, 5002), 6001: (6001,)}
_HERE = {name: vsid for name, (host, vsid, _) in VMS.items() if host == 1}


@pytest.fixture
def switch(config: Config) -> Iterator[MemorySwitch]:
    with config.made() as made:
        yield made


# ---- what must hold of every packet -------------------------------------------------------


def _check_sent(config: Config, sender: str, frame: bytes, came: Account) -> None:
    """A VM's packet: each copy is accounted for, and none leaves its routing domain."""
    seen = came.seen
    if sender in PLAIN_PORTS:
        everybody, domain, places = 2, set(), {*PLAIN_PORTS}
        assert all(each == frame for _, each in seen.wire)
    else:
        vsid = _HERE[sender]
        domain = {*_DOMAINS[vsid]}
        places = {name for name, where in _HERE.items() if where in domain}
        neighbors = sum(where == vsid for where in _HERE.values()) - 1
        remote = {host for host, where, _ in VMS.values() if where == vsid and host != 1}
        everybody = neighbors + (len(remote) if config.mode == "in-switch" else 1)
        assert all(nvgre.parse(each).vsid in domain for _, each in seen.wire)
    assert seen.ports.keys() <= places, frame.hex()
    assert came.copies in ({1, everybody} if is_for_many(frame) else {1}), (seen, frame.hex())
    if len(frame) < 14:
        assert seen.dropped(Drop.MALFORMED)


def _check_arrived(frame: bytes, came: Account) -> None:
    """From the wire: nothing goes back to it; a VM gets the inner frame of what was really for it."""
    seen = came.seen
    assert not seen.wire
    inner = _inner(frame)
    for name, packets in seen.ports.items():
        if name in PLAIN_PORTS:
            assert [each for _, each in packets] == [frame]
            continue
        assert inner is not None, frame.hex()
        vsid, body = inner
        assert (vsid, [each for _, each in packets]) == (_HERE[name], [body]), frame.hex()
    copies = {1}
    if inner is not None and is_for_many(inner[1]):
        copies.add(sum(where == inner[0] for where in _HERE.values()))
    elif is_for_many(frame):
        copies.add(len(PLAIN_PORTS))
    assert came.copies in copies, (seen, frame.hex())
    if len(frame) < 14:
        assert seen.dropped(Drop.MALFORMED)


def _inner(frame: bytes) -> tuple[int, bytes] | None:
    """VSID and inner frame of NVGRE for this host, by RFC 7637 and the policy; None of anything else."""
    version = {b"\x08\0": 4, b"\x86\xdd": 6}.get(frame[12:14], 0)
    size, pas, gre, header = {4: (4, 26, 34, 42), 6: (16, 22, 54, 62), 0: (0, 0, 0, 0)}[version]
    if not version or len(frame) < header + 14 or frame[gre : gre + 4] != b"\x20\0\x65\x58":
        return None
    if version == 4:
        length = int.from_bytes(frame[16:18], "big")
        words = sum(int.from_bytes(frame[at : at + 2], "big") for at in range(14, 34, 2))
        right = frame[14] == 0x45 and frame[23] == 47 and not words % 0xFFFF and not frame[20] & 0x3F
        right = right and not frame[21]
    else:
        length = 40 + int.from_bytes(frame[18:20], "big")
        right = frame[14] >> 4 == 6 and frame[20] == 47
    vsid = int.from_bytes(frame[gre + 4 : gre + 7], "big")
    domain = _DOMAINS.get(vsid, ())
    source, destination = frame[pas : pas + size], frame[pas + size : pas + 2 * size]
    known = source in {ip(pa(host, each, version)) for host in (2, 3) for each in domain}
    ours = destination in {ip(pa(1, each, version)) for each in _DOMAINS}
    body = frame[header : 14 + length]
    return (vsid, body) if right and known and ours and header + 14 <= 14 + length <= len(frame) else None


# ---- every frame of the corpus, spoiled ---------------------------------------------------


def _lies(frame: bytes, config: Config, sparse: int = 1) -> Iterator[bytes]:
    """With wrong and with right checksums, another part for each switch: one of 12 times ``sparse``."""
    part, step = CONFIGS.index(config), len(CONFIGS) * sparse
    yield from itertools.islice(lying(frame), part, None, step)
    yield from map(sealed, itertools.islice(lying(frame), (part + 5) % step, None, step))


@ALL
def test_each_frame_of_a_vm_spoiled(config: Config, switch: MemorySwitch) -> None:
    """The PA network's family matters little to a VM: each takes every other truncation."""
    for frame in corpus.vm_frames().values():
        cut = itertools.islice(truncated(frame), config.version == 6, None, 2)
        for changed in (frame, *cut, *_lies(frame, config)):
            _check_sent(config, "blue1", changed, sent(switch, "blue1", changed))


@ALL
def test_each_frame_of_the_wire_spoiled(config: Config, switch: MemorySwitch) -> None:
    """Outer headers are cut once; of what they carry, each switch takes a third of the truncations."""
    begin, step = 0, 1  # of the first frame, all
    for name, frame in corpus.wire_frames(config.version).items():
        span = (begin, None, step) if name.startswith("tunnelled") else (0, None)
        cut = itertools.islice(truncated(frame), *span)
        for changed in (frame, *cut, *_lies(frame, config, 3 if len(span) == 3 else 1)):
            _check_arrived(changed, arrived(switch, changed))
        begin, step = (56 if config.version == 4 else 76) + [*EXTENSIONS].index(config.extensions), 3


@ALL
def test_what_only_looks_like_nvgre_is_dropped(config: Config, switch: MemorySwitch) -> None:
    """Its name says why: it is malformed, or (with a VLAN tag outside) no NVGRE."""
    good = corpus.tunnelled(corpus.vm_frames("blue2")["udp"], config.version)
    for name, frame in corpus.refused_frames(config.version).items():
        assert arrived(switch, good).seen.ports.keys() == {"blue1"}  # cached, where there is no extension
        reason = Drop.NOT_NVGRE if name == "outer tagged" else Drop.MALFORMED
        assert arrived(switch, frame).seen.dropped(reason), name


# ---- offload metadata that lies -----------------------------------------------------------

_LIES = [0, 1, 13, 14, 33, 34, 41, 42, 61, 62, 76, 0x7FFF, 0xFFC1, 0xFFF0, 0xFFFF]


def _lying_vnet() -> Iterator[bytes]:
    """Right headers of which one field lies; hdr_len, gso_size, csum_start, csum_offset."""
    for flags, kind in itertools.product((0, 1, 3, 0xFF), (0, 1, 4, 5, 0x81, 0xFF)):
        for at, lie in itertools.product(range(4), _LIES):
            fields = [54, 1400, 34, 16]
            fields[at] = lie
            yield struct.pack("=BB4H", flags, kind, *fields)


@ALL
def test_metadata_that_lies(config: Config, switch: MemorySwitch) -> None:
    frames = corpus.vm_frames()
    kinds = ("udp", "tcp6", "local", "tagged", "broadcast", "arp request")
    out = [frames[name] + bytes(more) for name in kinds for more in (0, 1500, 60000)]
    back = [corpus.tunnelled(frame, config.version) for frame in out if len(frame) < 9000]

    rng = Random(str(config))
    for vnet in _lying_vnet():
        leaving, entering = rng.choice(out), rng.choice(back)
        _check_sent(config, "blue1", leaving, sent(switch, "blue1", leaving, vnet))
        _check_arrived(entering, arrived(switch, entering, vnet))


# ---- anything -----------------------------------------------------------------------------


def _whatever(frames: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(frames, broken(frames), st.binary(max_size=120))


@ALL
def test_anything_from_a_vm(config: Config, switch: MemorySwitch) -> None:
    senders = st.sampled_from(["blue1", "web1", "red1", *PLAIN_PORTS])

    @FEW
    @example("blue1", b"", PLAIN)
    @example("blue1", b"", b"\1" + bytes(9))
    @example("plain1", b"", PLAIN)
    @given(senders, _whatever(tenant_frames("blue1")), vnet_headers())
    def run(sender: str, frame: bytes, vnet: bytes) -> None:
        for _ in range(2):
            _check_sent(config, sender, frame, sent(switch, sender, frame, vnet))

    run()


@ALL
def test_anything_from_the_wire(config: Config, switch: MemorySwitch) -> None:
    @FEW
    @example(b"", PLAIN)
    @example(b"", b"\1" + bytes(9))
    @given(_whatever(wire_frames(config.version)), vnet_headers())
    def run(frame: bytes, vnet: bytes) -> None:
        for _ in range(2):
            _check_arrived(frame, arrived(switch, frame, vnet))

    run()


@ALL
def test_a_switch_without_a_policy(config: Config, switch: MemorySwitch) -> None:
    """Neither VSIDs nor PAs are known: nothing leaves over the wire, nothing comes from it."""
    switch.apply(HostPolicy())
    for frame in corpus.vm_frames().values():
        assert not sent(switch, "blue1", frame).seen.wire
    for frame in corpus.wire_frames(config.version).values():
        came = arrived(switch, frame)
        assert came.seen.ports.keys() <= {*PLAIN_PORTS}
        _check_arrived(frame, came)


# ---- unknown PAs and VSIDs ----------------------------------------------------------------


def _strangers(version: int) -> list[tuple[int, str]]:
    """VSID and source PA that do not belong together, by any policy of this host."""
    unknown = "192.168.9.9" if version == 4 else "2001:db8::dead"
    friend, other = pa(2, 5001, version), pa(2, 6001, version)
    return [(7777, friend), (0, friend), (0xFFFFFF, friend), (5001, unknown), (5001, other), (6001, friend)]


@ALL
def test_strangers_reach_no_vm_and_are_told_of(config: Config, switch: MemorySwitch) -> None:
    version = config.version
    inner = mac_of("blue1") + corpus.vm_frames("blue2")["udp"][6:]
    bodies = [*corpus.vm_frames("blue2").values(), *(part for part in truncated(inner) if len(part) >= 14)]
    bodies += itertools.islice(lying(inner), CONFIGS.index(config), None, len(CONFIGS))
    for vsid, source in _strangers(version):
        for body in bodies:
            frame = encapsulated(body, vsid, source, pa(1, 5001, version), nic_mac(1), nic_mac(2))
            switch.state.forget_flows()  # what the cache drops is told of once for its flow
            with told(switch) as events:
                assert arrived(switch, frame).seen.dropped(Drop.POLICY_MISMATCH), frame.hex()
            assert [(each["vsid"], each["pa"]) for each in events] == [(vsid, source)]
