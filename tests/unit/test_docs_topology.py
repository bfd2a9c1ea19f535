"""docs/topology.md describes every key of the schema and no other, and its example is valid."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from testbed.topology import plan_from_file, schema

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "topology.md").read_text()
STRUCTS = sorted(
    (each for each in vars(schema).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)),
    key=lambda each: each.__name__,
)
STRUCTS.remove(msgspec.Struct)


def rows(heading: str) -> dict[str, str]:
    """Key -> default, of the table below a heading."""
    found = re.search(rf"^### {heading}$(.*?)(?=^#+ |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return dict(re.findall(r"^\| `([\w-]+)` \| (.*?) ?\|", found[1], re.MULTILINE))


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_key_is_described_and_no_other(struct: type[msgspec.Struct]) -> None:
    assert sorted(rows(struct.__name__)) == sorted(
        field.encode_name for field in msgspec.structs.fields(struct)
    )


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_keys_without_a_default_are_those_that_must_be_there(struct: type[msgspec.Struct]) -> None:
    documented = rows(struct.__name__)
    required = {field.encode_name for field in msgspec.structs.fields(struct) if field.required}
    assert {key for key, default in documented.items() if not default} == required


def as_yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_plain_defaults_are_the_schemas() -> None:
    for struct in STRUCTS:
        for field in msgspec.structs.fields(struct):
            if isinstance(field.default, str | int):
                assert rows(struct.__name__)[field.encode_name].strip("`") == as_yaml(field.default)


def test_the_example_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert example
    file = tmp_path / "example.yaml"
    file.write_text(example[1])
    assert len(plan_from_file(file, {}).vms) == 2


SHIPPED = [file for file in sorted((ROOT / "topologies").glob("*.yaml")) if file.name != "ci-matrix.yaml"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_topologies_are_valid_and_listed(file: Path) -> None:
    plan_from_file(file, {})
    assert f"| `{file.name}` |" in (ROOT / "topologies" / "README.md").read_text()
