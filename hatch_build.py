"""Build hook: makes the eBPF programs and the dashboard's script; gives the wheel what is beside the code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# What `testbed.engines.docker.image` builds the node image from, and the topologies to start with.
DATA = ("Dockerfile", "pyproject.toml", "images", "topologies")


class Hook(BuildHookInterface[Any]):
    """Runs in every build of the wheel; an editable one keeps its objects in the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling with version "standard" or "editable"."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        sys.path.insert(0, str(root))
        try:
            from testbed.dashboard import bundle
            from testbed.errors import TestbedError
            from testbed.nic.bpf import compiler
        finally:
            sys.path.remove(str(root))
        try:
            compiler.objects(root / "testbed" / "nic" / "bpf", force=True)
            bundle.make(root / "testbed" / "dashboard" / "page" / "vega.js")
        except TestbedError as error:
            sys.exit(f"testbed: {error}")
        if version == "standard":
            for name in DATA:
                build_data["force_include"][str(root / name)] = f"testbed/_data/{name}"
