"""capture: packets at many points of a running lab."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.errors import BadInput, LabError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.capture.points import Point
    from testbed.capture.session import Interrupt, Output

_MOST = 1 << 17


@click.command()
@click.argument("name", required=False)
@click.argument("points", nargs=-1, metavar="POINT...")
@click.option("-w", "--write", "file", metavar="FILE", help="Write pcapng; -: to standard output.")
@click.option("--vsid", type=int, metavar="N", help="This virtual subnet only; 0: what is not virtualised.")
@click.option("--ca", metavar="IP", help="From, to or about this customer address only.")
@click.option("--pa", metavar="IP", help="From, to or about this provider address only.")
@click.option("--bpf", metavar="EXPR", help="pcap-filter(7), of the frame or of the one inside NVGRE.")
@click.option(
    "-s",
    "--snaplen",
    type=click.IntRange(0, _MOST),
    default=0,
    metavar="N",
    help="Bytes kept of each; 0: all.",
)
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="End after that time.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after that many packets.")
@click.option("--events", is_flag=True, help="What hosts and the VMM do, too, as an interface of its own.")
@click.option("--decode", metavar="FILE", help="Read a capture file with tshark instead.")
def capture(
    name: str | None,
    points: tuple[str, ...],
    file: str | None,
    vsid: int | None,
    ca: str | None,
    pa: str | None,
    bpf: str | None,
    snaplen: int,
    seconds: float | None,
    count: int | None,
    events: bool,
    decode: str | None,
) -> None:
    """Capture packets at points of a running lab, all in the order of time, until Ctrl-C.

    POINT is vm:NAME, HOST:ingress, HOST:egress, HOST:wnv, HOST:team, HOST:NIC, cable:HOST/NIC, switch:NAME,
    or a glob of them. Without -w a line is printed for each packet.
    """
    from testbed.capture.events import EVENTS
    from testbed.capture.filters import criteria
    from testbed.capture.session import Interrupt, Limits
    from testbed.lab import capture as capture_of
    from testbed.lab.lab import Lab

    if decode is not None:
        if name:
            raise BadInput("--decode reads a file: give it no lab and no points")
        _decode(decode)
        return
    if not name or not points:
        raise BadInput("name a lab and at least one point, such as `testbed capture 4host 'cable:*'`")
    wanted = criteria(vsid, ca, pa, bpf)
    with Lab.open(name) as lab:
        chosen = capture_of.choose(lab, points)
        shown = [*chosen, EVENTS] if events else chosen
        # the signals first: from the moment it says that it captures, Ctrl-C ends it in good order
        opened = capture_of.opened(lab, chosen, wanted, snaplen, events=events)
        with Interrupt() as interrupt, opened as sources:
            descriptor = _target(file)
            try:
                output = _output(descriptor, shown, snaplen, interrupt)
                click.echo(f"capturing at {len(chosen)} points", err=True)
                limits = Limits(seconds, count)
                session = capture_of.run(lab, chosen, sources, output, limits, interrupt)
            finally:
                if descriptor is not None and descriptor != sys.stdout.fileno():
                    os.close(descriptor)
        if session.is_closed:
            _forget_output()
        capture_of.told(session, sources, lambda text: click.echo(text, err=True))


def _target(file: str | None) -> int | None:
    """The descriptor to write to; None: lines are printed. Raises BadInput, LabError."""
    if file is None:
        return None
    if file == "-":
        if sys.stdout.isatty():
            raise BadInput("-w - writes binary data: pipe it, such as into `wireshark -k -i -`")
        return sys.stdout.fileno()
    try:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LabError(f"-w {file}: {error.strerror}") from None


def _output(descriptor: int | None, chosen: Sequence[Point], snaplen: int, interrupt: Interrupt) -> Output:
    from testbed.capture.output import LinesOutput, PcapngOutput

    if descriptor is None:
        return LinesOutput(chosen, click.echo)
    return PcapngOutput(descriptor, chosen, snaplen, lambda: interrupt.asked)


def _forget_output() -> None:
    """Nobody reads standard output: what its buffer still has must not fail when the interpreter ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _decode(file: str) -> None:
    from testbed.capture.decode import COLUMNS, decode

    click.echo("\t".join(COLUMNS))
    for row in decode(Path(file)):
        click.echo("\t".join(row))


COMMANDS = (capture,)
