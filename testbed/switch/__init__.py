"""The extensible virtual switch.

The path of a packet is :data:`testbed.switch.pipeline.PIPELINES`; what the switch finally does
with it is one of the actions in :mod:`testbed.switch.actions`; the loop is
:mod:`testbed.host.worker`.
"""
