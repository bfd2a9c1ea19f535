"""Faults of learning, in hosts and in the VMM."""

from __future__ import annotations

from typing import Any

from planting import answering, around, plant


@plant(33)
def dhcp_unheard() -> None:
    from testbed.wnv.learning import Learning

    answering(Learning, "delivered", None)


@plant(34)
def refusals_untold() -> None:
    from testbed.host.learned import LearnedRecords

    answering(LearnedRecords, "refuse", None)


@plant(34)
def limit_ignored() -> None:
    from testbed.vmm.rules import learning

    answering(learning, "_refuse_limit", None)


@plant(35)
def moves_untold() -> None:
    from testbed.vmm.rules import policy

    def change(before: Any, tx: Any, reason: str, *more: Any) -> None:
        if reason != "Moved":
            before(tx, reason, *more)

    around(policy, "address_event", change)
