"""The host's side of a watch: lines in, what its policy is to become out.

Pure: no I/O, and nothing but msgspec beside the policy's types, so that a host process stays lean.
"""

from __future__ import annotations

import msgspec

from testbed.topology.plan import HostPolicy
from testbed.vmm.model import Changes, KeepAlive, Probe, Reset
from testbed.wnv.policy import Change, decode_changes

_decode = msgspec.json.Decoder(Changes | Reset | KeepAlive | Probe).decode


class Missed(Exception):
    """A line of the watch was lost."""


class Replica:
    """How far a host is: the store and the revision to resume from (None: with nothing).

    Write both down only after what ``feed`` gave has been applied.
    """

    def __init__(self, store: str | None = None, revision: int | None = None) -> None:
        self.store = store
        self.revision = revision

    def feed(self, line: bytes) -> HostPolicy | list[Change] | Probe:
        """What a line asks for: the whole policy anew, changes (none: nothing to do), or a probe.

        A line that came before is nothing to do; a probe belongs to no revision. Raises
        msgspec.DecodeError on one that is no line of a watch, and Missed when one before it did not
        come: watch anew from the revision that is here.
        """
        message = _decode(line)
        if isinstance(message, Probe):
            return message
        if isinstance(message, Reset):
            if self.store == message.store and message.revision < (self.revision or 0):
                return []
            self.store, self.revision = message.store, message.revision
            return message.policy
        if self.revision is None:
            raise Missed("a watch without a revision begins with a reset")
        if message.revision <= self.revision:
            return []
        if message.after > self.revision:
            raise Missed(f"a line between the revisions {self.revision} and {message.after} did not come")
        self.revision = message.revision
        if isinstance(message, KeepAlive):
            return []
        return decode_changes(msgspec.to_builtins(message.changes))
