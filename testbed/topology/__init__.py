"""Topology files: load, render, validate, and make a Plan of them.

::

    render   Jinja2 -> text          document  YAML -> tree that knows its lines
    schema   what a file may hold    load      the two above -> Topology
    validate, addresses, problems    checks on the whole, all problems at once
    planner, fabric, naming          Topology -> Plan
    diff                             Plan, Plan -> what to change
    jsonschema                       the schema for editors
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.topology.plan import Plan
    from testbed.topology.schema import Topology


def plan_from_file(
    path: Path,
    variables: Mapping[str, str],
    previous: Plan | None = None,
    change: Callable[[Topology], Topology] = lambda topology: topology,
) -> Plan:
    """The Plan that a topology file describes.

    ``variables`` are those of ``--set``, each value a YAML scalar. ``previous``: the Plan of the
    running lab, whose addresses, ports and interface names are kept. ``change``: makes another
    topology of what the file says, which is in order. Raises BadInput.
    """
    from testbed.topology.render import begin

    with begin(path, variables) as rendering:
        # The child renders while these are imported.
        from testbed.topology.load import read
        from testbed.topology.planner import build
        from testbed.topology.profiles import Profiles
        from testbed.topology.validate import check

        topology, source = read(rendering)
        profiles = Profiles(path.parent)
        check(topology, source, profiles)
        return build(change(topology), previous, profiles)
