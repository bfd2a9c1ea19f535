"""The WNV filter: Hyper-V Network Virtualization inside the switch."""
