"""Throughput: iperf3 runs, the kernel's VXLAN as the baseline, and their comparison."""
