"""docs/extensions.md says what the code says, and its example works."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from support.extensions import from_blue2, udp
from support.switch import MemorySwitch
from testbed.extensions.port_security import PortSettings
from testbed.extensions.rules import Rule
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.load import GROUP, find, load
from testbed.telemetry import EventLog
from testbed.topology.plan import ExtensionPlan

DOCUMENT = (Path(__file__).parents[2] / "docs" / "extensions.md").read_text()
SHOWN = ("acl", "capture", "payload-filter", "port-security")


def _section(name: str) -> str:
    found = re.search(rf"^### `{name}`(.*?)(?=^### |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_is_explained_and_no_other(name: str) -> None:
    keys = [field.name for field in msgspec.structs.fields(find(name).Settings)]
    if name == "acl":
        keys += [field.name for field in msgspec.structs.fields(Rule)]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", _section(name), re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(keys)


def test_exceptions_of_ports_are_the_first_four_settings() -> None:
    own = [field.name for field in msgspec.structs.fields(PortSettings)]
    settings = [field.name for field in msgspec.structs.fields(find("port-security").Settings)]
    assert own == ["name", *settings[:4], "addresses"]


def test_every_member_is_explained() -> None:
    part = DOCUMENT[DOCUMENT.index("| Member |") : DOCUMENT.index("A `Frame` has")]
    members = {name for name in vars(Extension) if not name.startswith("_")} | {"ports", "events"}
    assert set(re.findall(r"`(\w+)[`(]", part)) >= members


def test_the_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    (project,) = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
    points = tomllib.loads(project)["project"]["entry-points"][GROUP]
    (tmp_path / "quiet.py").write_text(code)
    info = tmp_path / "quiet-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: quiet\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "quiet", raising=False)
    with MemorySwitch(extensions=load([ExtensionPlan("quiet", {"port": 2})], EventLog())) as switch:
        assert switch.from_vm("blue1", udp("blue1", "blue2")).drops == {("blue1", "quiet:too-loud"): 1}
        assert switch.from_wire(from_blue2()).ports
    with MemorySwitch(extensions=load([ExtensionPlan("quiet", {"port": 7})], EventLog())) as switch:
        assert switch.from_vm("blue1", udp("blue1", "blue2")).wire
