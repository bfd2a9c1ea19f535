"""What the pipeline of a host's switch is made of: which stages there are, with the filter of its mode."""

from __future__ import annotations

from typing import TypeAlias

from testbed.nic.stage import NicStage
from testbed.switch.extensions.stack import Stack
from testbed.switch.extensions.stage import PortExtensions, UplinkExtensions
from testbed.switch.pipeline import Pipeline, Stage
from testbed.switch.stages import PortStage
from testbed.switch.state import SwitchState
from testbed.switch.switching import SwitchingStage
from testbed.teaming.flowlets import Flowlets
from testbed.teaming.stage import TeamStage
from testbed.topology.schema import WnvMode
from testbed.wnv.below import FilterBelow
from testbed.wnv.filter import WnvFilter

Filter: TypeAlias = WnvFilter | FilterBelow
FILTERS: dict[WnvMode, type[WnvFilter] | type[FilterBelow]] = {
    "in-switch": WnvFilter,
    "below-switch": FilterBelow,
}


def build_pipeline(
    state: SwitchState,
    wnv: Filter,
    stack: Stack | None = None,
    mode: WnvMode = "in-switch",
    flowlets: Flowlets | None = None,
) -> Pipeline:
    """The stages of a switch, which sorts them itself. ``stack``: its extensions, by default none."""
    stack = stack or Stack([], state)
    stages: list[Stage] = [
        PortStage(wnv.delivered),
        PortExtensions(stack),
        SwitchingStage(state),
        wnv,
        UplinkExtensions(stack, state, mode),
        TeamStage(state, flowlets),
        NicStage(state),
    ]
    return Pipeline(stages, mode)
