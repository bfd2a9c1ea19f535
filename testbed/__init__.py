"""testbed: a data centre of Hyper-V hosts with NVGRE network virtualization on one Linux machine."""

__version__ = "0.1.0"
