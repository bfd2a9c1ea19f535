"""The metrics that have a name so far, see docs/results.md. Another one needs no more than a Metric."""

from __future__ import annotations

from testbed.results.model import Metric

THROUGHPUT = Metric("throughput", "Gbit/s", "higher", "payload that arrived")
RETRANSMITS = Metric("retransmits", "1", "neither", "TCP segments sent again")
SWITCH_CPU = Metric("switch_cpu", "s", "neither", "CPU time of the hosts' processes")
SWITCH_CPU_PER_GIGABIT = Metric("switch_cpu_per_gigabit", "s/Gbit", "lower", "the same by payload")
MACHINE_CPU = Metric("machine_cpu", "s", "neither", "CPU time of the whole machine")
MACHINE_CPU_PER_GIGABIT = Metric("machine_cpu_per_gigabit", "s/Gbit", "lower", "the same by payload")
RTT_IDLE_P50 = Metric("rtt_idle_p50", "ms", "lower", "round trip of an idle path, median")
RTT_IDLE_P90 = Metric("rtt_idle_p90", "ms", "lower", "round trip of an idle path, 90th percentile")
RTT_IDLE_P99 = Metric("rtt_idle_p99", "ms", "lower", "round trip of an idle path, 99th percentile")
RTT_LOAD_P50 = Metric("rtt_load_p50", "ms", "lower", "round trip under load, median")
RTT_LOAD_P90 = Metric("rtt_load_p90", "ms", "lower", "round trip under load, 90th percentile")
RTT_LOAD_P99 = Metric("rtt_load_p99", "ms", "lower", "round trip under load, 99th percentile")
PROBE_LOSS = Metric("probe_loss", "%", "lower", "round trips under load that did not come back")
LOSS = Metric("loss", "%", "lower", "UDP datagrams that did not arrive")
JITTER = Metric("jitter", "ms", "lower", "UDP jitter, RFC 1889")
QUEUE_PACKETS = Metric("queue_packets", "1", "neither", "packets of one receive queue")
MEMBER_THROUGHPUT = Metric("member_throughput", "Gbit/s", "neither", "what one team member sent")
START_TOTAL = Metric("start_total", "s", "lower", "until the lab was ready")
START_PHASE = Metric("start_phase", "s", "neither", "one phase of the start")

METRICS: dict[str, Metric] = {each.name: each for each in [*globals().values()] if isinstance(each, Metric)}
"""By name."""
