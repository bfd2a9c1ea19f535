"""Packets at many points of a running lab, in one file in the order of time. See docs/capture.md."""
