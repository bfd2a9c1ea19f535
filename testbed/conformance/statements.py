"""The statements: what is claimed, who says so, and on which lab it is shown. Data only."""

from __future__ import annotations

from msgspec import Struct

# Labs, in the order in which they are tried or handed to a check.
TOPOLOGY = "topology"  # the user's; its place is taken by the others where it lacks what a statement needs
DEFAULT = "4host"  # the shipped topology
QUEUED = "nics"  # NICs with several queues and NVGRE task offload, switched off at first
TEAMED = "teams"  # a host with each kind of team; in all other labs the primary carries alone
LEARNER = "learning"  # a DHCP server, a client that has no address
FEATURES = "features"  # 2012 R2, IPv4 PAs: extensions, gateway, groups, L2Only, VSID 0
JUMBO = "ipv6-jumbo"  # 2012 R2, IPv6 PAs, jumbo frames
BELOW = "2012"  # the filter below the switch

# Who a source is; the text in front of it is how statements cite it.
SOURCES = {
    "RFC 7637": "NVGRE: Network Virtualization Using Generic Routing Encapsulation (and its draft -08)",
    "MTU": "TechNet wiki 23833, Windows Server 2012 R2 Network Virtualization (NVGRE) MTU reduction",
    "path": "Windows driver documentation, Packet Flow through the Extensible Switch Data Path",
    "hybrid": "Windows driver documentation, Hybrid Forwarding",
    "NDIS": "Windows driver documentation, NDIS structures",
    "NetWNV": "Windows PowerShell documentation, module NetWNV, and wnvapi.h",
    "sample": "Microsoft sample script, Simple Hyper-V Network Virtualization with Gateway",
    "2012": "ipspace.net 2013-12-02, Virtual Packet Forwarding in Hyper-V (2012)",
    "2012 R2": "ipspace.net 2013-12-05, Hyper-V Network Virtualization Packet Forwarding (2012 R2)",
    "news": "ipspace.net 2013-08, What's Coming in Hyper-V Network Virtualization (2012 R2)",
    "ARP": "ipspace.net 2015-05, ARP Processing in Layer-3-Only Networks",
    "details": "Windows Server documentation, Hyper-V Network Virtualization technical details (2016)",
    "VMM": "System Center VMM documentation, Allow guest specified IP addresses",
    "teaming": "Windows Server documentation, NIC Teaming (2016)",
    "RSS": "Windows driver documentation, Verifying the RSS Hash Calculation; NVGRE in RSS and VMQ",
    "LSO": "Windows driver documentation, Supporting NVGRE in Large Send Offload",
    "checksum": "Windows driver documentation, Supporting NVGRE in Checksum Offload",
    "offload": "Windows driver documentation, Querying and Changing NVGRE Task Offload State",
}


class Statement(Struct, frozen=True):
    """One statement.

    source: keys of SOURCES, each with a section where it has one, joined by "; ". check: the function
    that shows it, "checks_MODULE.FUNCTION". labs: handed to it, all of them. choice: where the source leaves
    open what to do, what was chosen.
    """

    number: int
    text: str
    source: str
    check: str
    labs: tuple[str, ...] = (TOPOLOGY,)
    choice: str = ""


WIRE = (
    Statement(
        1,
        "Every NVGRE packet has IP protocol 47, GRE flags and version 0x2000, protocol type 0x6558.",
        "RFC 7637 3.2",
        "checks_wire.header",
    ),
    Statement(
        2,
        "The GRE key is the VSID in its upper 24 bits and the FlowID in its lower 8.",
        "RFC 7637 3.2",
        "checks_wire.key",
    ),
    Statement(
        3,
        "The FlowID is constant for an inner flow, and 0 where entropy is switched off.",
        "RFC 7637 3.2",
        "checks_wire.flow_id",
        (FEATURES,),
    ),
    Statement(
        4,
        "VSIDs 0 to 0xFFF and 0xFFFFFF are refused in policy and in topologies.",
        "RFC 7637 3.4; NetWNV",
        "checks_policy.reserved_vsids",
        (FEATURES,),
    ),
    Statement(
        5, "An 802.1Q tag of a VM's frame is removed before it is sent.", "RFC 7637 3.3", "checks_wire.untag"
    ),
    Statement(
        6,
        "An NVGRE packet whose inner frame is tagged is dropped and counted.",
        "RFC 7637 3.3",
        "checks_wire.tagged_from_wire",
    ),
    Statement(7, "The inner frame travels without its FCS.", "RFC 7637 3.2", "checks_wire.no_fcs"),
    Statement(
        8,
        "The outer destination MAC is that of the next hop on the PA network, the gateway's for a PA"
        " elsewhere; the source MAC is the NIC's.",
        "RFC 7637 3.2; 2012 R2",
        "checks_wire.outer_macs",
    ),
    Statement(
        9,
        "A sender never fragments the outer packet; a receiver may discard outer fragments.",
        "RFC 7637 4.4",
        "checks_wire.fragments",
        choice="Outer packets carry DF; outer fragments from the wire are dropped and counted; a VM's packet"
        " that is too long is dropped, and the VM told so by ICMP or ICMPv6.",
    ),
    Statement(
        10,
        "Customer IPv4 and IPv6 travel over provider IPv4 and IPv6: all four mixes.",
        "RFC 7637 4.5",
        "checks_wire.families",
        (FEATURES, JUMBO),
    ),
)

MTU = (
    Statement(
        11,
        "Over a 1500-byte IPv4 PA network a VM's MTU is 1458, decided when it boots and kept.",
        "MTU",
        "checks_policy.reduced_mtu",
    ),
    Statement(
        12,
        "No reduction with jumbo frames on the PA network, for a VSID assigned after boot, or for a legacy"
        " adapter.",
        "MTU",
        "checks_policy.unreduced_mtu",
        (FEATURES, JUMBO),
    ),
)

SWITCH = (
    Statement(
        13,
        "2012 R2: an extension sees a packet from outside as PA at ingress and CA at egress, a VM's packet"
        " to outside the other way round.",
        "path",
        "checks_switch.both_spaces",
        (FEATURES,),
    ),
    Statement(14, "2012: an extension never sees NVGRE.", "news", "checks_switch.customer_space", (BELOW,)),
    Statement(
        15,
        "NVGRE packets are marked for native forwarding: a forwarding extension may drop them, not redirect"
        " them.",
        "hybrid; path",
        "checks_switch.native_forwarding",
        (FEATURES,),
        choice="The two sources contradict each other on excluding destinations; here dropping is all that a"
        " forwarding extension may do to NVGRE, at ingress and at egress.",
    ),
    Statement(
        16,
        "A port with VSID 0 is not virtualised; the VSID belongs to the adapter, not to the VM.",
        "NDIS; NetWNV",
        "checks_switch.vsid_of_adapter",
        (FEATURES,),
    ),
    Statement(
        17,
        "A VM's packet carries the VSID of its port as metadata.",
        "path",
        "checks_switch.vsid_metadata",
        (FEATURES,),
    ),
)

FORWARDING = (
    Statement(
        18,
        "Forwarding goes by destination CA: a frame with a wrong destination MAC arrives, with the right.",
        "2012 R2",
        "checks_forwarding.by_address",
    ),
    Statement(19, "Frames that are neither IP nor ARP are dropped.", "2012 R2", "checks_forwarding.not_ip"),
    Statement(
        20,
        "Nothing goes on the wire for a destination on the same host.",
        "2012 R2",
        "checks_forwarding.local",
        (FEATURES,),
    ),
    Statement(
        21,
        "Between subnets of one routing domain packets are routed and carry the destination's VSID; none"
        " reaches another routing domain.",
        "details",
        "checks_forwarding.routed",
    ),
    Statement(
        22,
        "Tenants with the same CAs and the same PAs are kept apart.",
        "details",
        "checks_forwarding.twins",
    ),
    Statement(
        23,
        "What is addressed to outside goes to the next hop of the default route, to its record's PA.",
        "RFC 7637 4.6; 2012 R2; sample",
        "checks_forwarding.default_route",
        (FEATURES,),
    ),
    Statement(
        24,
        "Of several routes the one with the lowest metric is used, customer and provider routes alike.",
        "NetWNV",
        "checks_forwarding.metrics",
        (FEATURES,),
    ),
    Statement(
        25,
        "ARP for the default gateway gives its record's MAC; a ping of it is not answered.",
        "sample",
        "checks_neighbors.gateway",
    ),
)

NEIGHBORS = (
    Statement(
        26,
        "Broadcast ARP and multicast solicitations for a recorded CA are answered by the switch with the"
        " record's MAC; nothing goes on the wire.",
        "2012 R2; ARP",
        "checks_neighbors.answered",
    ),
    Statement(
        27,
        "A request for an unrecorded CA is not flooded in a network without L2Only records.",
        "2012 R2",
        "checks_neighbors.unknown",
        choice="The source says only when such requests are flooded; here they end in the switch, counted as"
        " no-lookup-record.",
    ),
    Statement(
        28,
        "A request for an unrecorded CA is flooded in the virtual subnet where there are L2Only records.",
        "2012 R2",
        "checks_neighbors.flooded",
        (FEATURES,),
    ),
    Statement(
        29, "Unicast ARP and solicitations reach the VM they are for.", "2012 R2", "checks_neighbors.unicast"
    ),
    Statement(
        30,
        "2012: every ARP request that leaves the switch is answered from records, broadcasts end there.",
        "2012",
        "checks_neighbors.below_switch",
        (BELOW,),
    ),
)

REPLICATION = (
    Statement(
        31,
        "With a record for broadcast and multicast, one packet goes to the PA group.",
        "2012 R2; RFC 7637 4.2",
        "checks_replication.group",
        (FEATURES,),
    ),
    Statement(
        32,
        "Otherwise each remote host with VMs of the VSID gets one copy, no other host any.",
        "RFC 7637 4.2; 2012 R2",
        "checks_replication.copies",
    ),
)

LEARNING = (
    Statement(
        33,
        "A VM with an L2Only record that gets an address by DHCP is learned: a Dynamic record, told to the"
        " VMM and to the hosts of its subnet.",
        "NetWNV; news",
        "checks_learning.by_dhcp",
        (LEARNER,),
    ),
    Statement(
        34,
        "A guest's address outside the network's subnets, or beyond DynamicIPAddressLimit, is not learned.",
        "VMM; NDIS",
        "checks_learning.limits",
        (LEARNER,),
    ),
    Statement(
        35,
        "Moves and removals are told with their reason.",
        "NetWNV",
        "checks_learning.moves",
        (LEARNER,),
    ),
    Statement(
        36,
        "A PA goes from Tentative to Preferred, or to Duplicate, and is reported.",
        "NetWNV",
        "checks_policy.address_states",
        (FEATURES,),
    ),
)

ADAPTERS = (
    Statement(
        37,
        "A team rewrites source MACs as its table says.",
        "teaming",
        "checks_teams.macs",
        (TEAMED,),
    ),
    Statement(
        38,
        "Dynamic teaming moves a flow only between flowlets, without reordering.",
        "teaming",
        "checks_teams.flowlets",
        (TEAMED,),
        choice="How long a gap has to be, and how loads are compared, is not published: see teams.md. Flows "
        "without gaps are moved now and then, as the source allows.",
    ),
    Statement(
        39,
        "Queues of a team are counted as sum-of-queues or min-queues.",
        "teaming",
        "checks_teams.queues",
        (TEAMED,),
    ),
    Statement(
        40,
        "RSS hashes match the published vectors; NVGRE hashes the inner 4-tuple or the outer 2-tuple.",
        "RSS",
        "checks_nics.hashes",
        (QUEUED,),
    ),
    Statement(
        41,
        "VMQ goes by inner destination MAC with NVGRE offload, and by one queue without.",
        "RSS",
        "checks_nics.queues",
        (QUEUED,),
    ),
    Statement(
        42,
        "LSOv2 cuts super-packets with right sizes, identifications and checksums.",
        "LSO",
        "checks_nics.segments",
        (QUEUED,),
        choice="Where the NIC cuts, the identification wraps at 16 bits, as the kernel behind it counts; "
        "where the switch cuts, at 15.",
    ),
    Statement(
        43,
        "A received checksum is good only if both IPv4 headers' are.",
        "checksum",
        "checks_nics.verdicts",
        (QUEUED,),
        choice="A frame that is not good is dropped by the host, and does not come to the VM marked as bad.",
    ),
    Statement(
        44,
        "NVGRE offloads do nothing until they are switched on.",
        "offload",
        "checks_nics.inactive",
        (QUEUED,),
    ),
)

STATEMENTS = (*WIRE, *MTU, *SWITCH, *FORWARDING, *NEIGHBORS, *REPLICATION, *LEARNING, *ADAPTERS)
