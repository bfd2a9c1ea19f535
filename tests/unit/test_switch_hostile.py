"""Whatever comes in, the switch neither fails nor loses it without a name."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from support.random_frames import broken, tenant_frames, vnet_headers, wire_frames
from support.random_input import repeatable
from support.switch import PLAIN, MemorySwitch, Seen
from testbed.switch.drops import Drop


def _accounted(seen: Seen) -> bool:
    return bool(seen.wire or seen.ports or seen.drops)


def _whatever(frames: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(frames, broken(frames), st.binary(max_size=120))


@repeatable
@example(frame=b"", vnet=PLAIN)
@example(frame=b"", vnet=b"\1")
@given(frame=_whatever(tenant_frames("blue1")), vnet=vnet_headers())
def test_from_a_vm(frame: bytes, vnet: bytes) -> None:
    with MemorySwitch(plain_ports=["plain1"]) as switch:
        for name in ("blue1", "plain1"):
            for _ in range(2):
                seen = switch.from_vm(name, frame, vnet)
                assert _accounted(seen)
                if len(frame) < 14:
                    assert seen.dropped(Drop.MALFORMED)


@repeatable
@example(frame=b"", vnet=PLAIN)
@example(frame=b"", vnet=b"\1")
@given(frame=_whatever(wire_frames()), vnet=vnet_headers())
def test_from_the_wire(frame: bytes, vnet: bytes) -> None:
    for plain in ((), ("plain1",)):
        with MemorySwitch(plain_ports=plain) as switch:
            for _ in range(2):
                seen = switch.from_wire(frame, vnet)
                assert _accounted(seen)
                assert not seen.wire  # what the wire brings never goes back to it
                if len(frame) < 14:
                    assert seen.dropped(Drop.MALFORMED)


@repeatable
@given(frame=_whatever(tenant_frames("blue1")))
def test_red_never_sees_blue(frame: bytes) -> None:
    """A VM's packet reaches nobody outside its routing domain, here or over the wire."""
    with MemorySwitch() as switch:
        seen = switch.from_vm("blue1", frame)
        assert seen.ports.keys() <= {"blue1", "blue4", "web1"}
        for _, sent in seen.wire:
            assert int.from_bytes(sent[38:41], "big") in (5001, 5002)
