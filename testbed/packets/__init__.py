"""Bytes only: parse and build headers. Imports nothing of this package.

Every ``parse`` takes any bytes-like object and raises :class:`~testbed.packets.malformed.MalformedFrame`
on hostile input, never anything else. Every ``build`` returns new bytes.
"""
