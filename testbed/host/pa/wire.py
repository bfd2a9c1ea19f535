"""ARP and Neighbor Discovery as one protocol: the family of an address decides which it is."""

from __future__ import annotations

from typing import NamedTuple

from testbed.packets import arp, ethernet, ndp
from testbed.packets.datagram import multicast_mac

_ANY4 = bytes(4)


class Message(NamedTuple):
    """What an ARP or ND message says. mac: the sender's.

    claimed: the address that the sender says is its own, or None. asked: the address it asks for, or
    None. is_probe: it asks before it takes the address itself. overrides: a MAC known before is to
    give way (all ARP; RFC 4861 section 7.2.5). reply_to: where an answer goes, as an address.
    """

    mac: bytes
    claimed: bytes | None
    asked: bytes | None
    is_probe: bool
    overrides: bool
    reply_to: bytes


def read(frame: bytes) -> Message:
    """The message in a frame that holds ARP, NS or NA. Raises MalformedFrame."""
    if ethernet.ethertype(frame) == ethernet.TYPE_ARP:
        message = arp.parse(frame)
        return Message(
            mac=message.sender_mac,
            claimed=None if message.sender_ip == _ANY4 else message.sender_ip,
            asked=message.target_ip if message.operation == arp.REQUEST else None,
            is_probe=message.is_probe,
            overrides=True,
            reply_to=message.sender_ip,
        )
    heard = ndp.parse(frame)
    if heard.type == ndp.NEIGHBOR_ADVERTISEMENT:
        mac = heard.link_address or frame[6:12]
        override = bool(heard.flags & ndp.FLAG_OVERRIDE)
        return Message(mac, heard.target, None, False, override, heard.source)
    claimed = heard.source if heard.link_address and not heard.is_dad else None
    mac = heard.link_address or frame[6:12]
    return Message(mac, claimed, heard.target, heard.is_dad, True, heard.source)


def probe(mac: bytes, address: bytes) -> bytes:
    """The question whether anybody has the address, from nobody (RFC 5227, RFC 4862)."""
    if len(address) == 4:
        return arp.build(arp.Arp(arp.REQUEST, mac, _ANY4, bytes(6), address), ethernet.BROADCAST)
    return _solicitation(mac, ndp.UNSPECIFIED, address, None)


def announcement(mac: bytes, address: bytes) -> bytes:
    """Gratuitous ARP request (RFC 5227 section 2.3) or unsolicited NA (RFC 4861 section 7.2.6)."""
    if len(address) == 4:
        return arp.build(arp.Arp(arp.REQUEST, mac, address, bytes(6), address), ethernet.BROADCAST)
    return _advertisement(mac, address, ndp.ALL_NODES, multicast_mac(ndp.ALL_NODES), ndp.FLAG_OVERRIDE)


def request(mac: bytes, source: bytes, target: bytes, known: bytes | None = None) -> bytes:
    """The question for the MAC of ``target``: to everybody, or to the MAC known so far."""
    if len(target) == 4:
        message = arp.Arp(arp.REQUEST, mac, source, bytes(6), target)
        return arp.build(message, known or ethernet.BROADCAST)
    return _solicitation(mac, source, target, known)


def answer(mac: bytes, heard: Message, address: bytes) -> bytes:
    """The answer to a question for ``address``; to an IPv6 probe it goes to all nodes (RFC 4861, 7.2.4)."""
    if len(address) == 4:
        return arp.build(arp.Arp(arp.REPLY, mac, address, heard.mac, heard.reply_to), heard.mac)
    if heard.is_probe:
        return announcement(mac, address)
    flags = ndp.FLAG_SOLICITED | ndp.FLAG_OVERRIDE
    return _advertisement(mac, address, heard.reply_to, heard.mac, flags)


def _solicitation(mac: bytes, source: bytes, target: bytes, known: bytes | None) -> bytes:
    group = ndp.solicited_node(target)
    option = None if source == ndp.UNSPECIFIED else mac
    message = ndp.Neighbor(ndp.NEIGHBOR_SOLICITATION, source, target if known else group, target, 0, option)
    return ndp.build(message, known or multicast_mac(group), mac)


def _advertisement(mac: bytes, address: bytes, to: bytes, to_mac: bytes, flags: int) -> bytes:
    message = ndp.Neighbor(ndp.NEIGHBOR_ADVERTISEMENT, address, to, address, flags, mac)
    return ndp.build(message, to_mac, mac)
