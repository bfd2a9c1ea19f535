"""The one error that hostile bytes can cause."""


class MalformedFrame(Exception):
    """A frame is truncated, lies about a length or breaks its protocol's rules."""
