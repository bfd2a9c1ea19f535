"""Reading topology files: what is wrong with one value, with YAML or with a template."""

import os
import time
from pathlib import Path

import jinja2.sandbox  # noqa: F401 - imported here, the rendering children need not import it each
import pytest

from testbed.errors import BadInput
from testbed.topology import plan_from_file, render
from testbed.topology.load import load
from testbed.topology.load import render as render_file

TOPOLOGIES = Path(__file__).parents[2] / "topologies"

BASE = """\
name: lab
networks:
  - name: blue
    subnets: [{vsid: 5001, prefixes: [10.0.0.0/24, "fd00::/64"]}]
hosts:
  - {name: host1, nics: [{name: nic1}]}
vms:
  - name: blue1
    host: host1
    vnics: [{vsid: 5001, addresses: [10.0.0.5]}]
fabric: {switches: [tor1]}
links:
  - {endpoints: ["host1:nic1", tor1]}
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def complaint(tmp_path: Path, text: str | bytes, **variables: str) -> str:
    """The message of BadInput, with the file's path replaced by F."""
    path = tmp_path / "F"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput) as caught:
        plan_from_file(path, variables)
    return str(caught.value).replace(str(path), "F")


def changed(old: str, new: str) -> str:
    assert BASE.count(old) >= 1
    return BASE.replace(old, new, 1)


NAME_RULE = "must be lower-case letters, digits and inner hyphens, at most 32 characters"
KNOWN = "known here: name, networks, hosts, vms, fabric, links, timers"

SCHEMA = {
    "wrong key": (changed("name: lab", "nam: lab"), f"F:1: nam: unknown key; did you mean name? {KNOWN}"),
    "wrong inner key": (
        changed("prefixes:", "prefix:"),
        "F:4: networks[0].subnets[0].prefix: unknown key; did you mean prefixes? "
        "known here: vsid, prefixes, gateways",
    ),
    "key with line break": (BASE + '"a\\nb": 1\n', f"F:14: a\\nb: unknown key; {KNOWN}"),
    "missing key": (changed("    host: host1\n", ""), "F:8: vms[0].host: this key is missing; add it"),
    "name ../": (changed("name: lab", "name: ../lab"), f'F:1: name: "../lab" is not allowed; {NAME_RULE}'),
    "name line break": (changed("lab", '"lab\\n"'), f'F:1: name: "lab\\n" is not allowed; {NAME_RULE}'),
    "name option": (changed("lab", "-rf"), f'F:1: name: "-rf" is not allowed; {NAME_RULE}'),
    "name empty": (changed("lab", '""'), f'F:1: name: "" is not allowed; {NAME_RULE}'),
    "name long": (changed("lab", "a" * 33), f'F:1: name: "{"a" * 33}" is not allowed; {NAME_RULE}'),
    "name look-alike": (changed("lab", "l\u0430b"), f'F:1: name: "l\u0430b" is not allowed; {NAME_RULE}'),
    "name shell": (changed("blue1", "$(id)"), f'F:8: vms[0].name: "$(id)" is not allowed; {NAME_RULE}'),
    "name is a boolean": (
        changed("name: lab", "name: no"),
        'F:1: name: expected a string, but YAML reads no as a boolean; quote it: "no"',
    ),
    "name is a number": (
        changed("name: lab", "name: 12"),
        'F:1: name: expected a string, but YAML reads 12 as a whole number; quote it: "12"',
    ),
    "name is nothing": (
        changed("name: lab", "name:"),
        "F:1: name: expected a string, got nothing; give it a value or leave the key out",
    ),
    "sexagesimal MAC": (
        changed("{name: nic1}", "{name: nic1, mac: 10:20:30:40:50:10}"),
        "F:6: hosts[0].nics[0].mac: YAML reads 10:20:30:40:50:10 as an unusual number; "
        'write a decimal number, or quote it: "10:20:30:40:50:10"',
    ),
    "bad MAC": (
        changed("{name: nic1}", "{name: nic1, mac: 00:15:5d:00:00}"),
        'F:6: hosts[0].nics[0].mac: "00:15:5d:00:00" is not allowed; must be a MAC address',
    ),
    "date": (
        changed("host: host1", "host: 2012-09-04"),
        "F:9: vms[0].host: YAML reads 2012-09-04 as a date; write a decimal number, or quote it: "
        '"2012-09-04"',
    ),
    "octal": (
        changed("5001", "05001"),
        "F:4: networks[0].subnets[0].vsid: YAML reads 05001 as an unusual number",
    ),
    "VSID in quotes": (
        changed("5001", '"5001"'),
        'F:4: networks[0].subnets[0].vsid: expected a whole number, got a string "5001"; remove the quotes',
    ),
    "VSID 1e3": (
        changed("5001", "1e3"),
        'F:4: networks[0].subnets[0].vsid: expected a whole number, got a string "1e3"; write it in digits',
    ),
    "VSID float": (
        changed("5001", "5001.0"),
        "expected a whole number, got a number 5001.0; write it in digits",
    ),
    "VSID boolean": (
        changed("5001", "yes"),
        "expected a whole number, got a boolean yes; write it in digits",
    ),
    "VSID negative": (
        changed("5001", "-1"),
        "F:4: networks[0].subnets[0].vsid: -1 is out of range; must be at least 0",
    ),
    "VSID too large": (changed("5001", "16777216"), "16777216 is out of range; must be at most 16777215"),
    "VSID huge": (changed("5001", "9" * 5000), "F:4: networks[0].subnets[0].vsid: YAML reads 999999"),
    "list expected": (
        changed('[10.0.0.0/24, "fd00::/64"]', "10.0.0.0/24"),
        'F:4: networks[0].subnets[0].prefixes: expected a list, got a string "10.0.0.0/24"; write a list',
    ),
    "mapping expected": (
        changed("{switches: [tor1]}", "[tor1]"),
        "F:11: fabric: expected a mapping, got a list; write",
    ),
    "empty list": (
        changed('[10.0.0.0/24, "fd00::/64"]', "[]"),
        "F:4: networks[0].subnets[0].prefixes: must have at least 1 item; this has 0",
    ),
    "three endpoints": (
        changed('["host1:nic1", tor1]', '["host1:nic1", tor1, tor1]'),
        "F:13: links[0].endpoints: must have 2 items; this has 3",
    ),
    "bad choice": (
        changed("tor1]}\n", "tor1], wire: copper}\n")
        and changed("tor1]}\nlinks", "tor1]}\ntimers: slow\nlinks"),
        'F:12: timers: "slow" is not allowed; must be one of: fast, rfc',
    ),
    "PA MTU": (
        changed("switches: [tor1]", "switches: [tor1], pa_mtu: 1000"),
        "F:11: fabric.pa_mtu: 1000 is out of range; must be at least 1280 (bytes of IP packet)",
    ),
    "RDID": (
        changed("name: blue\n", "name: blue\n    rdid: x\n"),
        'F:4: networks[0].rdid: "x" is not allowed; must be a GUID',
    ),
}

YAML = {
    "empty": ("", "F:1: the file is empty; start with `name: NAME`"),
    "only a comment": ("# nothing\n", "F:1: the file is empty"),
    "list": ("- a\n", "F:1: the file must be a mapping; start with `name: NAME`"),
    "two documents": (BASE + "---\nname: x\n", "F:14: a second document begins; keep one topology in a file"),
    "key twice": (BASE + "name: again\n", "F:14: name: the key stands twice, first on line 1; remove one"),
    "inner key twice": (
        changed("vsid: 5001,", "vsid: 5001, vsid: 5002,"),
        "F:4: networks[0].subnets[0].vsid: the key stands twice, first on line 4; remove one",
    ),
    "merge key": (BASE + "<<: {name: x}\n", "F:14: <<: merge keys are not supported; use a Jinja2 loop"),
    "list as key": ("? [a]\n: b\n", "F:1: a key must be a word"),
    "bomb": (BOMB, "more than 100000 values once aliases are expanded; make the file smaller"),
    "alias of itself": ("a: &a [*a]\n", "F:1: a[0]: *a contains itself; write the value out"),
    "alias of nothing": ("a: 1\nb: *a\n", "F:2: b: *a names no anchor; put &a before the value it means"),
    "deep": ("[" * 200_000, "nested more than 32 levels deep; make it flatter"),
    "Python tag": (
        "a: !!python/object/apply:os.system [id]\n",
        "python/object/apply:os.system is not allowed; remove",
    ),
    "unclosed": (
        "name: [a,\nb: 1\n",
        "F:3: YAML: while parsing a flow sequence that begins on line 1: did not find expected",
    ),
    "tab": (
        "hosts:\n\t- a\n",
        "F:2: YAML: while scanning for the next token found character that cannot start any "
        "token; indent with spaces, not with tabs",
    ),
    "NUL": (b"name: a\n\0", "F:2: control character U+0000; a topology file is plain text"),
    "escape sequence": (
        "name: \x1b[31mred\n",
        "F:1: control character U+001B; a topology file is plain text",
    ),
    "not UTF-8": (b"name: a\nb: \xff\xfe", "F:2: is not UTF-8 text; name a topology file (YAML)"),
    "too large": ("#" * (1 << 20) + "\n", "F: more than 1048576 bytes; a topology file is smaller"),
}

TEMPLATES = {
    "undefined": (
        changed("name: lab", "name: {{ foo }}"),
        "F:1: template: 'foo' is undefined; pass --set foo=VALUE, or give it a default in the file",
    ),
    "undefined in a loop": (
        changed("vms:\n", "vms:\n{% for i in range(2) %}\n  # {{ i + hsts }}\n{% endfor %}\n"),
        "F:9: template: 'hsts' is undefined; pass --set hsts=VALUE",
    ),
    "syntax": (changed("host1\n", "{{ x\n"), "F:10: template syntax: "),
    "block not ended": (
        BASE + "{% for i in range(3) %}\n",
        "F:14: template syntax: Unexpected end of template",
    ),
    "huge range": (
        changed("vms:\n", "vms:\n{% for i in range(10**9) %}\n{% endfor %}\n"),
        "F:8: template: a range of more than 100000 items; make it smaller",
    ),
    "huge string": (
        changed("lab", "{{ 'a' * 10**10 }}"),
        "F: the template needs more than 256 MiB; make it smaller",
    ),
    "huge output": (
        changed("lab", "{% for i in range(90000) %}" + "x" * 100 + "{% endfor %}"),
        "F: the template yields more than 4194304 bytes; make it smaller",
    ),
    "endless recursion": (
        changed("lab", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        "F:1: template: a macro calls itself without end; give the recursion an end",
    ),
    "division": (changed("name: lab", "name: {{ 1 // 0 }}"), "F:1: template: ZeroDivisionError: "),
    "escape from the sandbox": (
        changed("lab", "{{ ''.__class__.__mro__ }}"),
        "F:1: template: access to attribute '__class__' of 'str' object is unsafe; a template "
        "can't reach into Python",
    ),
    "include above": (
        changed("lab", "{% include '../../etc/passwd' %}"),
        "F:1: template: '../../etc/passwd' can't be included; only files in the same folder or below can",
    ),
    "random": (
        changed("lab", "{{ ['a', 'b'] | random }}"),
        "F:1: template syntax: No filter named 'random'.",
    ),
    "NUL from the template": (
        changed("lab", "{{ '\\x00' }}"),
        "F: rendered line 1 has the control character U+0000",
    ),
}


@pytest.mark.parametrize(("text", "expected"), SCHEMA.values(), ids=SCHEMA)
def test_wrong_value(tmp_path, text, expected):
    message = complaint(tmp_path, text)
    assert expected in message
    assert message.startswith("F:")
    assert "\n" not in message


@pytest.mark.parametrize(("text", "expected"), YAML.values(), ids=YAML)
def test_wrong_yaml(tmp_path, text, expected):
    message = complaint(tmp_path, text)
    assert expected in message
    assert "\n" not in message
    assert message.isprintable()


@pytest.mark.parametrize(("text", "expected"), TEMPLATES.values(), ids=TEMPLATES)
def test_wrong_template(tmp_path, text, expected):
    message = complaint(tmp_path, text)
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"hsts": "8"}, "--set hsts: the file uses no such variable; it knows: hosts"),
        ({"hosts": "[1]"}, "--set hosts: must be a single value; a list or mapping can't be passed"),
        ({"hosts": "010"}, "--set hosts: YAML reads 010 as an unusual number; write a decimal number"),
        ({"a-b": "1"}, "--set a-b: is no variable name; use letters, digits and underscores"),
        ({"loop": "1"}, "--set loop: is no variable name"),
    ],
)
def test_wrong_variable(tmp_path, variables, expected):
    assert complaint(tmp_path, "{% set hosts = hosts | default(4) %}\n" + BASE, **variables).startswith(
        expected
    )


def test_variable_for_a_plain_file(tmp_path):
    assert (
        complaint(tmp_path, BASE, hosts="3")
        == "--set hosts: F is no template, it uses no variable; leave it out"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "missing: no such file; check the path"),
        ("", "is a folder; name the topology file in it"),
        ("fifo", "fifo: is not a regular file; name a topology file (YAML)"),
        ("nul\0", "can't be read: embedded null byte"),
    ],
)
def test_unreadable_file(tmp_path, name, expected):
    os.mkfifo(tmp_path / "fifo")
    keep_open = os.open(tmp_path / "fifo", os.O_RDWR)
    try:
        with pytest.raises(BadInput) as caught:
            load(tmp_path / name, {})
    finally:
        os.close(keep_open)
    assert expected in str(caught.value)


def test_endless_template_meets_the_deadline(tmp_path, monkeypatch):
    monkeypatch.setattr(render, "RENDER_SECONDS", 0.3)
    loops = "".join(f"{{% for {name} in range(10000) -%}}" for name in "abc") + "{%- endfor %}" * 3
    began = time.monotonic()
    message = complaint(tmp_path, loops + BASE)
    assert message == "F: the template takes more than 0.3 s; look for an endless or huge loop"
    assert time.monotonic() - began < 2
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)  # no child is left


def test_abandoned_rendering_leaves_no_child(tmp_path):
    path = tmp_path / "F"
    path.write_text("{% for i in range(100000) %}{{ i }}{% endfor %}")
    with render.begin(path, {}):
        pass
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


BODY = "  - name: vm{{ i }}\n    vsid: bad{{ i }}\n"
LOOPS = {  # every style of whitespace control; the bad VSID stands on line 6 of the source
    "plain": "\n\nvms:\n{% for i in range(3) %}\n" + BODY + "{% endfor %}\n",
    "dash before": "\n\nvms:\n{%- for i in range(3) %}\n" + BODY + "{%- endfor %}\n",
    "dash after": "\n\nvms:\n{% for i in range(3) -%}\n" + BODY.replace("\n  ", "\n") + "{% endfor %}\n",
    "indented": "\n\nvms:\n  {% for i in range(3) %}\n" + BODY + "  {% endfor %}\n",
    "comment": "{# one\ntwo #}\nvms:\n{% for i in range(3) %}\n" + BODY + "{% endfor %}\n",
    "raw": "\n\nvms: {% raw %}\n\n  - name: a\n    vsid: bad\n{% endraw %}\n",
    "filter": "\n\nvms:\n{% filter indent(2) %}{% for i in range(3) %}\n"
    + BODY
    + "{% endfor %}{% endfilter %}\n",
    "lines from values": "\n\nvms: {{ '\\n' }}{{ '\\n\\n' }}\n\n\n{{ '  - vsid: bad' }}{{ '\\n\\n' }}\n",
    "Windows line ends": ("{# #}\n\nvms:\n{% for i in range(3) %}\n" + BODY + "{% endfor %}\n").replace(
        "\n", "\r\n"
    ),
}


@pytest.mark.parametrize("text", LOOPS.values(), ids=LOOPS)
def test_lines_are_those_of_the_source(tmp_path, text):
    assert complaint(tmp_path, text + "name: x\n").startswith("F:6: vms[0].vsid: unknown key;")


def test_line_when_the_mapping_does_not_apply(tmp_path):
    # The captured text is measured, so markers in it change the result.
    text = "{% set part %}\nfoo\nbar\n{% endset %}\n# {{ part | length }}\nnam: x\n"
    assert complaint(tmp_path, text).startswith(
        "F: rendered line 3 (see `testbed render`): nam: unknown key;"
    )


def test_duplicate_key_names_both_lines_of_the_source(tmp_path):
    text = "{% for i in range(5) %}\n# {{ i }}\n{% endfor %}\nname: a\nname: b\n"
    assert complaint(tmp_path, text) == "F:5: name: the key stands twice, first on line 4; remove one"


def test_lines_in_a_valid_big_template(tmp_path):
    text = (TOPOLOGIES / "4host.yaml").read_text()
    number = next(i for i, line in enumerate(text.split("\n"), 1) if "vsid: 5002, addresses" in line)
    message = complaint(tmp_path, text.replace("vsid: 5002, addresses", "vsid: 5009, addresses"), hosts="3")
    assert message.startswith(f'F:{number}: vms[4].vnics[0].vsid: unknown VSID "5009"; did you mean 5002?')


def test_scalars_and_aliases(tmp_path):
    path = tmp_path / "F"
    text = BASE.replace("5001", "0x1389", 1).replace("[10.0.0.5]", "&a [10.0.0.5]", 1)
    path.write_text("\ufeff" + text)
    topology = load(path, {})
    assert topology.networks[0].subnets[0].vsid == 5001
    assert topology.vms[0].vnics[0].addresses == ["10.0.0.5"]


def test_set_values_are_yaml_scalars(tmp_path):
    path = tmp_path / "F"
    path.write_text("{{ a is integer }} {{ b is string }} {{ c is false }} {{ d is none }} {{ e == '' }}")
    values = {"a": "8", "b": "8x", "c": "no", "d": "null", "e": ""}
    assert render_file(path, values) == "True True True True True"


def test_include_from_the_own_folder(tmp_path):
    (tmp_path / "part.yaml").write_text("name: lab")
    (tmp_path / "bad.yaml").write_text("\n{% if %}")
    path = tmp_path / "F"
    path.write_text("{% include 'part.yaml' %}")
    assert render_file(path, {}) == "name: lab"
    path.write_text("{% include 'bad.yaml' %}")
    with pytest.raises(BadInput, match=r"bad\.yaml:2: template syntax"):
        render_file(path, {})


def test_plain_file_is_not_touched(tmp_path):
    path = tmp_path / "F"
    path.write_text(BASE)
    assert render_file(path, {}) == BASE
