"""The JSON Schema (draft 2020-12) of topology files, generated from the structs, for editors.

``python -m testbed.topology.jsonschema`` writes the shipped file anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from testbed.topology.schema import Topology

FILE = Path(__file__).with_name("topology.schema.json")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The JSON Schema of a topology file (after Jinja2)."""
    (_, components) = msgspec.json.schema_components([Topology], ref_template="#/$defs/{name}")
    definitions: dict[str, Any] = dict(sorted(components.items()))
    root = definitions.pop("Topology")
    generated: dict[str, Any] = _portable({**root, "$defs": definitions})
    return {"$schema": _DIALECT, **generated, "title": "testbed topology"}


def text() -> str:
    """The schema as the shipped file has it."""
    return msgspec.json.format(msgspec.json.encode(schema(), order="sorted"), indent=2).decode() + "\n"


def _portable(value: Any) -> Any:
    r"""Patterns in ECMAScript's syntax, which knows no \A and no \Z."""
    if isinstance(value, list):
        return [_portable(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _portable(item) for key, item in value.items()}
    if isinstance(pattern := result.get("pattern"), str):
        result["pattern"] = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    return result


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
