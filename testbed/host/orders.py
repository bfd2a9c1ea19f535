"""Control's end of the channel to its worker: orders, and what the worker asks meanwhile."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

from testbed.channel import Channel, Message
from testbed.errors import BadInput, LabError


class WorkerLink:
    """Gives orders and waits until they hold.

    ``on_unresolved(next_hop)``: the worker needs a PA's MAC. ``on_claims()``: it has claims of addresses,
    to be fetched by the order ``claims``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: Channel) -> None:
        self.on_unresolved: Callable[[bytes], None] = lambda _: None
        self.on_claims: Callable[[], None] = lambda: None
        self._loop = loop
        self._channel = channel
        self._news: list[Message] = []
        loop.add_reader(channel.socket, self._receive)

    def order(self, op: str, descriptors: Sequence[int] = (), **fields: Any) -> Any:
        """The order's result, once it holds. Raises BadInput (refused) or LabError.

        What the worker asks meanwhile is kept for after.
        """
        return self.hand_over(op, descriptors, **fields)[0]

    def hand_over(self, op: str, descriptors: Sequence[int] = (), **fields: Any) -> tuple[Any, list[int]]:
        """An order whose result comes with descriptors, which are the caller's from then on."""
        self._channel.send({"op": op, **fields}, descriptors)
        while True:
            received = self._channel.receive()
            if received is None:
                raise LabError("the switch worker has died")
            answer, handed = received
            if answer["op"] == "done":
                break
            self._news.append(answer)
        if self._news:
            self._loop.call_soon(self._pass_on)
        if "error" in answer:
            raise (BadInput if answer.get("exit_code") == BadInput.exit_code else LabError)(answer["error"])
        return answer["result"], handed

    def _receive(self) -> None:
        if not self._channel.readable():
            return  # an order in the same turn of the loop has read it already
        received = self._channel.receive()
        if received is None:
            print("the switch worker has died", file=sys.stderr, flush=True)
            self._loop.remove_reader(self._channel.socket)
            self._loop.stop()
            return
        self._news.append(received[0])
        self._pass_on()

    def _pass_on(self) -> None:
        kept, self._news = self._news, []
        for message in kept:
            if message["op"] == "claims":
                self.on_claims()
            else:
                self.on_unresolved(message["next_hop"])
