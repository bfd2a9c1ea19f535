"""eBPF programs, written in C, compiled when the package is built, loaded through libbpf."""
