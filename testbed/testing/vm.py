"""A VM's adapter: commands in the VM, pings of its kernel, frames out of its adapter, what arrives there."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import testbed
from testbed.conformance import frames, probes
from testbed.conformance.outcome import Failed
from testbed.errors import LabError
from testbed.lab.execute import KILL, environment
from testbed.namespaces import in_netns
from testbed.testing.watch import Watch

if TYPE_CHECKING:
    from testbed.lab.lab import Lab
    from testbed.topology.plan import VmPlan, VnicPlan

COMMAND_SECONDS = 30.0
PING_SECONDS = 5.0
_ENTER = "import sys; sys.path.insert(0, sys.argv.pop(1)); from testbed.testing.inside import main; main()"
_ROOT = str(Path(testbed.__file__).parent.parent)

Finished = subprocess.CompletedProcess[str]


class Vm:
    """An adapter of a VM; where a VM has one, it stands for the VM. ``name``: "blue1", or "blue1:eth1"."""

    def __init__(self, lab: Lab, plan: VmPlan, vnic: VnicPlan) -> None:
        self._lab = lab
        self.node = plan.name
        self.name = plan.name if len(plan.vnics) == 1 else vnic.port
        self.interface = vnic.interface
        self.port = vnic.port
        self.vsid = vnic.vsid
        self.network = vnic.network
        self.mac = vnic.mac
        self.is_gateway = vnic.is_gateway
        self.planned = vnic

    def __repr__(self) -> str:
        return self.name

    @property
    def host(self) -> str:
        """The host on which it runs now."""
        return self._lab.plan.vm(self.node).host

    @property
    def point(self) -> str:
        """Its point for captures."""
        return f"vm:{self.name}"

    @property
    def netns(self) -> int:
        """Descriptor of its network namespace; the lab's."""
        return self._lab.netns(self.node)

    # ---- addresses ------------------------------------------------------------------------

    def addresses(self) -> list[str]:
        """The addresses that its kernel uses now, without lengths and link-local ones."""
        from testbed.wiring import guest

        found = guest.addresses(self.netns).get(self.interface, [])
        usable = (each["address"] for each in found if not each["tentative"] and not each["duplicate"])
        return [str(ip) for text in usable if not (ip := ipaddress.ip_interface(text).ip).is_link_local]

    def has(self, version: int) -> bool:
        """Whether it has an address of this IP version."""
        return any(ipaddress.ip_address(text).version == version for text in self.addresses())

    def address(self, version: int = 4) -> str:
        """Its first address of this IP version. Skips the test when there is none."""
        for text in self.addresses():
            if ipaddress.ip_address(text).version == version:
                return text
        pytest.skip(f"{self.name} has no IPv{version} address")

    def has_route(self, address: str) -> bool:
        """Whether its kernel knows a way to an address. A DHCPv6 lease alone, without routers, gives none."""
        from testbed.wiring import guest

        try:
            guest.route(self.netns, address)
        except LabError:
            return False
        return True

    def mtu(self) -> int:
        """The adapter's MTU as its kernel has it: bytes of IP packet."""
        from testbed.wiring import neighbors

        return neighbors.mtu(self.netns, self.interface)

    @contextlib.contextmanager
    def with_mtu(self, size: int) -> Iterator[None]:
        """Its kernel believes in another MTU for the ``with`` block."""
        from testbed.wiring import neighbors

        before = self.mtu()
        neighbors.set_mtu(self.netns, self.interface, size)
        try:
            yield
        finally:
            neighbors.set_mtu(self.netns, self.interface, before)

    # ---- commands -------------------------------------------------------------------------

    def start(self, *command: object, **options: Any) -> Command:
        """Start a command in the VM; ``options`` are those of Popen. End it: it is yours."""
        return start(self._lab, self.node, *command, **options)

    def run(
        self, *command: object, seconds: float = COMMAND_SECONDS, stdin: str = "", check: bool = True
    ) -> Finished:
        """Run a command in the VM to its end. With ``check`` it must succeed (AssertionError)."""
        return run(self._lab, self.node, *command, seconds=seconds, stdin=stdin, check=check)

    def ping(self, to: Vm | str, version: int = 4, seconds: float = PING_SECONDS, token: bytes = b"") -> bool:
        """Whether an echo request of its kernel is answered within ``seconds``; it asks more than once.

        ``token``: the data of the requests, by which a capture knows them.
        """
        address = to if isinstance(to, str) else to.address(version)
        try:
            return probes.ping(self, address, seconds, identity=token)
        except Failed:  # its kernel has no way there
            return False

    # ---- frames ---------------------------------------------------------------------------

    def send(self, *raw: Any) -> None:
        """Send frames out of its adapter: bytes, or packets of scapy's that begin with Ether."""
        with in_netns(self.netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((self.interface, 0))
            for frame in raw:
                sock.send(bytes(frame))

    def frame(
        self,
        to: Vm | str,
        payload: bytes,
        version: int = 4,
        mac: str = "",
        ports: tuple[int, int] = (1025, 9),
    ) -> bytes:
        """A frame with a TCP reset that carries ``payload``: no kernel ever answers one.

        To a VM or an address; the destination MAC is the VM's, or its gateway's where it is elsewhere.
        """
        address = to if isinstance(to, str) else to.address(version)
        kind = frames.TYPE_IPV6 if ":" in address else frames.TYPE_IPV4
        if not mac:
            near = isinstance(to, Vm) and to.vsid == self.vsid
            mac = to.mac if isinstance(to, Vm) and near else self.gateway_mac()
        own = self.address(6 if ":" in address else 4)
        packet = frames.tcp_reset(own, address, payload, ports)
        return frames.ethernet(frames.mac(mac), frames.mac(self.mac), kind, packet)

    def gateway_mac(self) -> str:
        """MAC of the default gateway of its virtual subnet. Skips the test in VSID 0."""
        for network in self._lab.plan.networks:
            for subnet in network.subnets:
                if subnet.vsid == self.vsid:
                    return subnet.gateway_mac
        pytest.skip(f"{self.name} is not virtualised: it has no gateway")

    def dump(self, *patterns: str, **options: Any) -> Watch:
        """What passes at its adapter, as a capture."""
        return Watch(self._lab, (self.point, *patterns), **options)


def token() -> bytes:
    """16 bytes by which a packet is found again."""
    return os.urandom(16)


class Command(subprocess.Popen[str]):
    """A command in a node, by way of the process that has entered it and reaps it."""

    def kill(self) -> None:
        """Kill the command; the process between ends with it."""
        self.send_signal(KILL)


def start(lab: Lab, node: str, *command: object, **options: Any) -> Command:
    """Start a command in a node; it ends with us."""
    handle = lab.node(node)
    words = [sys.executable, "-I", "-c", _ENTER, _ROOT, str(handle.pidfd), *map(str, command)]
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    streams |= {"stderr": subprocess.PIPE, "text": True, **options}
    return Command(words, env=environment(handle), pass_fds=[handle.pidfd], **streams)


def run(
    lab: Lab,
    node: str,
    *command: object,
    seconds: float = COMMAND_SECONDS,
    stdin: str = "",
    check: bool = True,
) -> Finished:
    """Run a command in a node to its end."""
    process = start(lab, node, *command, stdin=subprocess.PIPE)
    said = " ".join(map(str, command))
    try:
        out, err = process.communicate(stdin, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{node}: {said}: no end within {seconds:g} s") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if check and process.returncode:
        raise AssertionError(f"{node}: {said}: exit {process.returncode}\n{out}{err}")
    return subprocess.CompletedProcess(said, process.returncode, out, err)
