"""Metric families by name, each with its type and its help text, from single numbers.

What stands in docs/metrics.md is the contract: a test compares it with what comes from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily

Type = Literal["counter", "gauge", "untyped"]
PREFIX = "testbed_"

_KINDS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "untyped": UnknownMetricFamily}
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")

HELP: Mapping[str, str] = {
    "lab_info": "A lab; its engine and id are labels.",
    "lab_up": "Whether anything of the lab answers.",
    "lab_read_seconds": "How long it took to read the lab for this scrape.",
    "host_up": "Whether a host's control process answers.",
    "vm_up": "Whether a VM runs.",
    "port_from_vm_packets": "Packets that a VM has sent; a super-packet is one.",
    "port_from_vm_bytes": "Bytes that a VM has sent.",
    "port_to_vm_packets": "Packets that a VM was given; a super-packet is one.",
    "port_to_vm_bytes": "Bytes that a VM was given.",
    "port_to_vm_software_segments": "Frames that the switch has cut for a VM that takes no super-packets.",
    "port_to_vm_software_checksums": "Checksums that the switch has completed for a VM that verifies none.",
    "port_suppressed_claims": "Addresses that a VM took too quickly to be learned.",
    "port_queue_to_vm_packets": "Packets by the queue of the VM's adapter.",
    "nic_rx_packets": "Packets received from the cable; a coalesced packet is one.",
    "nic_rx_bytes": "Bytes received from the cable.",
    "nic_tx_packets": "Packets sent; a super-packet is one.",
    "nic_tx_bytes": "Bytes sent.",
    "nic_tx_lso_packets": "Super-packets that the NIC has cut.",
    "nic_tx_lso_segments": "Frames that became of the super-packets that the NIC has cut.",
    "nic_tx_software_segments": "Frames that the host has cut in the NIC's place.",
    "nic_tx_software_checksums": "Checksums that the host has completed in the NIC's place.",
    "nic_rx_rsc_packets": "Packets that the NIC has joined.",
    "nic_rx_rsc_segments": "Frames that were joined by the NIC.",
    "nic_queue_rx_packets": "Packets by receive queue.",
    "nic_queue_rx_bytes": "Bytes by receive queue.",
    "nic_rx_hash_none": "Frames that the NIC could not hash.",
    "nic_rx_hash_ipv4": "Frames hashed by their IPv4 addresses.",
    "nic_rx_hash_tcp_ipv4": "Frames hashed by their IPv4 addresses and TCP ports.",
    "nic_rx_hash_ipv6": "Frames hashed by their IPv6 addresses.",
    "nic_rx_hash_tcp_ipv6": "Frames hashed by their IPv6 addresses and TCP ports.",
    "nic_rx_vmq_unmatched": "Frames for no VM's queue.",
    "vsid_from_vm_packets": "Packets that the VMs of a virtual subnet have sent on a host.",
    "vsid_from_vm_bytes": "Bytes that the VMs of a virtual subnet have sent on a host.",
    "vsid_to_vm_packets": "Packets that the VMs of a virtual subnet were given on a host.",
    "vsid_to_vm_bytes": "Bytes that the VMs of a virtual subnet were given on a host.",
    "vsid_drop_packets": "Packets of a virtual subnet that a host has dropped.",
    "stage_drop_packets": "Packets dropped by a stage of the pipeline.",
    "drop_packets": "Packets dropped; object: the port or NIC from which they came.",
    "team_flowlets_moved": "How often a flow has taken another member in a pause.",
    "team_flows_rebalanced": "How often a flow was moved since its member had too much.",
    "team_member_flows": "Flows on a member of a team.",
    "team_member_state": "1 for the state that a member of a team is in, 0 for the others.",
    "team_member_round_trip_seconds": "Round trip of loopback messages on a member's cable.",
    "cable_up": "Whether a cable has a carrier.",
    "cable_from_host_packets": "Frames from a host at the switch's end of its cable.",
    "cable_from_host_bytes": "Bytes from a host at the switch's end of its cable.",
    "cable_from_host_drop_packets": "Frames from a host that the switch's port has dropped.",
    "cable_to_host_packets": "Frames to a host at the switch's end of its cable.",
    "cable_to_host_bytes": "Bytes to a host at the switch's end of its cable.",
    "cable_to_host_drop_packets": "Frames to a host that the switch's port has dropped.",
    "cable_fault_packets": "Frames by what a cable with faults has done to them.",
    "extension_value": "A number of a switch extension's own, whatever it means.",
    "worker_cpu_seconds": "Processor time of a host's worker.",
    "results_up": "Whether the results file can be read.",
    "result_value": "A metric of the latest results, the median of its turns.",
    "result_ratio": "The lab's switches beside a baseline of the same turn, the median of the turns.",
    "result_timestamp_seconds": "When a run of the latest results began.",
}


class Families:
    """Numbers by family. One that :data:`HELP` does not have gets a text that is made of its name."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}
        self._labels: dict[str, tuple[str, ...]] = {}

    def add(self, kind: Type, name: str, labels: Mapping[str, str], value: float) -> None:
        """A number. name: without prefix and "_total"; all of a family have the same labels."""
        name = _NOT_IN_NAMES.sub("_", name)
        if name not in self._families:
            text = HELP.get(name, f"{name.replace('_', ' ')}, see `testbed counters`.")
            self._families[name] = _KINDS[kind](PREFIX + name, text, labels=tuple(labels))
            self._labels[name] = tuple(labels)
        family = self._families[name]
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily | UnknownMetricFamily)
        family.add_metric([labels[each] for each in self._labels[name]], value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families[name] for name in sorted(self._families))
