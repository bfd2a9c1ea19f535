"""What stands in the table of each view, for the terminal and for pipes."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.lab.activity import Row, View

VIEWS: tuple[View, ...] = ("vms", "cables", "queues", "team", "drops", "vsids", "hosts")
TITLES: dict[View, str] = {
    "vms": "VMs",
    "cables": "cables",
    "queues": "queues",
    "team": "team",
    "drops": "drops",
    "vsids": "VSIDs",
    "hosts": "hosts",
}
_TRAFFIC = ("out bit/s", "pkt/s", "in bit/s", "pkt/s")
_HEADINGS: dict[View, tuple[str, ...]] = {
    "vms": ("VM", "host", "state", "VSID", *_TRAFFIC, "drops/s"),
    "cables": ("cable", "switch", "state", *_TRAFFIC, "drops/s"),
    "queues": ("queue", "host", "of", "share", "in bit/s", "pkt/s"),
    "team": ("member", "host", "state", "flows, RTT", *_TRAFFIC, "drops/s"),
    "drops": ("from", "host", "stage", "VSID", "reason", "pkt/s", "in all"),
    "vsids": ("VSID", "on", *_TRAFFIC, "drops/s"),
    "hosts": ("host", "state", "worker", *_TRAFFIC, "drops/s"),
}
_NUMBERS = ("bit/s", "pkt/s", "share", "in all")
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def headings(view: View) -> tuple[str, ...]:
    """Those of a view's columns."""
    return _HEADINGS[view]


def is_number(heading: str) -> bool:
    """Whether a column stands at the right."""
    return heading.endswith(_NUMBERS)


def cells(view: View, row: Row) -> Sequence[str]:
    """A row's text, column by column."""
    if view == "drops":
        reason = next(iter(row.reasons), "")
        return (row.object, row.host, row.state, row.note, reason, number(row.drops), number(row.total))
    if view == "queues":
        return row.object, row.host, row.state, row.note, number(row.in_bits), number(row.in_packets)
    named: dict[View, tuple[str, ...]] = {
        "vms": (row.object, row.host, row.state, row.note),
        "cables": (row.object, row.note, row.state),
        "team": (row.object, row.host, row.state, row.note),
        "vsids": (row.object, row.note),
        "hosts": (row.object, row.state, row.note),
    }
    traffic = row.out_bits, row.out_packets, row.in_bits, row.in_packets
    return *named[view], *(number(each) for each in traffic), losses(row)


def losses(row: Row) -> str:
    """Drops per second and of what they are: "12 oversize 9, not-ip 3"."""
    if not row.reasons:
        return number(row.drops)
    if len(row.reasons) == 1:
        return f"{number(row.drops)} {next(iter(row.reasons))}"
    return f"{number(row.drops)} " + ", ".join(f"{name} {number(n)}" for name, n in row.reasons.items())


def number(value: float | None) -> str:
    """At most five characters: 0, 0.4, 12, 1.2k, 950M; "-" for what is not known."""
    if value is None:
        return "-"
    for size, unit in _UNITS:
        if value >= 0.9995 * size:
            return _short(value / size) + unit
    return f"{value:.0f}" if value >= 9.95 or value == int(value) else f"{value:.1f}"


def _short(value: float) -> str:
    """Three digits."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
