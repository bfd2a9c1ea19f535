"""One iperf3 TCP run between two network namespaces.

Both ends are forked children of this process that have entered the guest's network namespace and
drive libiperf through the ``iperf3`` package: what is measured is the guest's own stack, and it
does not matter what the guest's image holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from testbed.errors import BadInput, LabError, MachineLacks
from testbed.namespaces import NetnsCall, in_netns, start_in_netns

BLOCK_SIZE = 128 * 1024  # iperf3 -l, bytes
MAX_STREAMS = 128  # of libiperf (MAX_STREAMS)
MAX_SECONDS = 86400  # of libiperf (MAX_TIME)
_PIPE_SIZE = 1 << 20  # what a pipe may hold without CAP_SYS_RESOURCE
_READY_WITHIN = 5.0  # seconds for the server to listen, and for the client to connect
_GRACE = 15.0  # seconds a run may last beyond its measuring time
_TCP_LISTEN = "0A"  # state column of /proc/net/tcp
_SCOPE_LINK = 253  # linux/rtnetlink.h, RT_SCOPE_LINK
_INSTALL_IPERF = "libiperf is missing on this machine: install Debian's package libiperf0 (or iperf3)"


class IperfResult(Struct, frozen=True):
    """What one run measured. gigabits_per_second is the receiver's count."""

    gigabits_per_second: float
    retransmits: int
    seconds: float
    congestion_control: str  # of the sender, as its socket told


@contextlib.contextmanager
def congestion_control(netns: int, destination: str, algorithm: str) -> Iterator[None]:
    """TCP from ``netns`` to the address ``destination`` uses ``algorithm`` for the ``with`` block.

    It counts for connections opened meanwhile. The ``iperf3`` package cannot choose, so a route to
    this one address, a copy of the one in use with RTAX_CC_ALGO added, says it (``ip route add
    10.0.0.6/32 ... congctl cubic``). The routes that were there stay untouched. Raises BadInput
    when ``destination`` is no address, LabError when there is no route to it or the kernel lacks
    the algorithm.
    """
    route = _host_route(netns, _address(destination), algorithm)
    try:
        yield
    finally:
        _route(netns, "del", {key: value for key, value in route.items() if key != "metrics"})


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise BadInput(f"'{text}' is not an IP address") from None


def _host_route(
    netns: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address, algorithm: str
) -> dict[str, Any]:
    """Add the route of :func:`congestion_control`; what was added."""
    (found,) = _route(netns, "get", {"dst": str(address)})
    route: dict[str, Any] = {
        "dst": f"{address}/{address.max_prefixlen}",
        "oif": found.get("oif"),
        "prefsrc": found.get("prefsrc"),
        "metrics": {"cc_algo": algorithm},
    }
    if gateway := found.get("gateway"):
        route["gateway"] = gateway
    elif address.version == 4:
        route["scope"] = _SCOPE_LINK
    _route(netns, "replace", route)
    return route


def _route(netns: int, command: str, arguments: dict[str, Any]) -> Any:
    """One route command of pyroute2 in ``netns``."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with in_netns(netns), IPRoute() as ip:
            return ip.route(command, **arguments)
    except NetlinkError as error:
        what = " ".join(f"{key} {value}" for key, value in arguments.items())
        raise LabError(f"route {command} {what}: {error}") from None


def run(
    client: int,
    server: int,
    address: str,
    *,
    seconds: int = 5,
    streams: int = 1,
    block_size: int = BLOCK_SIZE,
) -> IperfResult:
    """Send TCP for ``seconds`` over ``streams`` connections from one network namespace to another.

    ``client`` and ``server`` are descriptors of the namespaces, ``address`` is the server's. Both
    ends are gone when this returns or raises. Raises BadInput for values out of range, MachineLacks
    without libiperf, LabError with iperf3's own message when the run fails.
    """
    _address(address)
    _in_range("seconds", seconds, MAX_SECONDS)
    _in_range("streams", streams, MAX_STREAMS)
    _in_range("block_size", block_size, 1 << 20)
    with in_netns(server):
        port = _free_port()
    with start_in_netns(server, _serve, port, name="iperf3 server") as serving:
        _wait_until_listening(serving, server, port)
        arguments = (address, port, seconds, streams, block_size)
        with start_in_netns(client, _send, *arguments, name="iperf3 client") as sending:
            report = sending.result(seconds + _GRACE)
    return _parse(report)


def _in_range(name: str, value: int, highest: int) -> None:
    if not 1 <= value <= highest:
        raise BadInput(f"{name} is {value}: must be from 1 to {highest}")


def _free_port() -> int:
    """A TCP port nobody uses in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.listen()  # unbound: the kernel chooses
        return int(sock.getsockname()[1])


def _listens(port: int) -> bool:
    """Whether something listens on the TCP port in the calling thread's network namespace."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]:
                _, local, _, state = line.split()[:4]
                if state == _TCP_LISTEN and int(local.rpartition(":")[2], 16) == port:
                    return True
    return False


def _wait_until_listening(serving: NetnsCall[None], netns: int, port: int) -> None:
    """Return as soon as the server listens. Raises its error, or LabError at the deadline."""
    deadline = time.monotonic() + _READY_WITHIN
    while time.monotonic() < deadline:
        if serving.ended():
            serving.result(1)
            raise LabError("iperf3 server: ended before a client came")
        with in_netns(netns):
            if _listens(port):
                return
        time.sleep(0.005)
    raise LabError(f"iperf3 server: did not listen within {_READY_WITHIN:g} s")


def _prepare(end: Any, port: int) -> None:
    """Settings of either end.

    libiperf prints its report into a pipe that the package reads at the end only, so the report
    must fit: no interval reports (they grow with the seconds), and the largest pipe for those that
    grow with the streams.
    """
    end.port = port
    _call(end, "iperf_set_test_stats_interval", ctypes.c_double(0))
    _call(end, "iperf_set_test_reporter_interval", ctypes.c_double(0))
    fcntl.fcntl(end._pipe_in, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)  # noqa: SLF001 - no other way in


def _call(end: Any, name: str, value: ctypes.c_double | ctypes.c_int) -> None:
    """Call a setter of libiperf that the package does not wrap."""
    setter = end.lib[name]
    setter.argtypes = (ctypes.c_void_p, type(value))
    setter.restype = None
    setter(end._test, value)  # noqa: SLF001 - no other way in


def _serve(port: int) -> None:
    """Serve one client. Runs in the server's namespace."""
    import iperf3

    try:
        end = iperf3.Server()
    except OSError:
        raise MachineLacks(_INSTALL_IPERF) from None
    _prepare(end, port)
    if error := end.run().error:
        raise LabError(f"iperf3 server: {error}")


def _send(address: str, port: int, seconds: int, streams: int, block_size: int) -> str:
    """Run the client; its JSON report. Runs in the client's namespace."""
    import iperf3

    try:
        end = iperf3.Client()
    except OSError:
        raise MachineLacks(_INSTALL_IPERF) from None
    end.server_hostname = address
    end.duration = seconds
    end.num_streams = streams
    end.blksize = block_size
    _call(end, "iperf_set_test_connect_timeout", ctypes.c_int(int(_READY_WITHIN * 1000)))
    _prepare(end, port)
    result = end.run()
    if result.error:
        raise LabError(f"iperf3 client: {result.error}")
    return str(result.text)


def _parse(report: str) -> IperfResult:
    """The result in a client's JSON report. Raises LabError when nothing arrived or a figure is missing."""
    try:
        end = msgspec.json.decode(report)["end"]
        received = end["sum_received"]
        result = IperfResult(
            gigabits_per_second=received["bits_per_second"] / 1e9,
            retransmits=end["sum_sent"]["retransmits"],
            seconds=received["seconds"],
            congestion_control=end.get("sender_tcp_congestion", ""),
        )
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise LabError(f"iperf3 client: report not understood ({error!r}): {report[:200]}") from None
    if result.gigabits_per_second <= 0:
        raise LabError("iperf3 client: connected, but no data arrived at the server")
    return result
