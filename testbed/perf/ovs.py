"""The baseline ``ovs``: Open vSwitch's userspace datapath with VXLAN; each host has a switch and a database.

That datapath takes frames by packet sockets, and with a tunnel it can neither cut super-packets nor
complete checksums (Open vSwitch, "Userspace Datapath - TSO": no tunnels). So its guests have no offloads,
and on its cables are frames, whatever ours have. OVS resolves the tunnel's peer and the route by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from testbed.errors import LabError
from testbed.namespaces import NetnsCall, in_netns, start_in_netns
from testbed.nic.features import guest_features, set_features
from testbed.perf.kernel import KernelLab, index_of
from testbed.perf.vxlan import OVERHEAD, VNI, outer_address

_PROGRAMS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl")
_SCHEMA = "openvswitch/vswitch.ovsschema"
_SECONDS = 20  # for one command, or for a daemon to be there


def missing() -> str:
    """What this machine lacks for it; "" if nothing."""
    lacking = [name for name in _PROGRAMS if _program(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed (Debian: openvswitch-switch)"
    return "" if _schema() else f"no {_SCHEMA} beside Open vSwitch's programs"


def version() -> str:
    """Of the switch: "3.1.0"."""
    words = [str(_program("ovs-vswitchd")), "--version"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=_SECONDS, check=False).stdout
    return told.split("\n", 1)[0].rpartition(" ")[2]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _schema() -> Path | None:
    """The database's schema: in PREFIX/share of the programs in PREFIX/bin."""
    tool = _program("ovsdb-tool")
    path = Path(tool).parents[1] / "share" / _SCHEMA if tool else None
    return path if path and path.exists() else None


class OvsLab(KernelLab):
    """Userspace bridges joined by VXLAN. Its daemons end with it, or with this process."""

    name = "ovs"
    overhead = OVERHEAD

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "wire": "frames", "guest_lso": False, "coalesces": False})
        self._daemons: list[NetnsCall[None]] = []
        self._folders = contextlib.ExitStack()

    def build_host(self, ip: Any, index: int) -> None:
        """The daemons, a bridge with the NIC and the tunnel's address, a bridge with the guest's port."""
        folder = Path(self._folders.enter_context(tempfile.TemporaryDirectory(prefix="testbed-ovs-")))
        names = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        env = {**os.environ, **dict.fromkeys(names, str(folder))}
        _run(env, "ovsdb-tool", "create", str(folder / "conf.db"), str(_schema()))
        database = f"unix:{folder / 'db.sock'}"
        self._start(index, env, "ovsdb-server", str(folder / "conf.db"), f"--remote=p{database}")
        deadline = time.monotonic() + _SECONDS
        while not (folder / "db.sock").exists():
            if self._daemons[-1].ended() or time.monotonic() > deadline:
                raise LabError("ovsdb-server does not listen")
            time.sleep(0.01)
        vsctl = ("ovs-vsctl", f"--db={database}", f"--timeout={_SECONDS}")
        _run(env, *vsctl, "--no-wait", "init")
        self._start(index, env, "ovs-vswitchd", database)
        ip.link("set", index=index_of(ip, "vm0"), state="up")
        netdev = ("datapath_type=netdev",)
        _run(
            env,
            *vsctl,
            "add-br",
            "br-phy",
            "--",
            "set",
            "bridge",
            "br-phy",
            *netdev,
            "--",
            "add-port",
            "br-phy",
            "nic1",
        )
        outer = index_of(ip, "br-phy")
        ip.link("set", index=outer, mtu=self.mtu + self.overhead, state="up")
        ip.addr("add", index=outer, address=outer_address(index), prefixlen=24)
        tunnel = ("type=vxlan", f"options:remote_ip={outer_address(1 - index)}", f"options:key={VNI}")
        _run(
            env, *vsctl, "add-br", "br-int", "--", "set", "bridge", "br-int", *netdev,
            "--", "add-port", "br-int", "vm0",
            "--", "add-port", "br-int", "vxlan0", "--", "set", "interface", "vxlan0", *tunnel,
        )  # fmt: skip
        with in_netns(self.hosts[index]):
            set_features("vm0", {"rx-gro": False})

    def _build(self) -> None:
        super()._build()
        for guest in (self.client, self.server):
            with in_netns(guest):
                set_features("eth0", guest_features(lso=False) | {"tx-checksum-ip-generic": False})

    def _start(self, index: int, env: dict[str, str], *words: str) -> None:
        self._daemons.append(start_in_netns(self.hosts[index], _become, env, words, name=words[0]))

    def cpu_seconds(self) -> float:
        """CPU time of its daemons so far."""
        ticks = 0
        for daemon in self._daemons:
            if daemon.ended():
                raise LabError(f"the baseline ovs: {daemon.name} has ended")
            stat = Path(f"/proc/{daemon.pid}/stat").read_text()
            fields = stat[stat.rindex(")") + 2 :].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the daemons, then free the rest."""
        while self._daemons:
            self._daemons.pop().close()
        self._folders.close()
        super().close()


def _become(env: dict[str, str], words: tuple[str, ...]) -> None:
    """Become a daemon that stays in the foreground and says what it has to say into no file."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os.execve(str(_program(words[0])), [*words, "-vconsole:off", "-vsyslog:off"], env)


def _run(env: dict[str, str], *words: str) -> None:
    """One command. Raises LabError with what it says."""
    try:
        subprocess.run(
            [str(_program(words[0])), *words[1:]],
            env=env,
            capture_output=True,
            text=True,
            timeout=_SECONDS + 5,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise LabError(f"the baseline ovs: {words[0]}: {error.stderr.strip()}") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"the baseline ovs: {words[0]} did not end within {_SECONDS + 5} s") from None
