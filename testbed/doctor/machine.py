"""Rights, libraries, programs, engines and resources of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from testbed.doctor.finding import CAPABILITIES, NO_KERNEL, ROOT, Finding, attempt
from testbed.errors import LabError, MachineLacks

PROGRAMS = {  # program -> Debian package
    "iperf3": "iperf3",
    "ping": "iputils-ping",
    "arping": "iputils-arping",
    "tcpdump": "tcpdump",
    "dnsmasq": "dnsmasq-base",
    "dhclient": "isc-dhcp-client",
    "ethtool": "ethtool",
    "tshark": "tshark",
}
FEW_BYTES = 512 << 20  # a lab of four hosts and eight VMs takes about half of it


def rights() -> Iterator[Finding]:
    """What this process may do."""
    yield attempt("capabilities", "rights", _capabilities, ROOT, required=True)


def _capabilities() -> str:
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    missing = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        raise MachineLacks(f"user {os.geteuid()} lacks {', '.join(missing)}")
    return "root" if os.geteuid() == 0 else f"user {os.geteuid()} with all that are needed"


# ---- programs and libraries ---------------------------------------------------------------


def libraries() -> Iterator[Finding]:
    """Shared libraries, loaded."""
    yield attempt("libbpf", "libraries", _libbpf, "install libbpf1", required=True)
    yield attempt("libiperf", "libraries", _libiperf, "install libiperf0 (the bench uses it)")


def _libbpf() -> str:
    with contextlib.suppress(OSError):
        ctypes.CDLL("libbpf.so.1")
        return "libbpf.so.1"
    ctypes.CDLL("libbpf.so.0")
    return "libbpf.so.0"


def _libiperf() -> str:
    library = ctypes.CDLL("libiperf.so.0")
    library.iperf_get_iperf_version.restype = ctypes.c_char_p
    return f"iperf {library.iperf_get_iperf_version().decode()}"


def programs() -> Iterator[Finding]:
    """Programs, searched for on the path and where administrators have theirs."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    for program, package in PROGRAMS.items():
        yield _program(program, path, package, "VMs of the namespaces engine use this machine's programs")
    yield _program("dot", os.environ.get("PATH", os.defpath), "graphviz", "`testbed graph` draws with it")


def _program(name: str, path: str, package: str, use: str) -> Finding:
    found = shutil.which(name, path=path)
    return Finding(
        name,
        "programs",
        ok=found is not None,
        required=False,
        detail=found or "not found",
        remedy=f"install {package} ({use})",
    )


# ---- engines ------------------------------------------------------------------------------


def engines() -> Iterator[Finding]:
    """The Docker Engine; the namespaces engine is the kernel."""
    from testbed.engines.docker.client import available

    answers, why = available()
    yield Finding(
        "Docker Engine",
        "engines",
        ok=answers,
        required=False,
        detail=why,
        remedy="install and start docker.io, or use the namespaces engine",
    )
    if answers:
        yield attempt("node image", "engines", _node_image, "testbed image build (or the first up does it)")


def _node_image() -> str:
    from testbed.engines.docker import image
    from testbed.engines.docker.client import connect

    tag = f"{image.REPOSITORY}:{image.context_hash(image.context_files())}"
    client = connect()
    try:
        found = image.image_id(client, tag)
    finally:
        client.close()
    if found is None:
        raise MachineLacks(f"{tag} is not built yet")
    return tag


# ---- the machine --------------------------------------------------------------------------


def resources() -> Iterator[Finding]:
    """Kernel version, processors, memory, the state folder and what lies in it."""
    yield attempt("kernel", "machine", platform.release, "")
    yield attempt("TCP cubic", "machine", _congestion, NO_KERNEL.format("CONFIG_TCP_CONG_CUBIC (the bench)"))
    yield attempt("processors", "machine", _processors, "a machine with more processors: labs get slow")
    yield attempt("memory", "machine", _memory, "free some memory, or make smaller labs")
    yield attempt("state folder", "machine", _state, "run as root, or set TESTBED_STATE_DIR", required=True)
    yield attempt("leftovers", "machine", _leftovers, "testbed gc")


def _congestion() -> str:
    known = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    if "cubic" not in known:
        raise MachineLacks(f"only {', '.join(known)}")
    return ", ".join(known)


def _processors() -> str:
    count = len(os.sched_getaffinity(0))
    if count < 2:
        raise MachineLacks(f"{count}: sender, switch and receiver share it")
    return str(count)


def _memory() -> str:
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    if available < FEW_BYTES:
        raise MachineLacks(f"{available >> 20} MiB available")
    return f"{available >> 20} MiB available"


def _state() -> str:
    from testbed.lab import store

    folder = wanted = store.state_path()
    while not folder.exists():
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass
    return str(wanted) if folder == wanted else f"{wanted} can be made"


def _leftovers() -> str:
    from testbed.lab import store
    from testbed.lab.garbage import why_dead

    if not (store.state_path() / "labs").exists():
        return "none"
    records = store.load_all()
    left = []
    for record in records:
        with contextlib.suppress(LabError, MachineLacks):
            if why_dead(record):
                left.append(record.name)
    if left:
        raise LabError(f"of dead labs: {', '.join(left)}")
    return f"none; {len(records)} labs run" if records else "none"
