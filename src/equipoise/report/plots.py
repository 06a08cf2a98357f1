"""Figures in, SVG text out. Pure; colours are classes of the page's style sheet, so they follow the theme.

Nothing is said by colour alone: verdicts differ in shape, lines in dashes, and every mark has a `<title>`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from equipoise.report.plots_parts import label, nice, rule, svg
from equipoise.report.text import places_for, short, signed, visible

HOVERED = 80
"""At most so many places of a line have hover values; longer lines show means over neighbouring steps."""
_FAR = 4.0
_WIDTH, _HEIGHT = 360, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 24


@dataclass(frozen=True, slots=True)
class Line:
    """A named line; `values` are (x, y), by rising x."""

    name: str
    values: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Mark:
    """A difference with its interval, and how it was judged."""

    name: str
    difference: float
    ci: tuple[float, float]
    verdict: str


def symbol(x: float, y: float, verdict: str, size: float = 6.5) -> str:
    """The mark of a verdict: up, down, square, and a hollow circle for what is not decided."""
    css = f'class="mark v-{escape(verdict)}"'
    if verdict in ("improved", "pass", "worse", "fail"):
        up = -1 if verdict in ("improved", "pass") else 1
        tip, foot = y + up * size, y - up * size * 0.75
        return f'<path {css} d="M{x:.1f} {tip:.1f}L{x + size:.1f} {foot:.1f}H{x - size:.1f}Z"/>'
    if verdict == "held":
        side = size - 1
        return f'<rect {css} x="{x - side:.1f}" y="{y - side:.1f}" width="{2 * side}" height="{2 * side}"/>'
    return f'<circle {css} cx="{x:.1f}" cy="{y:.1f}" r="{size - 1}"/>'


def interval(mark: Mark, *, border: float | None = None, border_name: str = "", shade: bool = True) -> str:
    """One difference with its interval on a scale of its own, zero in the middle.

    `border` is drawn as a dashed line, unless it is so far away that the interval would shrink to a dot;
    `shade` tints the loss between it and zero that is allowed.
    """
    low, high = mark.ci
    reach = max(abs(low), abs(high), abs(mark.difference)) * 1.12 or abs(border or 0.0) or 1.0
    inside = border is not None and abs(border) < _FAR * reach
    if border is not None and inside:
        reach = max(reach, abs(border) * 1.12)
    middle, half, y = _WIDTH / 2, _WIDTH / 2 - 8, 20

    def at(value: float) -> float:
        return middle + half * value / reach

    body = []
    if border is not None and border < 0 and shade:
        width = half * min(1.0, -border / reach)
        body.append(f'<rect class="allowed" x="{middle - width:.1f}" y="4" width="{width:.1f}" height="32"/>')
    body.append(rule(middle, 2, middle, 38, "zero"))
    step = nice(reach * 0.55)
    body += [label(at(value), 52, f"{value:+g}" if value else "0") for value in (-step, 0.0, step)]
    body += [rule(at(value), 36, at(value), 40, "axis") for value in (-step, step)]
    if border and inside:
        body.append(rule(at(border), 2, at(border), 38, "border"))
    places = places_for(mark.ci)
    said = f"{mark.name}: {signed(mark.difference, places)}, interval {signed(low, places)} to {signed(high, places)}"
    said += f": {mark.verdict}" + (f"; {border_name} {border:g}" if border is not None and border_name else "")
    body.append(f'<g class="v-{escape(mark.verdict)}"><title>{escape(visible(said))}</title>')
    body += [
        rule(at(low), y, at(high), y, "span"),
        *(rule(at(end), y - 5, at(end), y + 5, "span") for end in (low, high)),
    ]
    body += [symbol(at(mark.difference), y, mark.verdict), "</g>"]
    return svg(_WIDTH, 56, said, body, "interval")


def path(marks: Sequence[Mark], *, margin: float | None, title: str) -> str:
    """Differences from the base with their intervals, point after point."""
    ends = [0.0, *(end for mark in marks for end in mark.ci)]
    if margin and margin < _FAR * max(map(abs, ends)):
        ends.append(-margin)
    scale = _Scale(0.0, len(marks) + 0.5, min(ends), max(ends))
    body = scale.frame([(0.25, "base"), *((place + 1.0, mark.name) for place, mark in enumerate(marks))])
    if margin:
        top, foot = scale.y(0.0), min(scale.y(-margin), _TOP + scale.height)
        body.append(
            f'<rect class="allowed" x="{_LEFT}" y="{top:.1f}" width="{scale.width}" height="{foot - top:.1f}"/>'
        )
    body.append(rule(_LEFT, scale.y(0.0), _LEFT + scale.width, scale.y(0.0), "zero"))
    for place, mark in enumerate(marks):
        x, places = scale.x(place + 1.0), places_for(mark.ci)
        low, high = (signed(end, places) for end in mark.ci)
        said = f"{mark.name}: {signed(mark.difference, places)} ({low} to {high}), {mark.verdict}"
        body.append(f'<g class="v-{escape(mark.verdict)}"><title>{escape(visible(said))}</title>')
        body.append(rule(x, scale.y(mark.ci[0]), x, scale.y(mark.ci[1]), "span"))
        body += [symbol(x, scale.y(mark.difference), mark.verdict), "</g>"]
    return svg(_WIDTH, _HEIGHT, title, body, "chart")


def lines(title: str, drawn: Sequence[Line], *, zero: bool = False) -> str:
    """Lines over training steps; the first is drawn strong. Nothing to draw gives an empty text."""
    drawn = [Line(line.name, thin(line.values)) for line in drawn if line.values]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.values]
    ys = [y for line in drawn for _, y in line.values]
    scale = _Scale(min(xs), max(xs), min([*ys, 0.0] if zero else ys), max([*ys, 0.0] if zero else ys))
    body = scale.frame([(min(xs), f"step {min(xs):g}"), (max(xs), f"{max(xs):g}")], ends=True)
    if zero:
        body.append(rule(_LEFT, scale.y(0.0), _LEFT + scale.width, scale.y(0.0), "zero"))
    for place, line in reversed(list(enumerate(drawn))):
        dots = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in line.values)
        single = len(line.values) == 1
        x, y = (float(part) for part in dots.split(" ")[0].split(","))
        shape = f'<circle class="dot s{place % 7}" cx="{x}" cy="{y}" r="3"/>' if single else ""
        body.append(shape or f'<polyline class="series s{place % 7}" points="{dots}"/>')
    return svg(_WIDTH, _HEIGHT, title, [*body, *_hover(drawn, scale)], "chart")


def thin(values: Sequence[tuple[float, float]], most: int = HOVERED) -> list[tuple[float, float]]:
    """Means over neighbouring values, so that at most `most` are left; a shorter list is unchanged."""
    size = math.ceil(len(values) / most) or 1
    bins = [values[start : start + size] for start in range(0, len(values), size)]
    return [(part[-1][0], math.fsum(y for _, y in part) / len(part)) for part in bins]


def bar(parts: Mapping[str, float], title: str) -> str:
    """One bar of parts that make a whole."""
    total = sum(parts.values())
    if total <= 0:
        return ""
    body, x = [], 0.0
    for place, (name, value) in enumerate(parts.items()):
        width = 600 * value / total
        said = escape(visible(f"{name}: {value:,.0f} ({value / total:.0%})"))
        place_css = f'class="part p{place % 7}" x="{x:.2f}" width="{width:.2f}"'
        body.append(f'<rect {place_css} y="0" height="14"><title>{said}</title></rect>')
        x += width
    return svg(600, 14, title, body, "bar").replace(" role=", ' preserveAspectRatio="none" role=', 1)


def box(title: str, five: Sequence[float]) -> str:
    """A box plot of five numbers in order (the smallest, the quartiles, the largest), on a scale that holds zero."""
    low, lower, median, upper, high = five
    start, end = min(0.0, low), max(0.0, high)
    size = max(-start, end) or 1.0  # divided by it, even numbers near the largest there is have a finite distance
    reach = (end / size - start / size) or 1.0
    step = nice(size * (reach / 2.5))

    def at(value: float) -> float:
        return 10 + (_WIDTH - 20) * (value / size - start / size) / reach

    ticks = [place * step for place in range(math.ceil(start / step), math.floor(end / step) + 1)]
    body = [rule(at(tick), 30, at(tick), 34, "axis") for tick in ticks]
    body += [label(at(tick), 48, short(tick)) for tick in ticks]
    body += [rule(at(0.0), 2, at(0.0), 30, "zero"), rule(at(low), 16, at(high), 16, "whisker")]
    body += [rule(at(limit), 11, at(limit), 21, "whisker") for limit in (low, high)]
    width = at(upper) - at(lower)
    body.append(f'<rect class="middle" x="{at(lower):.1f}" y="6" width="{width:.1f}" height="20"/>')
    body.append(rule(at(median), 6, at(median), 26, "median"))
    said = f"from {short(low)} to {short(high)}, half of them between {short(lower)} and {short(upper)}"
    return svg(_WIDTH, 54, f"{title}: {said}, median {short(median)}", body, "box")


def dumbbell(before: float, after: float, low: float, high: float) -> str:
    """Two means on one line: hollow before, filled after."""
    spread = (high - low) or 1.0
    x1, x2 = (8 + 144 * (value - low) / spread for value in (before, after))
    css = "up" if after > before else "down" if after < before else "same"
    body = [rule(8, 10, 152, 10, "axis"), rule(x1, 10, x2, 10, f"move {css}")]
    body.append(
        f'<circle class="was" cx="{x1:.1f}" cy="10" r="4"/><circle class="is {css}" cx="{x2:.1f}" cy="10" r="4"/>'
    )
    return svg(160, 20, f"before {short(before)}, after {short(after)}", body, "dumbbell")


def _hover(drawn: Sequence[Line], scale: _Scale) -> list[str]:
    """Invisible strips, one per step, that name the values of every line there."""
    values: dict[float, list[str]] = {}
    for line in drawn:
        for x, y in line.values:
            values.setdefault(x, []).append(f"{line.name}: {short(y)}")
    width = scale.width / max(1, len(values))
    return [
        f'<rect class="hit" x="{scale.x(x) - width / 2:.1f}" y="{_TOP}" width="{width:.1f}" height="{scale.height}">'
        f"<title>{escape(visible(chr(10).join([f'step {x:g}', *said])))}</title></rect>"
        for x, said in sorted(values.items())
    ]


class _Scale:
    """From figures to places in the frame of a chart."""

    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def __init__(self, left: float, right: float, low: float, high: float) -> None:
        air = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        self.left, self.right, self.low, self.high = left, right, low - air, high + air

    def x(self, value: float) -> float:
        spread = self.right - self.left
        return _LEFT + (self.width * (value - self.left) / spread if spread else self.width / 2)

    def y(self, value: float) -> float:
        return _TOP + self.height * (self.high - value) / (self.high - self.low)

    def frame(self, marks: Sequence[tuple[float, str]], *, ends: bool = False) -> list[str]:
        """Ticks and their names; with `ends` the outer names are turned inwards."""
        body = []
        step = nice((self.high - self.low) / 3)
        tick = math.ceil(self.low / step) * step
        while tick <= self.high:
            body.append(rule(_LEFT, self.y(tick), _LEFT + self.width, self.y(tick), "grid"))
            body.append(label(_LEFT - 6, self.y(tick) + 4, short(round(tick / step) * step), "end"))
            tick += step
        for place, (value, name) in enumerate(marks):
            anchor = ("start", "end")[place] if ends and len(marks) == 2 and marks[0][0] != marks[1][0] else "middle"
            if not (ends and place and marks[0][0] == value):
                body.append(label(self.x(value), _HEIGHT - 6, name, anchor))
        return body
