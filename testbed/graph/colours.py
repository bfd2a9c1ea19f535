"""The colours of pictures, each for light and for dark backgrounds.

A drawing is made with the light ones, each of which stands for one role only: so a style sheet can give
whatever has it the dark one (:func:`dark_rules`).
"""

from __future__ import annotations

import colorsys

from testbed.graph.model import State, Subnet

# role -> (light, dark)
ROLES: dict[str, tuple[str, str]] = {
    "page": ("#f4f6f9", "#10151c"),
    "card": ("#fefefe", "#1a222d"),
    "border": ("#b4bfcd", "#465568"),
    "text": ("#16202c", "#e8edf4"),
    "muted": ("#435062", "#b8c4d2"),
    "switch": ("#26364a", "#34475f"),
    "on-switch": ("#f9fbfd", "#f8fafc"),
    "port": ("#d9e1ea", "#55697f"),
    "on-port": ("#1c2836", "#fafcfe"),
    "head": ("#e2e9f1", "#2a3746"),
    "nic": ("#eef2f7", "#222d3a"),
    "team": ("#dfe6ee", "#303e4e"),
    "cable": ("#74839a", "#8394a9"),
    "good": ("#116b3a", "#6fdc9b"),
    "warn": ("#8a4b00", "#ffc46b"),
    "bad": ("#b3161b", "#ff9b96"),
    "good-tint": ("#e4f5ea", "#143322"),
    "warn-tint": ("#fdf0d8", "#40300f"),
    "bad-tint": ("#fde5e4", "#4a1c1d"),
    "none": ("#e7e9ec", "#2d333b"),  # VMs that are not virtualised
    "none-line": ("#9aa2ad", "#7c8794"),
}
_HUES = (212, 2, 135, 40, 276, 178, 322, 84, 20, 240)  # those of networks, far apart for neighbours
_STEP = 24  # between the subnets of a network

PLAIN_LINE: dict[State, str] = {"plain": "cable", "good": "cable", "warn": "warn", "bad": "bad"}


def light(role: str) -> str:
    """The colour that a drawing uses for a role."""
    return ROLES[role][0]


def subnet_fill(subnet: Subnet | None) -> tuple[str, str]:
    """(light, dark) behind a VM's adapter; None: not virtualised."""
    if subnet is None:
        return ROLES["none"]
    # the last digits differ by place: no two subnets share a colour that is a role
    hue = _hue(subnet)
    return _hex(hue, 0.89, 0.80), _hex(hue, 0.21, 0.42)


def subnet_line(subnet: Subnet | None) -> tuple[str, str]:
    """(light, dark) around it."""
    if subnet is None:
        return ROLES["none-line"]
    hue = _hue(subnet)
    return _hex(hue, 0.50, 0.50), _hex(hue, 0.58, 0.55)


def _hue(subnet: Subnet) -> float:
    rounds, place = divmod(subnet.hue, len(_HUES))
    return (_HUES[place] + 11 * rounds + _STEP * subnet.shade) % 360 / 360


def _hex(hue: float, lightness: float, saturation: float) -> str:
    parts = colorsys.hls_to_rgb(hue, lightness, saturation)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def pairs(subnets: tuple[Subnet, ...]) -> dict[str, str]:
    """Light -> dark, of everything that a picture with these subnets is made of."""
    found = dict(ROLES.values())
    for subnet in subnets:
        found |= dict((subnet_fill(subnet), subnet_line(subnet)))
    return found


def dark_rules(subnets: tuple[Subnet, ...]) -> str:
    """CSS that gives an SVG drawing its dark colours, where the reader likes it dark."""
    rules = "".join(
        f'[fill="{day}"]{{fill:{night}}}[stroke="{day}"]{{stroke:{night}}}'
        for day, night in pairs(subnets).items()
    )
    return f"@media (prefers-color-scheme: dark){{{rules}}}"


def variables(*, dark: bool) -> str:
    """The roles as CSS variables: "--page:#f4f6f9;"."""
    return "".join(f"--{role}:{pair[dark]};" for role, pair in ROLES.items())
