"""testbed.doctor: everything is tried, nothing stays, and what is broken is told."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pyroute2.netlink.exceptions import NetlinkError

from testbed import doctor, namespaces
from testbed.doctor import Finding, kernel, machine
from testbed.engines.docker import client
from testbed.errors import MachineLacks
from testbed.lab import store
from testbed.nic import features
from testbed.nic.bpf import loader
from testbed.processes import ProcessId
from testbed.switch.uplink import Uplink
from testbed.wiring import tap

pytestmark = pytest.mark.netns

# What every machine that runs these tests has; the others are the kernel builder's choice.
HERE = {
    "capabilities",
    "network namespaces",
    "PID namespaces",
    "veth",
    "bridge",
    "TAP with offload metadata",
    "packet sockets with offload metadata",
    "eBPF at clsact",
    "switchable offloads",
    "NVGRE segmentation",
    "VXLAN",
    "libbpf",
    "libiperf",
    "ping",
    "iperf3",
    "tshark",
    "dot",
    "state folder",
    "leftovers",
}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder that does not exist, and no Docker Engine: that would take its time."""
    folder = tmp_path / "none" / "state"
    monkeypatch.setenv("TESTBED_STATE_DIR", str(folder))
    monkeypatch.setattr(client, "available", lambda: (False, "not asked"))
    return folder


def _found() -> dict[str, Finding]:
    findings = doctor.examine()
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_this_machine_has_what_labs_need(state: Path) -> None:
    found = _found()
    bad = {name: found[name].detail for name in HERE if not found[name].ok}
    assert not bad
    assert not [name for name, finding in found.items() if finding.required and not finding.ok]
    assert not state.parent.exists()  # nothing was made to find this out


def test_every_finding_tells_enough() -> None:
    for name, finding in _found().items():
        assert finding.detail, name
        assert finding.remedy or name == "kernel", name
        assert finding.group in {"rights", "kernel", "libraries", "programs", "engines", "machine"}
    assert msgspec.json.decode(msgspec.json.encode([*_found().values()]), type=list[Finding])


def _raising(error: Exception) -> Callable[..., object]:
    def raises(*_: object, **__: object) -> object:
        raise error

    return raises


Break = Callable[[pytest.MonkeyPatch], None]


def _no_tun(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tap, "_DEVICE", "/dev/net/hidden")


def _not_compiled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loader, "_OBJECTS", Path("/nowhere"))


def _no_offloads(patch: pytest.MonkeyPatch) -> None:
    frames = dict(features.CABLE_HOST["frames"], **{"rx-lro": True})  # veth has none
    patch.setitem(features.CABLE_HOST, "frames", frames)


def _without_mending(patch: pytest.MonkeyPatch) -> None:
    """nic_rx in the place of nic_tx: the NIC sends nothing."""
    load = loader.load
    patch.setattr(loader, "load", lambda name, *programs: load(name, *("nic_rx" for _ in programs)))


def _no_packet_socket(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Uplink, "__init__", _raising(OSError(97, os.strerror(97))))


def _no_library(name: str) -> Break:
    def hide(patch: pytest.MonkeyPatch) -> None:
        load = ctypes.CDLL

        def cdll(wanted: str | None, *args: object, **more: object) -> object:
            if wanted and name in wanted:
                raise OSError(f"{wanted}: cannot open shared object file")
            return load(wanted, *args, **more)

        patch.setattr(ctypes, "CDLL", cdll)

    return hide


def _no_ping(patch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    patch.setattr(shutil, "which", lambda name, **more: None if name == "ping" else which(name, **more))


def _never_cut(patch: pytest.MonkeyPatch) -> None:
    """Both ends stay as they were made: super-packets pass whole."""
    patch.setattr(features, "set_features", lambda *_: None)


class _Refusing:
    """Netlink of a kernel without one kind of device."""

    def __init__(self, ip: Any, kind: str) -> None:
        self._ip, self._kind = ip, kind

    def link(self, command: str, **options: Any) -> Any:
        if options.get("kind") == self._kind:
            raise NetlinkError(95, "not supported")
        return self._ip.link(command, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ip, name)


def _kind_refused(kind: str) -> Break:
    def refuse(patch: pytest.MonkeyPatch) -> None:
        netlink = kernel._netlink

        @contextlib.contextmanager
        def refusing() -> Iterator[_Refusing]:
            with netlink() as ip:
                yield _Refusing(ip, kind)

        patch.setattr(kernel, "_netlink", refusing)

    return refuse


@pytest.mark.parametrize(
    ("break_it", "name", "required", "detail", "remedy"),
    [
        (_no_tun, "TAP with offload metadata", True, "/dev/net/hidden: No such file", "/dev/net/tun"),
        (_not_compiled, "eBPF at clsact", True, "nic.o is not compiled", "libbpf1"),
        (_no_offloads, "switchable offloads", True, "did not switch rx-lro on", "Linux"),
        (_without_mending, "NVGRE segmentation", True, "No buffer space", "Linux"),
        (_never_cut, "NVGRE segmentation", True, "frames of [3096] bytes arrived", "Linux"),
        (_no_packet_socket, "packet sockets with offload metadata", True, "Address family", "PACKET"),
        (_kind_refused("veth"), "veth", True, "not supported", "CONFIG_VETH"),
        (_kind_refused("bridge"), "bridge", True, "not supported", "CONFIG_BRIDGE"),
        (_kind_refused("vxlan"), "VXLAN", False, "not supported", "CONFIG_VXLAN"),
        (_no_library("libbpf"), "libbpf", True, "cannot open", "libbpf1"),
        (_no_library("libiperf"), "libiperf", False, "cannot open", "libiperf0"),
        (_no_ping, "ping", False, "not found", "iputils-ping"),
    ],
)
def test_what_is_broken_is_told(
    monkeypatch: pytest.MonkeyPatch, break_it: Break, name: str, required: bool, detail: str, remedy: str
) -> None:
    loader._libbpf()  # kept: hiding a library must not break what is loaded
    break_it(monkeypatch)
    finding = _found()[name]
    assert not finding.ok
    assert finding.required is required
    assert detail in finding.detail
    assert remedy in finding.remedy


def test_one_missing_feature_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    _no_tun(monkeypatch)
    found = _found()
    assert {name for name in HERE if not found[name].ok} == {"TAP with offload metadata"}


def test_without_a_network_namespace_the_rest_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "new_netns", _raising(OSError(1, "Operation not permitted")))
    monkeypatch.setattr(kernel, "_veth", lambda: pytest.fail("tried in this machine's own network"))
    found = _found()
    assert found["network namespaces"].detail == "Operation not permitted"
    assert found["veth"].detail == "not tried: no namespace"
    assert found["libbpf"].ok


def test_a_pid_namespace_without_proc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from testbed.engines.namespaces import mounts

    monkeypatch.setattr(mounts, "mount_proc", _raising(OSError(1, "Operation not permitted")))
    finding = _found()["PID namespaces"]
    assert not finding.ok
    assert finding.detail == "made, but without a /proc of its own: Operation not permitted"


def test_a_module_that_touches_the_root_namespace_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """On a kernel with modules, bonding would put bond0 there."""
    modules = tmp_path / "lib" / "modules" / kernel.platform.release()
    modules.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "modules").touch()
    (modules / "modules.dep").write_text("kernel/drivers/net/bonding/bonding.ko: \n")
    (modules / "modules.builtin").write_text("kernel/drivers/net/ifb.ko\n")
    monkeypatch.setattr(kernel, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    tried = []
    for module in ("bonding", "ifb"):
        detail = kernel._without_loading(module, lambda module=module: tried.append(module) or "made one")()
        assert detail == {"bonding": "module bonding is there, not loaded", "ifb": "made one"}[module]
    with pytest.raises(MachineLacks, match="no module ip_gre"):
        kernel._without_loading("ip_gre", lambda: pytest.fail("tried"))()
    assert tried == ["ifb"]


def test_leftovers_of_dead_labs(state: Path) -> None:
    gone = ProcessId(os.getpid(), 1)  # this pid's earlier user
    labs = (("half", gone, False), ("building", ProcessId.own(), False), ("dead", gone, True))
    for age, (name, owner, ready) in enumerate(labs):
        (store.state_dir() / "labs" / name).mkdir()
        store.save(store.LabRecord(name * 2, name, "namespaces", "x.yaml", owner, age, ready))
    finding = _found()["leftovers"]
    assert not finding.ok
    assert finding.detail == "of dead labs: half, dead"
    assert finding.remedy == "testbed gc"
    assert sorted(path.name for path in (state / "labs").iterdir()) == ["building", "dead", "half"]


def test_little_memory_and_few_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "FEW_BYTES", 1 << 60)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    found = _found()
    assert not found["memory"].ok
    assert not found["processors"].ok


def _as_nobody() -> dict[str, Finding]:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    return _found()


def test_nobody_gets_a_report_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import testbed.engines.select  # nobody may not read the sources

    assert testbed.engines.select
    monkeypatch.setenv("TESTBED_STATE_DIR", "/run/testbed-of-nobody")
    netns = namespaces.new_netns()
    try:
        found = namespaces.run_in_netns(netns, _as_nobody, timeout=20)
    finally:
        os.close(netns)
    missing = {name for name, finding in found.items() if finding.required and not finding.ok}
    assert {"capabilities", "network namespaces", "veth", "state folder"} <= missing
    assert "libbpf" not in missing
    assert "CAP_SYS_ADMIN" in found["capabilities"].detail
    assert "root" in found["state folder"].remedy
