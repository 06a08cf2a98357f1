"""The pieces that every plot is made of: SVG text with a name for those who do not see it, and values to hover over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from equipoise.report.text import visible


def svg(width: int, height: int, title: str, body: Sequence[str], css: str) -> str:
    """A picture with a name."""
    name = escape(visible(title))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" viewBox="0 0 {width} {height}" role="img"'
    return f'{head} aria-label="{name}"><title>{name}</title>{"".join(body)}</svg>'


def label(x: float, y: float, text: str, anchor: str = "middle", css: str = "tick") -> str:
    """A text at a place."""
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(visible(text))}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A line from place to place."""
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def tipped(said: str, body: str) -> str:
    """`body` with a text that is shown where the pointer is over it."""
    return f"<g><title>{escape(visible(said))}</title>{body}</g>"


def nice(value: float) -> float:
    """The largest of 1, 2, 2.5, 5 x 10^k that is not above `value`."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return max(unit * power for unit in (1.0, 2.0, 2.5, 5.0) if unit * power <= value * (1 + 1e-9))
