"""Emulated NICs of a lab under test: what they support, tasks switched and put back, their counters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from testbed.lab import nic

if TYPE_CHECKING:
    from testbed.testing.lab import LiveLab


def show(lab: LiveLab, host: str) -> list[dict[str, Any]]:
    """The NICs of a host: offloads, RSS, VMQ filters, counters."""
    return nic.show(lab.lab, host)


def require(lab: LiveLab, host: str, *tasks: str) -> None:
    """Skip the test unless all NICs of a host support these tasks."""
    for each in show(lab, host):
        lacking = [task for task in tasks if task not in each["offloads"]["supported"]]
        lab.require(not lacking, f"NICs that can't do {', '.join(lacking)}, such as {each['name']} of {host}")


def enabled(lab: LiveLab, host: str) -> set[str]:
    """The tasks that all NICs of a host have switched on."""
    return set.intersection(*({*each["offloads"]["enabled"]} for each in show(lab, host)))


def counted(lab: LiveLab, host: str, *names: str) -> list[int]:
    """Counters, each summed over the NICs of a host."""
    told = [each["counters"] for each in show(lab, host)]
    return [sum(each[name] for each in told) for name in names]


@contextlib.contextmanager
def switched(lab: LiveLab, host: str, tasks: Mapping[str, bool], **rss: Any) -> Iterator[None]:
    """All NICs of a host with some tasks switched, and RSS set, for the ``with`` block."""
    before = show(lab, host)
    nic.change(lab.lab, host, [], tasks, rss)
    try:
        yield
    finally:
        for each in before:
            old = {task: task in each["offloads"]["enabled"] for task in tasks}
            told = each["rss"]
            back = {"table": told["table"], "hash_types": told["hash_types"]} if rss else {}
            nic.change(lab.lab, host, [each["name"]], old, back)
