"""The app's pages as text: every value is escaped, and characters that hide or reorder text are made visible."""

from __future__ import annotations

import time
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment

from equipoise.report.html import escaping
from equipoise.report.text import duration
from equipoise.watch_show import event_line


def render(template: str, **values: Any) -> str:
    """A page, or a part of one."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = escaping("equipoise.ui")
    environment.filters |= {"duration": duration, "when": when, "address": address, "event_line": event_line}
    environment.filters |= {"points": points, "place": place}
    return environment


def when(seconds: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def address(id: str) -> str:
    """A run's id as the part of an address."""
    return quote(id, safe="/")


def points(values: tuple[float, ...], width: int = 160, height: int = 36) -> str:
    """The course of a figure as the points of an SVG line, the smallest value at the bottom."""
    if len(values) < 2:
        return ""
    low, spread = min(values), (max(values) - min(values)) or 1.0
    across, up = (width - 4) / (len(values) - 1), height - 6
    return " ".join(
        f"{2 + across * i:.1f},{3 + up - up * (value - low) / spread:.1f}" for i, value in enumerate(values)
    )


def place(value: float, ci: tuple[float, float], difference: float, width: int = 200) -> str:
    """Where a value lies on the scale of an interval's picture, whose middle is zero."""
    reach = max(abs(ci[0]), abs(ci[1]), abs(difference)) * 1.1 or 1.0
    return f"{width / 2 + (width / 2 - 6) * value / reach:.1f}"
