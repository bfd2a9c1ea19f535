"""Kernel features, each used once in a network namespace that ends with the examination."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from testbed.doctor.finding import NO_KERNEL, ROOT, Finding, attempt
from testbed.errors import MachineLacks
from testbed.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    in_netns,
    new_netns,
    run_in_netns,
    unshare,
)

_NIC, _PORT = "nic1", "p1"
_MACS = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"
_FRAMES, _SEGMENT = 3, 1000


def features() -> Iterator[Finding]:
    """What the kernel can do: what labs need, then what is good to have."""
    netns = -1

    def open_namespace() -> str:
        nonlocal netns
        netns = new_netns()
        return "made one"

    yield attempt("network namespaces", "kernel", open_namespace, ROOT, required=True)
    trials = [*_required_features(netns), *_optional_features()]
    if netns < 0:
        for name, _, remedy, required in trials:
            yield Finding(
                name, "kernel", ok=False, required=required, detail="not tried: no namespace", remedy=remedy
            )
        return
    try:
        with in_netns(netns):
            findings = [
                attempt(name, "kernel", trial, remedy, required=required)
                for name, trial, remedy, required in trials
            ]
    finally:
        os.close(netns)
    yield from findings


Features = Iterator[tuple[str, Callable[[], str], str, bool]]


def _required_features(netns: int) -> Features:
    """What `testbed up` uses, in the order in which one needs the other."""
    veth, bpf = NO_KERNEL.format("CONFIG_VETH"), "install libbpf1; a kernel with CONFIG_BPF_SYSCALL and "
    yield "PID namespaces", lambda: run_in_netns(netns, _pid_namespace, timeout=2), ROOT, True
    yield "veth", _veth, veth, True
    yield "bridge", _bridge, NO_KERNEL.format("CONFIG_BRIDGE"), True
    yield "TAP with offload metadata", _tap, "modprobe tun, or give the container /dev/net/tun", True
    yield "packet sockets with offload metadata", _packet_socket, NO_KERNEL.format("CONFIG_PACKET"), True
    yield "eBPF at clsact", _ebpf, bpf + "CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS", True
    yield "switchable offloads", _offloads, "Linux 5.11 or newer", True
    yield "NVGRE segmentation", _segmentation, "Linux 5.14 or newer", True


def _optional_features() -> Features:
    """The bench's baseline, then what later work likes to have."""

    def kind(name: str, **options: Any) -> Callable[[], str]:
        return lambda: _link(kind=name, **options)

    vxlan = {"vxlan_id": 1, "vxlan_link": 1, "vxlan_port": 4789}
    gre = {"gre_local": "127.0.0.1", "gre_remote": "127.0.0.2"}
    for name, trial, option in (
        ("VXLAN", kind("vxlan", **vxlan), "CONFIG_VXLAN (the bench's baseline)"),
        ("rates of cables", _rate, "CONFIG_NET_SCH_TBF"),
        ("faults of cables", _faults, "CONFIG_NET_CLS_BPF, CONFIG_TUN"),
        ("bonding", _without_loading("bonding", kind("bond")), "CONFIG_BONDING"),
        ("team", kind("team"), "CONFIG_NET_TEAM"),
        ("netem", lambda: _qdisc("netem"), "CONFIG_NET_SCH_NETEM"),
        ("GRE device", _without_loading("ip_gre", kind("gretap", **gre)), "CONFIG_NET_IPGRE"),
        ("VLAN device", _vlan, "CONFIG_VLAN_8021Q"),
        ("HTB", lambda: _qdisc("htb"), "CONFIG_NET_SCH_HTB"),
        ("ifb", _without_loading("ifb", kind("ifb")), "CONFIG_IFB"),
        ("openvswitch", _openvswitch, "CONFIG_OPENVSWITCH"),
        ("BPF JIT", _jit, "CONFIG_BPF_JIT and sysctl net.core.bpf_jit_enable=1"),
    ):
        yield name, trial, NO_KERNEL.format(option), False


def _pid_namespace() -> str:
    """Be process 1 with a /proc of its own. Runs in a child process."""
    from testbed.engines.namespaces import mounts

    unshare(CLONE_NEWPID | CLONE_NEWNS)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            mounts.make_private()
            mounts.mount_proc()
            code = 0 if os.getpid() == 1 and os.readlink("/proc/self") == "1" else 1
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise MachineLacks(f"made, but without a /proc of its own: {os.strerror(code)}")
    return "made one"


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        yield ip


def _veth() -> str:
    from testbed.wiring import sysctl

    sysctl.write(sysctl.SILENT)
    with _netlink() as ip:
        ip.link("add", ifname=_NIC, kind="veth", address=_MACS[0].hex(":"), peer={"ifname": _PORT})
        for name in (_NIC, _PORT):
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")
    return "made a pair"


def _bridge() -> str:
    with _netlink() as ip:
        ip.link("add", ifname="br1", kind="bridge", br_stp_state=0)
        bridge = ip.link_lookup(ifname="br1")[0]
        ip.link("set", index=_index(ip, _PORT), master=bridge)
    return "made one with a port"


def _index(ip: Any, interface: str) -> int:
    found = ip.link_lookup(ifname=interface)
    if not found:
        raise MachineLacks(f"not tried: no {interface}")
    return int(found[0])


def _tap() -> str:
    from testbed.wiring import tap

    (queue,) = tap.open_queues("tap1")
    os.close(queue)
    return "made one"


def _packet_socket() -> str:
    from testbed.switch.uplink import Uplink

    Uplink(_NIC, _MACS[0]).close()
    return "opened one"


def _ebpf() -> str:
    from testbed.nic.bpf import loader
    from testbed.wiring.hardware import attach_hardware

    programs = loader.load("nic", "nic_tx", "nic_rx")
    try:
        with _netlink() as ip:
            attach_hardware(ip, _index(ip, _NIC), *programs)
    finally:
        for program in programs:
            os.close(program)
    return "loaded and attached the NIC's programs"


def _offloads() -> str:
    from testbed.nic.features import CABLE_FABRIC, CABLE_HOST, set_features

    for wire in ("aggregated", "frames"):
        set_features(_NIC, CABLE_HOST[wire])
        set_features(_PORT, CABLE_FABRIC[wire])
    return "switched to aggregates and back to frames"


def _segmentation() -> str:
    """Send a super-packet inside NVGRE through the NIC; it must arrive cut into frames."""
    from testbed.packets.malformed import MalformedFrame
    from testbed.packets.nvgre import parse
    from testbed.switch.uplink import Uplink

    near, far = Uplink(_NIC, _MACS[0]), Uplink(_PORT, _MACS[1])
    try:
        near.socket.send(_super_packet())
        lengths: list[int] = []
        deadline = time.monotonic() + 0.5
        while len(lengths) < _FRAMES and (left := deadline - time.monotonic()) > 0:
            if select.select([far.socket], [], [], left)[0]:
                with contextlib.suppress(MalformedFrame):
                    lengths.append(parse(far.socket.recv(1 << 17)[10:]).length)
    finally:
        near.close()
        far.close()
    wanted = [42 + 54 + _SEGMENT] * _FRAMES
    if lengths != wanted:
        raise MachineLacks(f"frames of {lengths} bytes arrived instead of {wanted}")
    return f"a super-packet arrived as {_FRAMES} NVGRE frames"


def _super_packet() -> bytes:
    """Vnet header, outer headers, and a TCP segment of three times the segment size."""
    from testbed.packets import checksum, ethernet, nvgre

    payload = bytes(_FRAMES * _SEGMENT)
    addresses = b"\x0a\0\0\5\x0a\0\0\6"
    tcp = bytearray(struct.pack("!HHIIBBHHH", 1, 2, 0, 0, 0x50, 0x10, 0xFFFF, 0, 0))
    tcp[16:18] = checksum.ones_sum(addresses, 6 + len(tcp) + len(payload)).to_bytes(2, "big")  # pseudo-header
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(payload), 0, 0x4000, 64, 6, 0))
    header += addresses
    header[10:12] = checksum.checksum(header).to_bytes(2, "big")
    inner = ethernet.build(_MACS[1], _MACS[0], ethernet.TYPE_IPV4, bytes(header + tcp) + payload)
    outer = bytearray(nvgre.template(_MACS[1], _MACS[0], b"\xc0\xa8\1\1", b"\xc0\xa8\1\2", 5001, 1))
    outer[16:18] = (len(inner) + nvgre.OUTER_IPV4 - ethernet.HEADER).to_bytes(2, "big")
    outer[24:26] = checksum.checksum(outer[14:34]).to_bytes(2, "big")
    # NEEDS_CSUM, GSO_TCPV4, then header length, segment size, checksum start and offset
    return struct.pack("=BBHHHH", 1, 1, 42 + 54, _SEGMENT, 42 + 34, 16) + outer + inner


def _rate() -> str:
    from testbed.wiring.hardware import set_rate

    with _netlink() as ip:
        for rate in (10**8, 0):
            set_rate(ip, _index(ip, _PORT), rate)
    return "set one, by TBF"


def _faults() -> str:
    from testbed.wiring import tap
    from testbed.wiring.hardware import attach_faults

    with contextlib.ExitStack() as stack, _netlink() as ip:
        wires = []
        for _ in range(2):
            descriptor, name = tap.open_wire()
            stack.callback(os.close, descriptor)
            wires.append(_index(ip, name))
        os.close(attach_faults(ip, _index(ip, _PORT), wires))
    return "loss, corruption, duplication by eBPF; delay, jitter, reordering by a user-space wire"


def _link(**options: Any) -> str:
    with _netlink() as ip:
        ip.link("add", ifname="try1", **options)
        ip.link("del", index=_index(ip, "try1"))
    return "made one"


def _vlan() -> str:
    with _netlink() as ip:
        parent = _index(ip, _NIC)
    return _link(kind="vlan", link=parent, vlan_id=5)


def _qdisc(kind: str) -> str:
    options: dict[str, Any] = {"delay": 1000} if kind == "netem" else {"default": 1}
    with _netlink() as ip:
        index = _index(ip, _NIC)
        ip.tc("add", kind, index, "1:", **options)
        ip.tc("del", kind, index, "1:")
    return "set one"


def _openvswitch() -> str:
    from pyroute2.netlink import genlmsg
    from pyroute2.netlink.generic import GenericNetlinkSocket

    with GenericNetlinkSocket() as netlink:
        netlink.bind("ovs_datapath", genlmsg)
    return "found its datapath"


def _jit() -> str:
    """Whether the kernel says of a loaded program that it was compiled."""
    from testbed.nic.bpf import loader

    (program,) = loader.load("nic", "nic_rx")
    try:
        info = Path(f"/proc/self/fdinfo/{program}").read_text()
    finally:
        os.close(program)
    if "prog_jited:\t1" not in info:
        raise MachineLacks("programs are interpreted")
    return "a program was compiled"


def _without_loading(module: str, trial: Callable[[], str]) -> Callable[[], str]:
    """The trial, unless it would load a module that makes devices in the root network namespace."""

    def careful() -> str:
        if not Path("/proc/modules").exists() or (Path("/sys/module") / module).exists():
            return trial()
        folder = Path("/lib/modules") / platform.release()
        for name in ("modules.builtin", "modules.dep"):
            with contextlib.suppress(FileNotFoundError):
                if f"/{module}.ko" in (folder / name).read_text():
                    return trial() if name == "modules.builtin" else f"module {module} is there, not loaded"
        raise MachineLacks(f"no module {module} for this kernel")

    return careful
