"""testbed.evidence.collect, .ring and .rerun: nothing secret, bounded rings, a stranger's test id."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.capture.records import Record
from testbed.errors import BadInput
from testbed.evidence import collect, ring
from testbed.evidence.bundle import Bundle, Manifest
from testbed.evidence.rerun import _plant, _suite, topology_of


def of(**more: str) -> Bundle:
    fields = dict.fromkeys(("testbed", "lab", "topology", "engine", "plant", "python", "kernel", "file"), "")
    fields |= {"suite": "mtu", "name": "test_x", **more}
    return Bundle(Manifest(format=1, created=0.0, **fields), {})  # type: ignore[arg-type]


def test_a_secret_is_replaced_by_as_many_asterisks() -> None:
    data = b"a token-1 token-1token-2 \xff"
    assert collect.scrubbed(data, ["token-1", "token-2"]) == b"a ******* ************** \xff"


def test_a_part_of_a_secret_is_no_less_secret() -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
    for part in (secret[:30], secret[-30:], secret[5:25], secret[:16]):
        left = collect.scrubbed(f"<{part}>".encode(), [secret])
        assert len(left) == len(part) + 2
        assert len(left.strip(b"<*>")) < 16


def test_a_ring_keeps_the_last_of_each_point_and_counts_all() -> None:
    kept = ring.Ring(2)
    for number in range(ring.PACKETS + 5):
        kept.packet(Record(number, 0, b"", 0, 0))
    kept.packet(Record(7, 1, b"", 0, 0))
    assert kept.kept[0][0].time == 5
    assert (len(kept.kept[0]), len(kept.kept[1])) == (ring.PACKETS, 1)
    assert kept.passed == [ring.PACKETS + 5, 1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"suite": "none"}, "this version has no test"),
        ({"name": "--collect-only"}, "has no test"),
        ({"name": "test_x::../y"}, "has no test"),
        ({"name": "test_x[a b]"}, "has no test"),
        ({"suite": "", "file": "test_mine.py"}, "test_mine.py is a test file of somebody's own"),
    ],
)
def test_only_tests_of_ours_are_run_again(fields: dict[str, str], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        _suite(of(**fields))


def test_what_is_run_again() -> None:
    assert _suite(of(name="test_x[ipv4]")).name == "mtu"
    with pytest.raises(BadInput, match="no plant"):
        _plant(of(plant="../x"))
    with pytest.raises(BadInput, match="has no topology to build"), topology_of(of()):
        pass


def test_a_topology_is_a_file_for_the_block_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_STATE_DIR", str(tmp_path))
    bundle = of()
    bundle.files[collect.TOPOLOGY] = b"name: x\n"
    with topology_of(bundle) as file:
        assert file.read_bytes() == b"name: x\n"
    assert not Path(file).parent.exists()
