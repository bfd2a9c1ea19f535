"""testbed.nic.features: switching the offloads of a cable's ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import pytest
from pyroute2 import IPRoute

from testbed.errors import LabError
from testbed.namespaces import in_netns, new_netns
from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, get_features, set_features
from testbed.topology.schema import Wire

pytestmark = pytest.mark.netns


@pytest.fixture
def veth() -> Iterator[None]:
    """The test runs in a namespace with a veth pair nic1, p0."""
    with contextlib.ExitStack() as stack:
        netns = new_netns()
        stack.callback(os.close, netns)
        stack.enter_context(in_netns(netns))
        with IPRoute() as ip:
            ip.link("add", ifname="nic1", kind="veth", peer={"ifname": "p0"})
        yield


@pytest.mark.usefixtures("veth")
@pytest.mark.parametrize("wire", ["frames", "aggregated"])
@pytest.mark.parametrize(("interface", "sets"), [("nic1", CABLE_HOST), ("p0", CABLE_FABRIC)])
def test_sets_take_from_either_state(
    interface: str, sets: Mapping[Wire, Mapping[str, bool]], wire: Wire
) -> None:
    before = get_features(interface)
    other: Wire = "frames" if wire == "aggregated" else "aggregated"
    for step in (other, wire):
        set_features(interface, sets[step])
        assert {name: get_features(interface)[name] for name in sets[step]} == sets[step]
    if wire == "aggregated":  # a new veth is that, but for what does nothing on such a wire
        assert get_features(interface) == before | {"rx-gro": interface == "nic1"}


@pytest.mark.usefixtures("veth")
def test_unknown_is_passed_over_when_off_only() -> None:
    set_features("nic1", {"tx-teleport": False})
    with pytest.raises(LabError, match="interface nic1: the kernel did not switch tx-teleport on"):
        set_features("nic1", {"tx-teleport": True, "rx-gro": True})


@pytest.mark.usefixtures("veth")
def test_what_did_not_take_is_told() -> None:
    with pytest.raises(LabError, match=r"^interface nic1: the kernel did not switch rx-lro on$"):
        set_features("nic1", {"rx-lro": True, "rx-gro": True})
    assert get_features("nic1")["rx-gro"]


@pytest.mark.usefixtures("veth")
def test_no_such_interface() -> None:
    with pytest.raises(OSError, match="No such device"):
        set_features("nic9", CABLE_HOST["frames"])
