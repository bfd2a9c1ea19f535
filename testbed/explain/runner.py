"""Asks in order, stops when the cause is certain or the time is up, and says the sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from testbed.errors import BadInput, LabError
from testbed.explain import dry, ends, injection, nodes, owner, policy, provider, reach, subject, wires
from testbed.explain.model import CERTAIN, Cause, Evidence, Findings, Report, Weight
from testbed.explain.subject import Case
from testbed.lab.lab import Lab

SECONDS = 7.5  # after that no further question is begun; the longest of the last ones takes 2.2
PATIENCE = 2.0  # seconds for a host, or the VMM, to answer

Question = Callable[[Case], Findings]
_FIRST: tuple[Question, ...] = (nodes.running,)
_READING: tuple[Question, ...] = (owner.owner, ends.placement)
_APART: tuple[Question, ...] = (dry.apart,)
_STATE: tuple[Question, ...] = (
    ends.guests,
    ends.provider_addresses,
    wires.cables,
    policy.policies,
    dry.traces,
)
_SENDING: tuple[Question, ...] = (provider.provider, injection.injection, reach.reach, reach.followed)


def explain(lab: Lab, source: str, to: str) -> Report:
    """Why an adapter does not reach another one, or an address. Raises BadInput."""
    began = time.monotonic()
    lab.patience = PATIENCE
    case = subject.opened(lab, source, to)
    run = Run(case, began + SECONDS)
    for group in (_FIRST, _READING):
        run.ask(group)
    if case.separated:
        run.ask(_APART)
    else:
        run.ask(_STATE)
        known = len(run.causes)
        run.ask(_SENDING, one_by_one=True)
        if case.works:  # then what did not come of other things that were sent, was chance
            del run.causes[known:]
    cause, sentence = verdict(case, run.causes)
    return Report(
        case.source.vnic.port,
        case.target.vnic.port if case.target else "",
        case.address,
        cause,
        sentence,
        case.works,
        run.steps,
        round(time.monotonic() - began, 3),
    )


class Run:
    """What was found so far."""

    def __init__(self, case: Case, deadline: float) -> None:
        self.case, self.deadline = case, deadline
        self.steps: list[Evidence] = []
        self.causes: list[Cause] = []

    def ask(self, questions: Sequence[Question], *, one_by_one: bool = False) -> None:
        """A group of questions, unless the cause is certain. ``one_by_one``: look at that before each."""
        for number, question in enumerate(questions):
            if (one_by_one or not number) and (self._certain() or self.case.design):
                return
            if time.monotonic() > self.deadline:
                self.steps.append(Evidence(f"{question.__name__}?", "not asked: the time is up", ok=False))
                return
            self._one(question)

    def _one(self, question: Question) -> None:
        try:
            for found in question(self.case):
                if isinstance(found, Evidence):
                    self.steps.append(found)
                else:
                    self.causes.append(found)
        except (LabError, BadInput, OSError) as error:
            self.steps.append(Evidence(f"{question.__name__}?", f"can't be asked: {error}", ok=False))
            self.causes.append(Cause("not-found", Weight.SYMPTOM - 5, f"a question had no answer: {error}"))

    def _certain(self) -> bool:
        return any(each.weight >= CERTAIN for each in self.causes)


def verdict(case: Case, causes: list[Cause]) -> tuple[str, str]:
    """The kind of the cause ("": nothing is wrong), and the sentence."""
    here, there = case.source.vm.name, case.target.vm.name if case.target else case.address
    if causes:
        best = max(causes, key=lambda each: each.weight)  # the first of equals
        lead = f"{here} reaches {there} now, but " if case.works else f"{here} does not reach {there}: "
        if case.works is None and best.weight < CERTAIN:
            lead = ""
        return best.kind, f"{lead}{best.sentence}."
    if case.separated:
        return "", f"Nothing is wrong: {here} and {there} are isolated by design: different routing domains."
    if case.design:
        return "", f"Nothing is wrong: {case.design}."
    if case.works:
        return "", f"Nothing is wrong: {here} reaches {there}, and its answers come back, small and large."
    return "not-found", f"{here} does not reach {there}, and no question has found why."
