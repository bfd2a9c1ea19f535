"""Emulated NICs: cable features, the eBPF that is their hardware."""
