"""The shipped JSON Schema."""

import json
import re
from collections.abc import Iterator
from typing import Any

from testbed.topology import jsonschema
from testbed.topology.schema import Topology


def walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


def test_shipped_file_is_current():
    shipped = jsonschema.FILE.read_text(encoding="utf-8")
    assert shipped == jsonschema.text(), "run: python -m testbed.topology.jsonschema"


def test_shape():
    schema = jsonschema.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Topology.__struct_fields__)
    assert schema["title"]
    assert schema["description"]
    assert not any("$id" in part for part in walk(schema))
    structs = [schema, *schema["$defs"].values()]  # not the free mapping of an extension's settings
    assert all(part["additionalProperties"] is False for part in structs)
    assert all(part.get("description") for part in schema["$defs"].values())


def test_references_lead_somewhere():
    schema = jsonschema.schema()
    references = {part["$ref"] for part in walk(schema) if "$ref" in part}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}


def test_patterns_are_ecmascript():
    patterns = [part["pattern"] for part in walk(json.loads(jsonschema.text())) if "pattern" in part]
    assert len(patterns) >= 5
    for pattern in patterns:
        assert pattern.startswith("^")
        assert pattern.endswith("$")
        assert not re.search(r"\\[AZz]", pattern)
