"""Finding extensions, a user's own too; what a topology with wrong ones is told."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.frames import UDP, ethernet, ipv4, ports
from support.switch import MemorySwitch, mac_of, v4
from testbed.errors import BadInput
from testbed.switch.extensions.api import Extension
from testbed.switch.extensions.load import GROUP, SHIPPED, available, find, load
from testbed.telemetry import EventLog
from testbed.topology import plan_from_file
from testbed.topology.plan import ExtensionPlan

ROOT = Path(__file__).parents[2]

OWN = '''\
from msgspec import Struct

from testbed.switch.extensions.api import Deny, Extension


class NoPort(Extension):
    """Drops UDP to one port."""

    kind = "filter"
    scope = "flow"

    class Settings(Struct, frozen=True, forbid_unknown_fields=True):
        port: int = 53

    def ingress(self, frame):
        inner = frame.inner
        if inner[23] == 17 and inner[36] << 8 | inner[37] == self.settings.port:
            return Deny("no-such-port")


class NoKind:
    pass


class Surly(Extension):
    def __init__(self, name, settings, events):
        raise RuntimeError("not today")


class Router(Extension):
    kind = "forwarding"
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small distribution of a user, as pip would have installed it."""
    (tmp_path / "own_extensions.py").write_text(OWN)
    info = tmp_path / "own_extensions-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-extensions\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\n"
        "no-port = own_extensions:NoPort\n"
        "no-kind = own_extensions:NoKind\n"
        "no-module = own_extensions_of_others:Any\n"
        "surly = own_extensions:Surly\n"
        "router = own_extensions:Router\n"
        "router2 = own_extensions:Router\n"
        "capture = own_extensions:NoPort\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_extensions", raising=False)
    return tmp_path


def test_the_shipped_ones_are_what_the_package_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    assert declared == SHIPPED
    for name in SHIPPED:
        assert issubclass(find(name), Extension)


def test_without_extensions_nothing_is_looked_up_or_imported() -> None:
    code = (
        "import sys; from pathlib import Path; import testbed.host.worker; "
        "from testbed.topology import plan_from_file; plan_from_file(Path('topologies/2host.yaml'), {}); "
        "print(*sorted(name for name in sys.modules if name.startswith(('importlib.metadata', "
        "'testbed.extensions', 'testbed.switch.extensions.load'))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []


def test_a_users_own_extension_works_in_a_switch(installed: Path) -> None:
    extensions = load([ExtensionPlan("no-port", {"port": 7})], EventLog())
    with MemorySwitch(extensions=extensions) as switch:
        for port, passes in ((7, False), (8, True)):
            packet = ipv4(v4("blue1"), v4("blue2"), UDP, ports(1, port) + bytes(40))
            seen = switch.from_vm("blue1", ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, packet))
            assert bool(seen.wire) == passes
            assert seen.drops == ({} if passes else {("blue1", "no-port:no-such-port"): 1})


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nobody", {}, 'unknown extension "nobody"; available: acl, capture, '),
        ("capture", {}, "is ambiguous: testbed.extensions.capture:Capture and own_extensions:NoPort; uninst"),
        ("no-kind", {}, "own_extensions:NoKind is no subclass of Extension with a kind of capture, filter"),
        ("no-module", {}, "cannot be imported: ModuleNotFoundError: No module named 'own_extensions_of_o"),
        ("surly", {}, 'extension "surly" cannot be made: RuntimeError: not today; correct'),
        ("no-port", {"port": "x"}, "settings: Expected `int`, got `str` - at `$.port`; correct the settings"),
    ],
)
def test_what_cannot_be_loaded(installed: Path, name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        load([ExtensionPlan(name, settings)], EventLog())
    assert message in str(caught.value)


def test_one_extension_in_two_sources_of_the_same_package_is_one() -> None:
    assert {len(claims) for claims in available().values()} == {1}


TOPOLOGY = """\
name: lab
networks: [{name: blue, subnets: [{vsid: 5001, prefixes: [10.0.0.0/24]}]}]
hosts:
  - name: host1
    wnv: below-switch
    nics: [{name: nic1}]
    extensions: EXTENSIONS
vms:
  - {name: blue1, host: host1, vnics: [{vsid: 5001, addresses: [10.0.0.5]}]}
fabric: {switches: [tor1]}
links: [{endpoints: ["host1:nic1", tor1]}]
"""


def _plan(folder: Path, extensions: str) -> tuple[ExtensionPlan, ...]:
    file = folder / "lab.yaml"
    file.write_text(TOPOLOGY.replace("EXTENSIONS", extensions))
    return plan_from_file(file, {}).host("host1").extensions


@pytest.mark.parametrize(
    "extensions",
    [
        "[capture, acl, port-security]",
        '[{name: payload-filter, settings: {patterns: [{reason: worm, hex: "4d5a"}]}}]',
        '[{name: acl, settings: {rules: [{action: deny, ports: ["blue1:eth0"], local_ports: [80, "90-99"], '
        "protocol: tcp, remote: [10.0.0.0/8]}]}}]",
    ],
)
def test_good_ones(tmp_path: Path, extensions: str) -> None:
    assert load(_plan(tmp_path, extensions), EventLog())


AT = "lab.yaml:7: hosts[0].extensions"
RULE = f"{AT}[0].settings.rules[0]"
BAD = {
    "[captrue]": f'{AT}[0]: unknown extension "captrue"; available: acl, capture, ',
    "[{name: nobody}]": f'{AT}[0].name: unknown extension "nobody"; available: acl',
    "[acl, {name: acl}]": f'{AT}[1].name: "acl" is also the name of hosts[0].extensions[0] (line 7); a',
    "[payload-filter]": "hosts[0].extensions[0].settings.patterns: this key is missing; add it",
    "[{name: capture, settings: {frams: 3}}]": (
        f"{AT}[0].settings.frams: unknown key; did you mean frames? known here: frames, snaplen, vsids"
    ),
    "[{name: capture, settings: {frames: 0}}]": (
        f"{AT}[0].settings.frames: 0 is out of range; must be at least 1"
    ),
    '[{name: capture, settings: {snaplen: "64"}}]': (
        f'{AT}[0].settings.snaplen: expected a whole number, got a string "64"; remove the quotes'
    ),
    "[{name: acl, settings: {rules: [{action: drop}]}}]": (
        f'{RULE}.action: "drop" is not allowed; must be one of: allow, deny'
    ),
    "[{name: acl, settings: {rules: [{action: deny, remote: [10.0.0.5/24]}]}}]": (
        f"{RULE}: 10.0.0.5/24 has host bits set; write a prefix such as 10.0.0.0/24 or an address"
    ),
    '[{name: acl, settings: {rules: [{action: deny, ports: ["blue9:eth0"]}]}}]': (
        f'{RULE}.ports[0]: unknown port "blue9:eth0"; did you mean blue1:eth0? the file has: blue1:eth0'
    ),
    '[{name: port-security, settings: {ports: [{name: "blue1:eth1"}]}}]': (
        f'{AT}[0].settings.ports[0].name: unknown port "blue1:eth1"; did you mean'
    ),
}


@pytest.mark.parametrize(("extensions", "message"), BAD.items(), ids=range(len(BAD)))
def test_what_a_topology_is_told(tmp_path: Path, extensions: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        _plan(tmp_path, extensions)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_switch_has_one_forwarding_extension(installed: Path) -> None:
    assert _plan(installed, "[router]")
    with pytest.raises(BadInput) as caught:
        _plan(installed, "[router, router2]")
    assert f"{AT}[1]: router is a forwarding extension too; a switch has one, leave one out" in str(
        caught.value
    )
