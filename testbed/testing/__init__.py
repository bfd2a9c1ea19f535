"""What tests of labs are written with: VMs, hosts and captures of a running lab, waiting with a deadline.

::

    lab       a running lab            vm        a VM's adapter: commands, pings, frames
    host      a host: PAs, counters    watch     frames at points of the lab while something happens
    nvgre     reads what is on cables  journey   one packet, seen at each hop of its way
    waiting   polls with a deadline    pool      the labs of a test process
    run       pytest with the suites   results   what came of it

The fixtures of :mod:`testbed.pytest_plugin` hand these out; they are imported when a test asks for one.
"""
