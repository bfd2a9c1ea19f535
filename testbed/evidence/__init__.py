"""What is kept of a failed test, so that somebody else can look at it and run it again.

::

    ring      the last packets of every cable and every VM's adapter while a test runs
    collect   a running lab -> files: policy, counters, events, logs, captures
    bundle    files <-> NAME.repro.tar.zst, which may come from anywhere
    rerun     a bundle -> the same lab, the same test
"""
