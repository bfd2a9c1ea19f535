"""The meter of outages, on a cable that is cut for a known time."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from testbed.errors import LabError
from testbed.namespaces import in_netns, new_netns
from testbed.perf import outage

pytestmark = pytest.mark.netns
ADDRESS = "10.0.0.2"


def ip(netns: int, *words: str) -> None:
    with in_netns(netns):
        subprocess.run(["ip", *words], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    left, right = new_netns(), new_netns()
    ip(
        left,
        "link",
        "add",
        "eth0",
        "type",
        "veth",
        "peer",
        "eth0",
        "netns",
        f"/proc/{os.getpid()}/fd/{right}",
    )
    for netns, number in ((left, 1), (right, 2)):
        ip(netns, "link", "set", "eth0", "up")
        ip(netns, "addr", "add", f"10.0.0.{number}/24", "dev", "eth0")
    yield left, right
    os.close(left)
    os.close(right)


def test_a_cut_is_as_long_as_it_was(ends: tuple[int, int]) -> None:
    left, right = ends
    with outage.probing(left, [right], ADDRESS) as meter:
        time.sleep(0.1)
        # The answerer's address is gone for a while; the sender's neighbor entry stays.
        began = time.monotonic()
        ip(right, "addr", "del", f"{ADDRESS}/24", "dev", "eth0")
        time.sleep(0.2)
        ip(right, "addr", "add", f"{ADDRESS}/24", "dev", "eth0")
        longest = 1000 * (time.monotonic() - began)
        time.sleep(0.1)
        found = meter.stop()
        assert meter.stop() == found  # said once
    assert 200 <= found.longest <= longest + 100  # the kernel may take its time
    assert found.lost >= 100
    assert found.sent > found.lost


def test_nothing_cut_is_nothing_long(ends: tuple[int, int]) -> None:
    left, right = ends
    with outage.probing(left, [right], ADDRESS) as meter:
        time.sleep(0.3)
        found = meter.stop()
    assert found.lost <= 1  # the one on its way
    assert found.longest <= found.held_up + 20
    assert found.sent >= 50


def test_an_outage_that_lasts_counts_until_the_end(ends: tuple[int, int]) -> None:
    left, right = ends
    with outage.probing(left, [right], ADDRESS) as meter:
        ip(right, "link", "set", "eth0", "down")
        time.sleep(0.3)
        assert meter.stop().longest >= 290


def test_an_address_of_nobody(ends: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_ANSWER_SECONDS", 0.5)
    left, right = ends
    with (
        pytest.raises(LabError, match=r"10\.0\.0\.9 does not answer"),
        outage.probing(left, [right], "10.0.0.9"),
    ):
        pass
