"""By which NIC of a team a packet leaves, under which MAC, and which takes what comes (statement 37)."""

from __future__ import annotations

import itertools
import select
from collections.abc import Iterator

import pytest

from support.frames import BROADCAST, TCP, encapsulated, ethernet, ip, ipv4, ipv6, mac, ports
from support.switch import MemorySwitch, MemoryUplink, mac_of, nic_mac, pa, v4, v6
from testbed.host.team.worker import WorkerTeam
from testbed.host.work import Work
from testbed.packets import arp, nvgre
from testbed.switch.drops import Drop
from testbed.topology.plan import ProcessorsPlan, TeamPlan
from testbed.topology.schema import LoadBalancing, TeamingMode

HASHES: tuple[LoadBalancing, ...] = ("TransportPorts", "IPAddresses", "MacAddresses")
ALL: tuple[LoadBalancing, ...] = ("Dynamic", "HyperVPort", *HASHES)
PARTNERED: tuple[TeamingMode, ...] = ("Static", "Lacp")
PLAIN = ("plain1", "plain2", "plain3")
ELSEWHERE = mac("02:00:00:00:00:99")
NICS = ("nic1", "nic2", "nic3")


class Team:
    """A switch whose NICs are a team of three."""

    def __init__(self, switch: MemorySwitch) -> None:
        self.switch = switch
        self.nics = {"nic1": switch.nic}
        for number in (2, 3):
            self.nics[f"nic{number}"] = MemoryUplink(f"nic{number}", mac(f"00:15:5d:77:00:{number:02x}"))
        switch.state.uplinks.update(self.nics)
        self._team = WorkerTeam(switch.state, switch.flowlets)

    def be(self, *failed: str, **plan: object) -> None:
        """Another plan, and these members have failed."""
        self._team.set_state([], None)
        self._team.configure(TeamPlan(**{"primary": "nic1", **plan}))  # type: ignore[arg-type]
        self._team.set_state(failed, None)
        self.left()

    def left(self) -> list[tuple[str, bytes]]:
        """NIC and frame of all that has left since."""
        found = []
        for name, nic in self.nics.items():
            found += [(name, frame) for _, frame in nic.sent]
            nic.sent = []
        return found

    def send(self, port: str, frame: bytes) -> list[tuple[str, bytes]]:
        """What leaves of a packet of a VM."""
        self.left()
        sent = self.switch.from_vm(port, frame).wire
        return [*(("nic1", frame) for _, frame in sent), *self.left()]

    def home(self, address: bytes) -> str:
        return self.switch.state.roles.home(address)

    def receive(self, nic: str, frame: bytes) -> tuple[set[str], set[str]]:
        """Ports that get a frame from the wire, and why not."""
        uplink = self.nics[nic]

        def take() -> None:
            uplink.cable.send(bytes(10) + frame)
            self.switch.datapath.drain_uplink(uplink, uplink.queues[0])

        seen = self.switch.caused(take)
        return {*seen.ports}, {str(reason) for _, reason in seen.drops}


@pytest.fixture
def team() -> Iterator[Team]:
    with MemorySwitch(plain_ports=PLAIN, bound=False) as switch:
        made = Team(switch)
        yield made
        for nic in list(made.nics.values())[1:]:
            nic.close()


def blue(source_port: int, version: int = 4) -> bytes:
    """A TCP segment of blue1 for blue2, which is on host 2."""
    body = ports(source_port, 80) + bytes(16)
    if version == 4:
        return ethernet(mac_of("blue2"), mac_of("blue1"), 0x0800, ipv4(v4("blue1"), v4("blue2"), TCP, body))
    return ethernet(mac_of("blue2"), mac_of("blue1"), 0x86DD, ipv6(v6("blue1"), v6("blue2"), TCP, body))


def plain(team: Team, port: str, number: int) -> bytes:
    own = team.switch.state.ports[port].mac
    return ethernet(
        ELSEWHERE, own, 0x0800, ipv4("192.0.2.1", "192.0.2.2", TCP, ports(number, 80) + bytes(16))
    )


def plain_arp(team: Team, port: str) -> bytes:
    own = team.switch.state.ports[port].mac
    return arp.build(arp.Arp(arp.REQUEST, own, ip("192.0.2.1"), bytes(6), ip("192.0.2.2")), BROADCAST)


# ---- the table of MACs ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [*HASHES, "Dynamic"])
def test_other_members_use_their_own_mac(team: Team, algorithm: LoadBalancing) -> None:
    """SwitchIndependent with an address hash or Dynamic; the home (a hash: the primary) uses the original."""
    team.be(algorithm=algorithm)
    own_pa = ip(pa(1, 5001))
    seen = set()
    for number in range(1, 60):
        for name, frame in team.send("blue1", blue(number)):
            seen.add(name)
            original = nic_mac(1) if algorithm in HASHES else team.nics[team.home(own_pa)].mac
            home = "nic1" if algorithm in HASHES else team.home(own_pa)
            assert frame[6:12] == (original if name == home else team.nics[name].mac)
            assert nvgre.parse(frame).source_pa == own_pa
    assert len(seen) == (3 if algorithm in ("TransportPorts", "Dynamic") else 1)


@pytest.mark.parametrize("algorithm", [*HASHES, "Dynamic"])
def test_the_same_of_vms_outside_virtual_subnets(team: Team, algorithm: LoadBalancing) -> None:
    team.be(algorithm=algorithm)
    for port in PLAIN:
        own = team.switch.state.ports[port].mac
        home = "nic1" if algorithm in HASHES else team.home(own)
        for number in range(1, 40):
            ((name, frame),) = team.send(port, plain(team, port, number))
            assert frame[6:12] == (own if name == home else team.nics[name].mac)
            assert frame[:6] == ELSEWHERE
        for _ in range(3):
            ((name, frame),) = team.send(port, plain_arp(team, port))
            assert (name, frame[6:12]) == (home, own)


def test_hyper_v_port_sends_each_port_by_one_member_and_rewrites_nothing(team: Team) -> None:
    team.be(algorithm="HyperVPort")
    homes = set()
    for port in PLAIN:
        own = team.switch.state.ports[port].mac
        took = [team.send(port, plain(team, port, number)) for number in range(1, 20)]
        assert {(name, frame[6:12]) for ((name, frame),) in took} == {(team.home(own), own)}
        homes.add(team.home(own))
    assert len(homes) > 1
    took = [team.send("blue1", blue(number)) for number in range(1, 20)]
    home = team.home(ip(pa(1, 5001)))
    assert {(name, frame[6:12]) for ((name, frame),) in took} == {(home, team.nics[home].mac)}


@pytest.mark.parametrize(("mode", "algorithm"), [*itertools.product(PARTNERED, ALL)])
def test_with_a_partner_nothing_is_rewritten(team: Team, mode: TeamingMode, algorithm: LoadBalancing) -> None:
    team.be(mode=mode, algorithm=algorithm)
    seen = set()
    for number in range(1, 60):
        for name, frame in team.send("blue1", blue(number)):
            seen.add(name)
            assert frame[6:12] == nic_mac(1)
        for _, frame in team.send("plain1", plain(team, "plain1", number)):
            assert frame[6:12] == team.switch.state.ports["plain1"].mac
    assert len(seen) == (3 if algorithm in ("TransportPorts", "Dynamic") else 1)


def test_no_mac_is_seen_at_two_members(team: Team) -> None:
    """SwitchIndependent, whichever members work."""
    for algorithm, size in itertools.product(ALL, range(3)):
        for failed in itertools.combinations(NICS, size):
            team.be(*failed, algorithm=algorithm)
            where: dict[bytes, set[str]] = {}
            for number in range(1, 30):
                for port in PLAIN:
                    sent = team.send(port, plain(team, port, number)) + team.send(port, plain_arp(team, port))
                    for name, frame in [*sent, *team.send("blue1", blue(number))]:
                        where.setdefault(frame[6:12], set()).add(name)
                        assert name not in failed
            assert all(len(names) == 1 for names in where.values()), (algorithm, failed, where)


# ---- failure ----------------------------------------------------------------------------------


def test_another_member_takes_the_mac_of_a_primary_that_fails_for_its_traffic_alone(team: Team) -> None:
    team.be(algorithm="TransportPorts")
    before = {number: team.send("blue1", blue(number))[0][0] for number in range(1, 60)}
    team.be("nic1", algorithm="TransportPorts")
    for number, was in before.items():
        ((name, frame),) = team.send("blue1", blue(number))
        if was == "nic1":
            assert (name, frame[6:12]) == ("nic2", nic_mac(1))
        else:
            assert (name, frame[6:12]) == (was, team.nics[was].mac)


def test_vms_outside_virtual_subnets_are_announced_where_they_are_now(team: Team) -> None:
    team.be(algorithm="Dynamic")
    at = {port: team.home(team.switch.state.ports[port].mac) for port in PLAIN}
    failed = at["plain1"]
    team._team.set_state([failed], None)
    told = {frame[6:12]: name for name, frame in team.left()}
    moved = {team.switch.state.ports[port].mac for port in PLAIN if at[port] == failed}
    assert told.keys() == moved
    assert failed not in told.values()
    team._team.set_state([], None)
    assert {(frame[6:12], name) for name, frame in team.left()} == {(own, failed) for own in moved}


def test_queues_of_a_team_add_up_or_not(team: Team) -> None:
    """Statement 39: processors of their own for each member, or the same for all."""
    state = team.switch.state
    poll = select.epoll()
    work = Work(state, team.switch.datapath, poll)
    work.on(ProcessorsPlan(6, 0.5))
    work.members = [*NICS]
    assert work.scheduler
    for algorithm, wanted in (("Dynamic", [0, 2, 4]), ("TransportPorts", [0, 0, 0])):
        team.be(algorithm=algorithm)
        jobs = []
        for nic in team.nics.values():
            work.of_queue(nic, nic.queues[0])
            jobs.append(work.scheduler._jobs[nic.queues[0].socket.fileno()])
        places = {id(processor): place for place, processor in enumerate(work.scheduler.processors)}
        assert [places[id(job.processor)] for job in jobs] == wanted
    poll.close()


def test_counters_are_of_teams_alone(team: Team) -> None:
    team.be(algorithm="Dynamic")
    for number in range(1, 60):
        team.send("blue1", blue(number))
    counted = team._team.counters()
    assert sum(counted[f"flows_{name}"] for name in NICS) > 30
    assert counted["flows_rebalanced"] == 0
    with MemorySwitch() as alone:
        assert WorkerTeam(alone.state, alone.flowlets).counters() == {}


def test_without_any_member_nothing_leaves(team: Team) -> None:
    team.be(*NICS)
    assert team.send("blue1", blue(1)) == []
    assert team.switch.from_vm("blue1", blue(1)).dropped(Drop.NO_UPLINK)


def test_a_standby_member_carries_nothing_until_it_has_to(team: Team) -> None:
    team.be(standby="nic2", algorithm="TransportPorts")
    assert {team.send("blue1", blue(number))[0][0] for number in range(1, 60)} == {"nic1", "nic3"}
    team.be("nic1", "nic3", standby="nic2", algorithm="TransportPorts")
    assert {team.send("blue1", blue(number))[0][0] for number in range(1, 60)} == {"nic2"}


# ---- what comes in ------------------------------------------------------------------------------


def arriving(to: bytes, *, source: bytes = ELSEWHERE) -> bytes:
    inner = ethernet(
        mac_of("blue1"),
        mac_of("blue2"),
        0x0800,
        ipv4(v4("blue2"), v4("blue1"), TCP, ports(1, 2) + bytes(16)),
    )
    return encapsulated(inner, 5001, pa(2, 5001), pa(1, 5001), to, source)


@pytest.mark.parametrize("algorithm", ALL)
def test_a_frame_that_reaches_all_members_is_taken_once(team: Team, algorithm: LoadBalancing) -> None:
    """As the fabric floods what it does not know; also while a member fails."""
    for failed in ((), ("nic1",), ("nic2",), ("nic1", "nic3")):
        team.be(*failed, algorithm=algorithm)
        for to in [nic.mac for nic in team.nics.values()]:
            took = [name for name in NICS if team.receive(name, arriving(to))[0]]
            assert len(took) == 1
            assert took[0] not in failed
        others = [team.receive(name, arriving(nic_mac(1)))[1] for name in NICS]
        assert sorted(map(sorted, others)) == [[], ["other-member"], ["other-member"]]
        for port in PLAIN:
            own = team.switch.state.ports[port].mac
            frame = ethernet(own, ELSEWHERE, 0x0800, ipv4("192.0.2.2", "192.0.2.1", TCP, bytes(20)))
            assert [team.receive(name, frame)[0] for name in NICS].count({port}) == 1
        group = ethernet(BROADCAST, ELSEWHERE, 0x0800, ipv4("192.0.2.2", "255.255.255.255", 17, bytes(20)))
        assert sorted(len(team.receive(name, group)[0]) for name in NICS) == [0, 0, len(PLAIN)]


def test_what_the_host_said_itself_is_not_heard(team: Team) -> None:
    team.be(algorithm="Dynamic")
    for source in (team.switch.state.ports["plain1"].mac, team.nics["nic2"].mac):
        frame = ethernet(BROADCAST, source, 0x0800, ipv4("192.0.2.1", "255.255.255.255", 17, bytes(20)))
        assert team.receive("nic1", frame) == (set(), {Drop.OWN_PACKET})


@pytest.mark.parametrize("mode", PARTNERED)
def test_with_a_partner_every_member_takes_everything(team: Team, mode: TeamingMode) -> None:
    team.be(mode=mode)
    for name in NICS:
        assert team.receive(name, arriving(nic_mac(1)))[0] == {"blue1"}
        own = team.switch.state.ports["plain1"].mac
        frame = ethernet(own, ELSEWHERE, 0x0800, ipv4("192.0.2.2", "192.0.2.1", TCP, bytes(20)))
        assert team.receive(name, frame)[0] == {"plain1"}
