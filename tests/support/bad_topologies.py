"""One good topology, and bad ones: each is one edit of it, with the complaint it is to cause."""

from support.bad_links import OF_LINKS

GOOD = """\
name: lab
networks:
  - name: blue
    rdid: "{11111111-1111-1111-1111-111111111111}"
    subnets:
      - {vsid: 5001, prefixes: [10.0.0.0/24, "fd00::/64"]}
      - {vsid: 5002, prefixes: [10.0.1.0/24]}
  - name: red
    rdid: 22222222-2222-2222-2222-222222222222
    subnets:
      - {vsid: 6001, prefixes: [10.0.0.0/24]}
hosts:
  - {name: host1, nics: [{name: nic1}, {name: nic2}]}
  - {name: host2, nics: [{name: nic1}]}
vms:
  - {name: blue1, host: host1, vnics: [{vsid: 5001, addresses: [10.0.0.5, "fd00::5"]}]}
  - {name: blue2, host: host2, vnics: [{vsid: 5002, addresses: [10.0.1.5]}]}
  - {name: red1, host: host1, vnics: [{vsid: 6001, addresses: [10.0.0.5]}]}
  - {name: plain, host: host2, vnics: [{vsid: 0, addresses: [192.0.2.5/24]}]}
fabric: {switches: [tor1, tor2, tor3]}
links:
  - endpoints: ["host1:nic1", tor1]
  - endpoints: ["host1:nic2", tor2]
  - endpoints: [tor2, "host2:nic1"]
  - endpoints: [tor1, tor2]
  - endpoints: [tor3, tor2]
"""

B1 = 'vnics: [{vsid: 5001, addresses: [10.0.0.5, "fd00::5"]}]'
B2 = "vnics: [{vsid: 5002, addresses: [10.0.1.5]}]"
R1 = "vnics: [{vsid: 6001, addresses: [10.0.0.5]}]"
P1 = "addresses: [192.0.2.5/24]"
P2 = "10.0.1.0/24"
SUBNET = "F:7: networks[0].subnets[1]"
VSID1 = "networks[0].subnets[0].vsid"
PREFIX = "networks[0].subnets[0].prefixes[0]"
ADDRESS = "vms[1].vnics[0].addresses[0]"

CASES = {
    # VSIDs
    "reserved VSID": (
        "vsid: 5002, p",
        "vsid: 1, p",
        f"{SUBNET}.vsid: VSID 1 is reserved, as are all of 1 to 4095 (RFC 7637 "
        "section 3.2); "
        "use 4096 to 16777214",
    ),
    "VSID 4095": ("vsid: 5002, p", "vsid: 4095, p", f"{SUBNET}.vsid: VSID 4095 is reserved"),
    "VSID 0xFFFFFF": (
        "vsid: 5002, p",
        "vsid: 0xFFFFFF, p",
        f"{SUBNET}.vsid: VSID 16777215 (0xFFFFFF) is for traffic between endpoints "
        "(RFC 7637 section 3.2); use 4096 to 16777214",
    ),
    "subnet of VSID 0": (
        "vsid: 5002, p",
        "vsid: 0, p",
        "VSID 0 means not virtualised and has no subnet; use 4096",
    ),
    "VSID in two networks": (
        "vsid: 6001, p",
        "vsid: 5001, p",
        f'F:11: networks[1].subnets[0].vsid: "5001" is also the VSID of {VSID1} (line 6); a VSID '
        "names one subnet",
    ),
    "unknown VSID": (
        R1,
        R1.replace("6001", "6002"),
        'F:18: vms[2].vnics[0].vsid: unknown VSID "6002"; did you mean 6001? the file has: 5001, 5002, 6001',
    ),
    "reserved VSID of a VM": (
        R1,
        R1.replace("6001", "100"),
        "F:18: vms[2].vnics[0].vsid: VSID 100 is reserved",
    ),
    "same RDID": (
        "22222222-2222-2222-2222-222222222222",
        '"{11111111-1111-1111-1111-111111111111}"',
        'networks[1].rdid: "{11111111-1111-1111-1111-111111111111}" is also the RDID of '
        "networks[0].rdid (line 4)",
    ),
    # prefixes and gateways
    "no prefix": (P2, "10.0.1.0", 'prefixes[0]: "10.0.1.0" is no prefix; write it with its length'),
    "netmask": (P2, "10.0.1.0/255.255.255.0", "is no prefix; write it with its length, like 10.0.0.0/24"),
    "nonsense prefix": (P2, "10.0.300.0/24", "is no prefix; write it like 10.0.0.0/24 or fd00::/64"),
    "long prefix": ("10.0.1.0/24", "10.0.1.0/33", '"10.0.1.0/33" is no prefix'),
    "host bits": (
        P2,
        "10.0.1.7/24",
        f"{SUBNET}.prefixes[0]: 10.0.1.7/24 has host bits set; write 10.0.1.0/24",
    ),
    "tiny prefix": (P2, "10.0.1.0/31", "10.0.1.0/31 has no room for a gateway and a VM; use /30 or shorter"),
    "multicast prefix": (P2, "224.1.0.0/24", "overlaps 224.0.0.0/4 (multicast); choose another prefix"),
    "default route": ("10.0.1.0/24", "0.0.0.0/0", "overlaps 0.0.0.0/8 (the unspecified network)"),
    "link-local prefix": ("10.0.1.0/24", '"fe80::/64"', "overlaps fe80::/10 (link-local)"),
    "overlap in a network": (
        P2,
        "10.0.0.0/23",
        f"{SUBNET}.prefixes[0]: 10.0.0.0/23 overlaps 10.0.0.0/24, {PREFIX} (line "
        "6) in network "
        "blue; choose another prefix",
    ),
    "two of a family": (
        "[10.0.1.0/24]",
        "[10.0.1.0/24, 10.0.2.0/24]",
        "prefixes[1]: a second IPv4 prefix; a subnet has one, make another subnet",
    ),
    "gateway elsewhere": (
        "[10.0.1.0/24]",
        "[10.0.1.0/24], gateways: [10.0.2.1]",
        f"{SUBNET}.gateways[0]: 10.0.2.1 is in no prefix of the subnet; choose one of 10.0.1.0/24",
    ),
    "gateway with length": (
        "[10.0.1.0/24]",
        "[10.0.1.0/24], gateways: [10.0.1.1/24]",
        "is no address; write it like",
    ),
    "gateway is broadcast": (
        "[10.0.1.0/24]",
        "[10.0.1.0/24], gateways: [10.0.1.255]",
        "10.0.1.255 is the broadcast address of 10.0.1.0/24; choose another",
    ),
    "two gateways": (
        "[10.0.1.0/24]",
        "[10.0.1.0/24], gateways: [10.0.1.1, 10.0.1.2]",
        "gateways[1]: a second IPv4 gateway; a prefix has one, remove it",
    ),
    # addresses of VMs
    "address outside": (
        B2,
        B2.replace("10.0.1.5", "10.0.2.5"),
        f"F:17: {ADDRESS}: 10.0.2.5 is outside VSID 5002; choose one in 10.0.1.0/24",
    ),
    "family without prefix": (B2, B2.replace("10.0.1.5", '"fd00::9"'), "fd00::9 is outside VSID 5002"),
    "address is the gateway": (
        B2,
        B2.replace("10.0.1.5", "10.0.1.1"),
        f"F:17: {ADDRESS}: 10.0.1.1 is the gateway of VSID 5002; choose another address",
    ),
    "network address": (
        B2,
        B2.replace("10.0.1.5", "10.0.1.0"),
        "10.0.1.0 is the network address of 10.0.1.0/24",
    ),
    "broadcast address": (B2, B2.replace("10.0.1.5", "10.0.1.255"), "10.0.1.255 is the broadcast address of"),
    "anycast address": (
        B1,
        B1.replace("fd00::5", "fd00::"),
        "fd00:: is the subnet-router anycast address of fd00::/64",
    ),
    "length on a CA": (
        B2,
        B2.replace("10.0.1.5", "10.0.1.5/24"),
        f'F:17: {ADDRESS}: "10.0.1.5/24" has a prefix length, which its subnet decides; write 10.0.1.5',
    ),
    "no address": (
        B2,
        B2.replace("10.0.1.5", "dhcp"),
        f'{ADDRESS}: "dhcp" is no address; write it like 10.0.0.5',
    ),
    "address twice": (
        B2,
        B1.replace('"fd00::5"', '"fd00:0::0005"').replace("10.0.0.5", "10.0.0.6"),
        "F:17: vms[1].vnics[0].addresses[1]: fd00::5 is taken, vms[0].vnics[0].addresses[1] (line "
        "16) has it in VSID "
        "5001; choose another address",
    ),
    "no length in VSID 0": (
        P1,
        "addresses: [192.0.2.5]",
        "F:19: vms[3].vnics[0].addresses[0]: 192.0.2.5 has no prefix length, which an adapter of "
        "VSID 0 needs; "
        "write 192.0.2.5/24",
    ),
    "loopback in VSID 0": (P1, "addresses: [127.0.0.1/8]", "127.0.0.1 is loopback; choose another address"),
    "broadcast in VSID 0": (
        P1,
        "addresses: [192.0.2.255/24]",
        "192.0.2.255 is the broadcast address of 192.0.2.0/24",
    ),
    # MACs
    "MAC twice": (
        B1 + "}\n",
        B1.replace("vsid", "mac: 02-00-00-00-00-AA, vsid") + "}\n"
        "  - {name: x, host: host2, vnics: [{vsid: 6001, mac: '02:00:00:00:00:aa'}]}\n",
        'F:17: vms[1].vnics[0].mac: "02:00:00:00:00:aa" is also the MAC address of '
        "vms[0].vnics[0].mac (line 16)",
    ),
    "MAC of NIC and VM": (
        "nics: [{name: nic1}]}\nvms:\n  - {name: blue1, host: host1, vnics: [{",
        "nics: [{name: nic1, mac: 02:00:00:00:00:aa}]}\nvms:\n  - {name: blue1, host: host1, "
        "vnics: [{mac: 02:00:00:00:00:aa, ",
        'F:16: vms[0].vnics[0].mac: "02:00:00:00:00:aa" is also the MAC address of '
        "hosts[1].nics[0].mac (line 14)",
    ),
    "multicast MAC": (
        B2,
        B2.replace("vsid", "mac: 01:00:5e:00:00:01, vsid"),
        "01:00:5e:00:00:01 is a multicast address",
    ),
    "zero MAC": (
        B2,
        B2.replace("vsid", "mac: '00:00:00:00:00:00', vsid"),
        "is the zero address; choose one whose first",
    ),
    # names
    "host name twice": (
        "name: host2",
        "name: host1",
        'F:14: hosts[1].name: "host1" is also the name of hosts[0].name (line 13); hosts, VMs and '
        "switches share",
    ),
    "VM called as a host": (
        "name: red1",
        "name: host1",
        'F:18: vms[2].name: "host1" is also the name of hosts[0].name',
    ),
    "VM called as a switch": (
        "name: red1",
        "name: tor3",
        'F:20: fabric.switches[2]: "tor3" is also the name of vms[2]',
    ),
    "switch twice": (
        "tor1, tor2, tor3]",
        "tor1, tor2, tor3, tor1]",
        'F:20: fabric.switches[3]: "tor1" is also',
    ),
    "network name twice": (
        "name: red\n",
        "name: blue\n",
        'F:8: networks[1].name: "blue" is also the name of networks[0]',
    ),
    "NIC name twice": (
        "{name: nic2}",
        "{name: nic1}",
        'F:13: hosts[0].nics[1].name: "nic1" is also the name of hosts[0]',
    ),
    "VM called fabric": (
        "name: red1",
        "name: fabric",
        'F:18: vms[2].name: "fabric" is the name of one of the lab\'s own nodes; choose another name',
    ),
    "VM called vmm": ("name: red1", "name: vmm", 'F:18: vms[2].name: "vmm" is the name of one of'),
    "NIC called lo": (
        "{name: nic2}",
        "{name: lo}",
        'F:13: hosts[0].nics[1].name: "lo" is reserved by the kernel',
    ),
    "long NIC name": (
        "{name: nic2}",
        "{name: ethernet-adapter}",
        '"ethernet-adapter" is too long for the name of a kernel interface; use at most 15 characters',
    ),
    # references
    "unknown host": (
        "host: host2, vnics: [{vsid: 5002",
        "host: hots2, vnics: [{vsid: 5002",
        'F:17: vms[1].host: unknown host "hots2"; did you mean host2? the file has: host1, host2',
    ),
    "unknown team member": (
        "{name: nic2}]",
        "{name: nic2}], team: {primary: nic3}",
        'F:13: hosts[0].team.primary: unknown NIC "nic3"; did you mean nic2? the file has: nic1, nic2',
    ),
    "extension": (
        "{name: nic2}]",
        "{name: nic2}], extensions: [captrue]",
        'F:13: hosts[0].extensions[0]: unknown extension "captrue"; available: acl, capture,',
    ),
    "image": (
        "name: red1",
        "image: --privileged, name: red1",
        "F:18: vms[2].image: is no image name; write it like",
    ),
    "exec of nothing": (
        "name: red1",
        "exec: [ip addr, ''], name: red1",
        "F:18: vms[2].exec[1]: is no command; write a program and its arguments",
    ),
    "exec with an open quote": (
        "name: red1",
        'exec: ["sh -c \'oh no"], name: red1',
        "F:18: vms[2].exec[0]: is no command: No closing quotation; quote it as a shell wants it",
    ),
    "shared disk outside its folder": (
        "name: red1",
        "shared-disk: ../passwd, name: red1",
        "F:18: vms[2].shared-disk: ",
    ),
    "announce is a switch": (
        "name: red1",
        "announce: 7, name: red1",
        "F:18: vms[2].announce: ",
    ),
    "empty command": (
        "name: red1",
        "command: [], name: red1",
        "F:18: vms[2].command: is no command; list a program",
    ),
    # links
    "unknown switch": (
        "[tor3, tor2]",
        "[tor3, tro2]",
        'F:26: links[4].endpoints[1]: unknown switch "tro2"; did you mean tor2? the file has: '
        "tor1, tor2, tor3",
    ),
    "link to an unknown host": (
        '"host1:nic2"',
        '"host9:nic2"',
        'F:23: links[1].endpoints[0]: unknown host "host9"',
    ),
    "unknown NIC": (
        '"host1:nic2"',
        '"host1:nic7"',
        'F:23: links[1].endpoints[0]: unknown NIC of host1 "nic7"',
    ),
    "host without NIC": ('"host1:nic2"', "host1", '"host1" is a host; name its NIC too: "host1:nic1"'),
    "switch with port": (
        '"host1:nic2", tor2',
        '"host1:nic2", "tor2:p1"',
        'numbered by themselves; write "tor2" alone',
    ),
    "malformed endpoint": (
        '"host1:nic2"',
        '"host1:nic2:x"',
        'unknown NIC of host1 "nic2:x"; did you mean nic2?',
    ),
    "cabled twice": (
        '"host1:nic2"',
        '"host1:nic1"',
        "F:23: links[1].endpoints[0]: host1:nic1 has a cable already, links[0].endpoints[0] (line "
        "22); remove one",
    ),
    "no cable": (
        '  - endpoints: [tor2, "host2:nic1"]\n',
        "",
        'F:14: hosts[1].nics[0]: nic1 has no cable; add a link, {endpoints: ["host2:nic1", tor1]}',
    ),
    "NIC to NIC": (
        '["host1:nic2", tor2]',
        '["host1:nic2", "host2:nic1"]',
        "F:23: links[1].endpoints: host1:nic2 and host2:nic1 are both NICs; put a switch between them",
    ),
    "link to itself": (
        "[tor3, tor2]",
        "[tor3, tor3]",
        "F:26: links[4].endpoints: connects tor3 with itself; name",
    ),
    "loop": (
        "[tor3, tor2]\n",
        "[tor3, tor2]\n  - endpoints: [tor1, tor3]\n",
        "F:27: links[5].endpoints: tor1 and tor3 are connected already, so this link closes a "
        "loop; switches have no "
        "spanning tree, remove one link of the loop",
    ),
    "two trunks": (
        "[tor3, tor2]\n",
        "[tor3, tor2]\n  - endpoints: [tor2, tor3]\n",
        "this link closes a loop",
    ),
    # the way out, and multicast
    "gateway without a VSID": (
        "addresses: [192.0.2.5/24]",
        "addresses: [192.0.2.5/24], gateway: true",
        "F:19: vms[3].vnics[0].gateway: a gateway needs a VSID and addresses; give it both",
    ),
    "gateway without addresses": (
        B2,
        "vnics: [{vsid: 5002, gateway: true}]",
        "F:17: vms[1].vnics[0].gateway: a gateway needs a VSID and addresses",
    ),
    "multicast that is no address": (
        "prefixes: [10.0.1.0/24]",
        "prefixes: [10.0.1.0/24], multicast: all",
        f'{SUBNET}.multicast: "all" is no address; write it like 239.0.0.1',
    ),
    "multicast that is unicast": (
        "prefixes: [10.0.1.0/24]",
        "prefixes: [10.0.1.0/24], multicast: 192.0.2.1",
        f"{SUBNET}.multicast: 192.0.2.1 is no multicast address; choose one like 239.0.0.1",
    ),
    "multicast of the other family": (
        "prefixes: [10.0.1.0/24]",
        'prefixes: [10.0.1.0/24], multicast: "ff15::1"',
        f"{SUBNET}.multicast: ff15::1 is not of pa_pool's address family; choose one like 239.0.0.1",
    ),
    # fabric
    "small pool": (
        "tor3]",
        "tor3], pa_pool: 192.0.2.0/30",
        "F:20: fabric.pa_pool: 192.0.2.0/30 has 2 addresses, but 3 are needed, one for each VSID "
        "on each host; "
        "use /29 or shorter",
    ),
    "IPv6 pool and an MTU too small for it": (
        "tor3]",
        'tor3], pa_mtu: 1340, pa_pool: "fd00::/64"',
        "F:20: fabric.pa_mtu: 1340 leaves VMs less than the 1280 bytes that IPv6 needs; use at least 1342",
    ),
    "bad pool": (
        "tor3]",
        "tor3], pa_pool: 192.0.2.1/24",
        "fabric.pa_pool: 192.0.2.1/24 has host bits set; write 192.",
    ),
    "MTU below IPv6": (
        "tor3]",
        "tor3], pa_mtu: 1321",
        "F:20: fabric.pa_mtu: 1321 leaves VMs less than the 1280 bytes that IPv6 needs; use at least 1322",
    ),
}
CASES |= OF_LINKS
