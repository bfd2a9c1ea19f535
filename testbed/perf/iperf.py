"""One iperf3 run between two network namespaces.

Both ends are forked children of this process that have entered the guest's network namespace and
drive libiperf through the ``iperf3`` package: what is measured is the guest's own stack, and it
does not matter what the guest's image holds. What the package lacks (both directions at once,
congestion control, timeouts) has a call in libiperf; the ``iperf3`` program is never needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from testbed.errors import BadInput, LabError, MachineLacks
from testbed.namespaces import NetnsCall, in_netns, start_in_netns

BLOCK_SIZE = 128 * 1024  # iperf3 -l, bytes
MAX_STREAMS = 128  # of libiperf (MAX_STREAMS)
MAX_SECONDS = 86400  # of libiperf (MAX_TIME)
MAX_BLOCK = 1 << 20  # of libiperf (MAX_BLOCKSIZE)
MIN_DATAGRAM, MAX_DATAGRAM = 16, 65507  # of libiperf (MIN_UDP_BLOCKSIZE, MAX_UDP_BLOCKSIZE)
MAX_RATE = 1_000_000  # Mbit/s
CONGESTION_CONTROL = "cubic"
TICK = 0.25  # seconds between two calls of ``meanwhile``
_PIPE_SIZE = 1 << 20  # what a pipe may hold without CAP_SYS_RESOURCE
_READY_WITHIN = 5.0  # seconds for the server to listen, and for the client to connect
_GRACE = 15.0  # seconds a run may last beyond its measuring time
_TCP_LISTEN = "0A"  # state column of /proc/net/tcp
_INSTALL_IPERF = "libiperf is missing on this machine: install Debian's package libiperf0 (or iperf3)"

Protocol = Literal["tcp", "udp"]
Direction = Literal["forward", "reverse", "both"]


class Load(Struct, frozen=True):
    """What is sent.

    direction: forward is from client to server. message_size: bytes of one write of a sender. rate:
    Mbit/s of each stream, 0 for as fast as can be. congestion_control: of TCP.
    """

    seconds: int = 5
    streams: int = 1
    direction: Direction = "forward"
    protocol: Protocol = "tcp"
    message_size: int = BLOCK_SIZE
    rate: int = 0
    congestion_control: str = CONGESTION_CONTROL

    def check(self) -> None:
        """Raise BadInput for what libiperf would not take."""
        udp = self.protocol == "udp"
        _in_range("seconds", self.seconds, 1, MAX_SECONDS)
        _in_range("streams", self.streams, 1, MAX_STREAMS)
        _in_range(
            "message_size",
            self.message_size,
            MIN_DATAGRAM if udp else 1,
            MAX_DATAGRAM if udp else MAX_BLOCK,
            f" with {self.protocol}",
        )
        _in_range("rate", self.rate, 0, MAX_RATE)


class IperfResult(Struct, frozen=True):
    """What one run measured. gigabits_per_second is the receivers' count, of all directions.

    retransmits: 0 with UDP. congestion_control: of the sender, as its socket told; "" with UDP. loss (%
    of the datagrams), jitter (ms, of the direction that had more): None with TCP. directions: Gbit/s of
    each where there are two.
    """

    gigabits_per_second: float
    retransmits: int
    seconds: float
    congestion_control: str
    loss: float | None = None
    jitter: float | None = None
    directions: dict[str, float] = {}


def version() -> str:
    """Of libiperf: "3.12". Raises MachineLacks without it."""
    import iperf3

    try:
        return str(iperf3.Client().iperf_version).split()[1]
    except OSError:
        raise MachineLacks(_INSTALL_IPERF) from None


def _check_address(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise BadInput(f"'{text}' is not an IP address") from None


def run(
    client: int,
    server: int,
    address: str,
    load: Load | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> IperfResult:
    """Send ``load`` between two network namespaces.

    ``client`` and ``server`` are descriptors of the namespaces, ``address`` is the server's.
    ``meanwhile`` is called every TICK seconds while it is sent. Both ends are gone when this returns
    or raises. Raises BadInput for values out of range, MachineLacks without libiperf, LabError with
    iperf3's own message when the run fails.
    """
    load = load or Load()
    _check_address(address)
    load.check()
    with in_netns(server):
        port = _free_port()
    with start_in_netns(server, _serve, port, name="iperf3 server") as serving:
        _wait_until_listening(serving, server, port)
        with start_in_netns(client, _send, address, port, load, name="iperf3 client") as sending:
            if meanwhile:
                _tick(sending, load.seconds, meanwhile)
            report = sending.result(load.seconds + _GRACE)
    return _parse(report, load)


def _tick(sending: NetnsCall[str], seconds: float, meanwhile: Callable[[], None]) -> None:
    """Call ``meanwhile`` at each tick, until the time of the run is over or it has ended."""
    began = time.monotonic()
    for number in range(1, int(seconds / TICK)):
        while (left := began + number * TICK - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if sending.ended():
                return
        meanwhile()


def _in_range(name: str, value: int, lowest: int, highest: int, why: str = "") -> None:
    if not lowest <= value <= highest:
        raise BadInput(f"{name} is {value}: must be from {lowest} to {highest}{why}")


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


def _call(end: Any, name: str, value: ctypes.c_double | ctypes.c_int | ctypes.c_char_p) -> None:
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


def _send(address: str, port: int, load: Load) -> str:
    """Run the client; its JSON report. Runs in the client's namespace."""
    import iperf3

    try:
        end = iperf3.Client()
    except OSError:
        raise MachineLacks(_INSTALL_IPERF) from None
    end.server_hostname = address
    end.duration = load.seconds
    end.num_streams = load.streams
    end.protocol = load.protocol  # before the size, whose default it sets
    end.blksize = load.message_size
    end.bandwidth = load.rate * 1_000_000
    end.reverse = load.direction == "reverse"
    if load.direction == "both":
        _call(end, "iperf_set_test_bidirectional", ctypes.c_int(1))
    if load.protocol == "tcp":
        algorithm = ctypes.c_char_p(load.congestion_control.encode())
        _call(end, "iperf_set_test_congestion_control", algorithm)
    _call(end, "iperf_set_test_connect_timeout", ctypes.c_int(int(_READY_WITHIN * 1000)))
    _prepare(end, port)
    result = end.run()
    if result.error:
        raise LabError(f"iperf3 client: {result.error}")
    return str(result.text)


_BACK = "_bidir_reverse"  # what libiperf puts behind the sums of a test's second direction


def _parse(report: str, load: Load) -> IperfResult:
    """The result in a client's JSON report. Raises LabError when nothing arrived or a figure is missing."""
    ways = {"forward": "", "reverse": _BACK} if load.direction == "both" else {load.direction: ""}
    try:
        end = msgspec.json.decode(report)["end"]
        received = {way: end[f"sum_received{behind}"] for way, behind in ways.items()}
        sent = [end[f"sum_sent{behind}"] for behind in ways.values()]
        speeds = {way: each["bits_per_second"] / 1e9 for way, each in received.items()}
        result = IperfResult(
            gigabits_per_second=sum(speeds.values()),
            retransmits=sum(each["retransmits"] for each in sent) if load.protocol == "tcp" else 0,
            seconds=max(each["seconds"] for each in received.values()),
            congestion_control=end.get("sender_tcp_congestion", ""),
            directions=speeds if len(speeds) > 1 else {},
        )
        if load.protocol == "udp":
            result = msgspec.structs.replace(
                result, loss=_loss(received), jitter=max(each["jitter_ms"] for each in received.values())
            )
    except (msgspec.DecodeError, KeyError, TypeError, ZeroDivisionError) as error:
        raise LabError(f"iperf3 client: report not understood ({error!r}): {report[:200]}") from None
    for way, speed in speeds.items():
        if speed <= 0:
            raise LabError(f"iperf3 client: connected, but no data arrived ({way})")
    if load.protocol == "tcp" and result.congestion_control != load.congestion_control:
        told = result.congestion_control or "nothing known"
        raise LabError(f"iperf3 client: sent with {told}, not {load.congestion_control}")
    return result


def _loss(received: dict[str, Any]) -> float:
    """Percent of the datagrams of all directions that did not arrive."""
    lost = sum(each["lost_packets"] for each in received.values())
    return float(100 * lost / sum(each["packets"] for each in received.values()))
