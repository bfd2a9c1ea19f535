"""Bad files and options: one line that names the place, exit code 2, nothing made."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import TWO_HOSTS, Cli

pytestmark = pytest.mark.e2e

GOOD = TWO_HOSTS.read_text()
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

# what is replaced, by what, the line of the mistake (None: not tied to one), a word of the message
CASES = {
    "a wrong key": ("    host: host1", "    hots: host1", "hots", "hots"),
    "a reserved VSID": (
        "vnics: [{vsid: 5001, addresses: [10.0.0.5",
        "vnics: [{vsid: 4095, addresses: [10.0.0.5",
        "4095",
        "4095",
    ),
    "the last VSID": (
        'fd00::/64"]}\n',
        'fd00::/64"]}\n      - {vsid: 0xFFFFFF, prefixes: [10.0.9.0/24]}\n',
        "0xFFFFFF",
        "16777215",
    ),
    "a VSID that is no number": ("{vsid: 5001, prefixes", "{vsid: many, prefixes", "many", "vsid"),
    "overlapping subnets": (
        'fd00::/64"]}\n',
        'fd00::/64"]}\n      - {vsid: 5002, prefixes: [10.0.0.128/25]}\n',
        "5002",
        "overlap",
    ),
    "a duplicate address": ('10.0.0.6, "fd00::6"', '10.0.0.5, "fd00::6"', '10.0.0.5, "fd00::6"', "10.0.0.5"),
    "a duplicate MAC": (
        "vnics: [{vsid: 5001, addresses: [10.0.0.6",
        'vnics: [{vsid: 5001, mac: "00:15:5D:00:00:01"}, {vsid: 5001, mac: "00-15-5d-00-00-01", addresses: ['
        "10.0.0.6",
        "00-15-5d",
        "00",
    ),
    "an unknown host": ("    host: host2", "    host: host7", "host7", "host7"),
    "an unknown switch": ('["host2:nic1", tor1]', '["host2:nic1", tor7]', "tor7", "tor7"),
    "an unknown NIC": (
        '["host2:nic1", tor1], wire: {{ wire }}}',
        '["host2:nic1", tor1]}\n  - endpoints: ["host2:nic7", tor1]',
        "nic7",
        "nic7",
    ),
    "a name with ../": ("name: 2host", "name: ../2host", "name: ../", "name"),
    "a name with a newline": ("name: 2host", 'name: "2host\\nx"', '"2host', "name"),
    "an undefined variable": ("name: 2host", "name: {{ nobody }}", "nobody", "nobody"),
    "a template that is none": ("name: 2host", "name: {% if %}", "{% if", ""),
    "no YAML": ("name: 2host", "name: [2host", None, ""),
    "a YAML bomb": ("name: 2host", BOMB + "name: 2host", None, ""),
    "a tag of Python": ("name: 2host", "name: !!python/object/apply:os.getcwd []", "!!python", ""),
    "a key twice": ("name: 2host", "name: 2host\nname: 3host", "name: 3host", "name"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_message_with_the_place(cli: Cli, tmp_path: Path, case: str) -> None:
    old, new, place, word = CASES[case]
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    said = cli.refused(2, "up", file, "--engine", "namespaces", seconds=10)
    assert cli.names() == []
    assert said.count("\n") == 1, said
    assert said.startswith("testbed: ")
    assert f"{file}:" in said
    assert word in said
    if place is not None:
        line = next(number for number, each in enumerate(text.splitlines(), 1) if place in each)
        assert f"{file}:{line}:" in said, said
    assert cli.refused(2, "validate", file) == said


def test_files_and_settings_that_are_not_there(cli: Cli, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    for words in (("up", missing), ("validate", missing), ("render", missing), ("up", tmp_path)):
        said = cli.refused(2, *words)
        assert str(words[1]) in said
    assert "NAME=VALUE" in cli.refused(2, "validate", TWO_HOSTS, "--set", "hosts")
    assert cli.names() == []
