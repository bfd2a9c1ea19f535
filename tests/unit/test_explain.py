"""What explain makes of what it was told: ends, causes of drops and of sights, which of several it tells."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.cli import FOUR_HOSTS
from testbed.errors import BadInput, LabError
from testbed.explain import reasons, subject
from testbed.explain.model import CERTAIN, KINDS, Cause, Evidence, Findings, Weight
from testbed.explain.reach import Sights, explained
from testbed.explain.runner import Run, verdict
from testbed.explain.subject import Case
from testbed.switch.drops import Drop
from testbed.topology import plan_from_file

ROOT = Path(__file__).parents[2]
NOTHING = Sights("", False, False, False, False, False, False)


class PlannedLab:
    """A lab of which nothing runs: its Plan alone."""

    def __init__(self) -> None:
        self.plan = plan_from_file(FOUR_HOSTS, {})
        self.record = SimpleNamespace(name="planned")

    def netns(self, name: str) -> int:
        raise LabError(f"{name} is down")


def case(source: str = "blue1", to: str = "blue2") -> Case:
    lab: Any = PlannedLab()
    return subject.opened(lab, source, to)


# ---- whom it is about -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "to", "port", "address", "own"),
    [
        ("blue1", "blue2", "blue2:eth0", "10.0.0.6", "10.0.0.5"),
        ("blue1:eth0", "blue2:eth0", "blue2:eth0", "10.0.0.6", "10.0.0.5"),
        ("blue1", "blue4", "blue4:eth0", "10.0.1.8", "10.0.0.5"),
        ("blue1", "10.0.0.6", "blue2:eth0", "10.0.0.6", "10.0.0.5"),  # red2 has it too
        ("red1", "10.0.0.6", "red2:eth0", "10.0.0.6", "10.0.0.5"),
        ("blue1", "fd00:0:0::6", "blue2:eth0", "fd00::6", "fd00::5"),
        ("blue1", "10.0.0.8", "red4:eth0", "10.0.0.8", "10.0.0.5"),  # nobody of its own network
        ("blue1", "10.0.0.200", None, "10.0.0.200", "10.0.0.5"),
    ],
)
def test_the_ends(source: str, to: str, port: str | None, address: str, own: str) -> None:
    found = case(source, to)
    assert (found.target.vnic.port if found.target else None) == port
    assert (found.address, found.source.address) == (address, own)


def test_an_end_is_not_itself() -> None:
    for to in ("blue1", "10.0.0.5", "fd00::5"):
        with pytest.raises(BadInput, match="is blue1 itself"):
            case("blue1", to)
    with pytest.raises(BadInput, match="--to blue2:eth5"):
        case("blue1", "blue2:eth5")


# ---- what a drop and a sight mean -------------------------------------------------------------


@pytest.mark.parametrize("reason", [*Drop])
def test_every_drop_reason_has_a_cause(reason: Drop) -> None:
    cause = reasons.cause_of("host1", "wnv", reason, "the request")
    assert cause.kind in KINDS
    assert reason in cause.sentence


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("acl:rule-0", "acl"),
        ("port-security:mac-spoofing", "port-security"),
        ("payload-filter:virus", "extension"),
        (Drop.NO_LOOKUP_RECORD, "missing-record"),
        (Drop.NO_PROVIDER_ROUTE, "pa-route"),
        ("unheard-of", "dropped"),
    ],
)
def test_reasons(reason: str, kind: str) -> None:
    assert reasons.cause_of("host1", "port-extensions", reason, "the request").kind == kind


@pytest.mark.parametrize(
    ("sights", "lost", "large", "kind"),
    [
        (NOTHING._replace(refused="ENETUNREACH"), [], False, "guest-network"),
        (NOTHING._replace(asked=True), [], False, "lost"),
        (NOTHING._replace(left=True), [], False, "lost"),
        (NOTHING._replace(left=True), [], True, "fabric-mtu"),
        (NOTHING._replace(left=True),
         [("host1", "blue1:eth0", "wnv", Drop.NO_LOOKUP_RECORD)], False, "missing-record"),
        (NOTHING._replace(left=True, arrived=True, replied=True),
         [("host2", "blue2:eth0", "port-extensions", "acl:default")], False, "acl"),
        (NOTHING._replace(left=True, arrived=True),
         [("host2", "blue2:eth0", "port-extensions", "port-security:mac-spoofing")], False, "port-security"),
    ],
)  # fmt: skip
def test_sights(sights: Sights, lost: list[Any], large: bool, kind: str) -> None:
    (found,) = explained(case(), sights, lost, only_large=large)
    assert isinstance(found, Cause)
    assert found.kind == kind


# ---- which cause is told ----------------------------------------------------------------------

FIRST = Cause("cable-down", Weight.DEGRADED, "a cable is down")
SECOND = Cause("guest-firewall", Weight.PROBED, "a guest is closed")
PROVEN = Cause("missing-record", Weight.PROVEN, "a record is missing")


def test_the_heaviest_cause_is_told() -> None:
    found = case()
    found.works = False
    assert verdict(found, [FIRST, SECOND]) == (
        "guest-firewall",
        "blue1 does not reach blue2: a guest is closed.",
    )
    assert verdict(found, [FIRST, SECOND, PROVEN])[0] == "missing-record"
    assert verdict(found, [])[0] == "not-found"


def test_what_stands_in_for_a_fault_is_said() -> None:
    found = case()
    found.works = True
    assert verdict(found, [FIRST])[1] == "blue1 reaches blue2 now, but a cable is down."
    assert verdict(found, [])[0] == ""


def test_apart_by_design() -> None:
    found = case("blue1", "red2")
    found.separated = True
    assert verdict(found, []) == (
        "", "Nothing is wrong: blue1 and red2 are isolated by design: different routing domains."
    )  # fmt: skip


def _says(*found: Cause | Evidence) -> Callable[[Case], Findings]:
    return lambda _: iter(found)


def _breaks(_: Case) -> Findings:
    yield Evidence("first?", "yes", ok=True)
    raise LabError("gone")


def test_nothing_is_sent_once_the_cause_is_certain() -> None:
    run = Run(case(), float("inf"))
    run.ask([_says(PROVEN), _says(FIRST)])  # what reads is asked to the end
    assert run.causes == [PROVEN, FIRST]
    run.ask([_says(SECOND)])
    assert run.causes == [PROVEN, FIRST]
    one_by_one = Run(case(), float("inf"))
    one_by_one.ask([_says(FIRST), _says(PROVEN), _says(SECOND)], one_by_one=True)
    assert one_by_one.causes == [FIRST, PROVEN]
    assert min(Weight.PROVEN, Weight.ROOT) >= CERTAIN > Weight.PROBED


def test_a_question_without_an_answer_ends_nothing() -> None:
    run = Run(case(), float("inf"))
    run.ask([_breaks, _says(SECOND)])
    assert [step.ok for step in run.steps] == [True, False]
    assert [each.kind for each in run.causes] == ["not-found", "guest-firewall"]


def test_no_question_is_begun_when_the_time_is_up() -> None:
    run = Run(case(), 0.0)
    run.ask([_says(PROVEN)])
    assert run.causes == []
    assert [step.said for step in run.steps] == ["not asked: the time is up"]


# ---- documents --------------------------------------------------------------------------------


def test_every_cause_is_explained_and_no_other() -> None:
    part = (ROOT / "docs" / "explain.md").read_text().partition("\n## Causes\n")[2]
    assert re.findall(r"^\| `([a-z-]+)` \| \S", part, re.MULTILINE) == [*KINDS]


def test_no_other_cause_is_told() -> None:
    code = "".join(path.read_text() for path in (ROOT / "testbed" / "explain").glob("*.py"))
    told = {*re.findall(r'Cause\(\s*"([a-z-]+)"', code)}
    assert told <= {*KINDS}
    assert {*KINDS} - told <= {kind for kind, _ in reasons.MEANING.values()} | {
        *reasons.EXTENSIONS,
        "dropped",
        "extension",
    }
