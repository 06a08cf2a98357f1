"""Plots of the study page: figures in, SVG text out. Pure.

Every mark that stands for a recipe has its number in `data-row`: the page's script marks, hides and moves it by that.
What the script moves stays in the frame drawn here: `data-box` has the edges of the plot (left, top, right, bottom).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from equipoise.report.plots_parts import label, nice, rule, svg
from equipoise.report.text import short, visible

Reach = tuple[float, float, float]
"""A figure with the ends of its interval."""
AIR = 0.04
"""Share of an axis that stays free at each end."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A recipe in a plot: its number, what hovering says, `front`, `feasible` or `worse`, and where it stands."""

    row: int
    said: str
    kind: str
    x: Reach
    y: Reach


@dataclass(frozen=True, slots=True)
class Axis:
    """From figures to places between `start` and `end` (pixels)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Place of a figure."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self, about: int = 4) -> list[float]:
        """Round figures on the axis."""
        step = nice((self.high - self.low) / about)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [place * step for place in range(first, last + 1)]


def axis(reaches: Sequence[Reach], start: float, end: float) -> Axis:
    """An axis that holds all intervals and zero."""
    ends = [0.0, *(value for reach in reaches for value in reach)]
    low, high = min(ends), max(ends)
    air = (high - low) * AIR or 1.0
    return Axis(low - air, high + air, start, end)


def shape(kind: str) -> str:
    """A recipe's mark: filled on the front, hollow where feasible, a cross where a domain is worse."""
    if kind == "worse":
        return '<path class="sign" d="M-4 -4L4 4M-4 4L4 -4"/>'
    return '<circle class="sign" r="4.5"/>'


def front(spots: Sequence[Spot], domains: tuple[str, str], edge: Sequence[tuple[float, float]]) -> str:
    """Gains in one domain against gains in another, with intervals; `edge` is the front by the means alone."""
    box = (64.0, 10.0, 508.0, 352.0)
    across = axis([spot.x for spot in spots], box[0], box[2])
    up = axis([spot.y for spot in spots], box[3], box[1])
    dots = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in edge)
    names = _upright(domains[1], (box[1] + box[3]) / 2, "y-name")
    names += label((box[0] + box[2]) / 2, 394, domains[0], css="tick x-name")
    body = [_frame_x(across, box), _frame_y(up, box), f'<polyline class="edge" points="{dots}"/>', names]
    body += [_spot(spot, across.at(spot.x[0]), across, up) for spot in spots]
    picture = svg(
        520, 404, f"Gain in {domains[0]} (across) and in {domains[1]} (up) of every recipe", body, "chart front"
    )
    return _with_box(picture, box)


def effect(
    name: str,
    spots: Sequence[Spot],
    places: Sequence[str],
    scale: Axis | None,
    ticks: Sequence[tuple[float, str]],
    chains: Sequence[Sequence[int]],
) -> str:
    """A gain (up) by a setting's value (across).

    A value stands at `x` of its spots: on `scale` with its `ticks`, or, without one, in the slot of that number
    among `places`. `chains` are rows of recipes that differ in this setting alone: joined by a line.
    """
    box = (52.0, 8.0, 352.0, 170.0)
    up = axis([spot.y for spot in spots], box[3], box[1])
    width = (box[2] - box[0]) / max(1, len(places))
    named = [(box[0] + width * (slot + 0.5), text) for slot, text in enumerate(places)]
    if scale is not None:
        named = [(scale.at(x), text) for x, text in ticks]
    body = [_frame_y(up, box)]
    most = max(5, int(52 / max(1, len(named))))
    for place, (x, text) in enumerate(named):
        turned = {0: "start", len(ticks) - 1: "end"} if scale is not None else {}
        body.append(label(x, 186, text if len(text) <= most else text[: most - 1] + "…", turned.get(place, "middle")))
    at = {}
    for spot, shift in zip(spots, _shifts(spots), strict=True):
        at[spot.row] = box[0] + width * (spot.x[0] + 0.5 + 0.7 * shift) if scale is None else scale.at(spot.x[0])
    height = {spot.row: up.at(spot.y[0]) for spot in spots}
    for chain in chains:
        dots = " ".join(f"{at[row]:.1f},{height[row]:.1f}" for row in chain)
        body.append(f'<polyline class="only" data-chain="{" ".join(map(str, chain))}" points="{dots}"/>')
    body += [_spot(spot, at[spot.row], None, up) for spot in spots]
    return _with_box(svg(360, 196, name, body, "chart effect"), box)


def effect_scale(numbers: Sequence[float], logarithmic: bool) -> tuple[Axis, list[float], list[tuple[float, str]]]:
    """The axis of a setting with many values: the axis, where each value stands on it, and its ticks."""
    values = [math.log10(value) for value in numbers] if logarithmic else list(numbers)
    low, high = min(values), max(values)
    scale = Axis(low - (high - low) * AIR, high + (high - low) * AIR, 52.0, 352.0)
    middle = (low + high) / 2
    return scale, values, [(x, short(10**x if logarithmic else x)) for x in (low, middle, high)]


def _shifts(spots: Sequence[Spot]) -> list[float]:
    """Places within a slot, -0.5 to 0.5: recipes of one value stand beside each other."""
    count: dict[float, int] = {}
    for spot in spots:
        count[spot.x[0]] = count.get(spot.x[0], 0) + 1
    seen: dict[float, int] = {}
    found = []
    for spot in spots:
        place = seen[spot.x[0]] = seen.get(spot.x[0], 0) + 1
        found.append(place / (count[spot.x[0]] + 1) - 0.5)
    return found


def parallel(domains: Sequence[str], rows: Sequence[tuple[int, str, str, Sequence[float]]]) -> str:
    """One line for each recipe over all domains; `rows` are (number, what hovering says, kind, figure by domain)."""
    box = (52.0, 34.0, 708.0, 300.0)
    up = axis([(value, value, value) for row in rows for value in row[3]], box[3], box[1])
    across = [box[0] + 40 + (box[2] - box[0] - 80) * place / max(1, len(domains) - 1) for place in range(len(domains))]
    body = [_frame_y(up, box)]
    body += [rule(x, box[1], x, box[3], "axis") + label(x, 20, name) for x, name in zip(across, domains, strict=True)]
    for number, said, kind, values in rows:
        dots = " ".join(f"{x:.1f},{up.at(value):.1f}" for x, value in zip(across, values, strict=True))
        title = f"<title>{escape(visible(said))}</title>"
        lines = f'<polyline class="near" points="{dots}"/><polyline class="way" points="{dots}"/>'
        body.append(f'<g class="spot {kind}" data-row="{number}">{title}{lines}</g>')
    return svg(720, 312, "Standardised gain of every recipe in every domain", body, "chart parallel")


def forest(reach: Reach, scale: Axis, said: str) -> str:
    """A figure with its interval on a scale that all rows of a table share."""
    value, low, high = reach
    body = [rule(scale.at(0.0), 0, scale.at(0.0), 20, "zero"), rule(scale.at(low), 10, scale.at(high), 10, "span")]
    body.append(f'<circle class="mark" cx="{scale.at(value):.1f}" cy="10" r="3.5"/>')
    return svg(int(scale.end + 6), 20, said, body, "forest")


def _spot(spot: Spot, x: float, across: Axis | None, up: Axis) -> str:
    y = up.at(spot.y[0])
    ends = [f'<line class="reach v" y1="{up.at(spot.y[1]) - y:.1f}" y2="{up.at(spot.y[2]) - y:.1f}"/>']
    if across is not None:
        ends.append(f'<line class="reach h" x1="{across.at(spot.x[1]) - x:.1f}" x2="{across.at(spot.x[2]) - x:.1f}"/>')
    head = f'<g class="spot {spot.kind}" data-row="{spot.row}" transform="translate({x:.1f} {y:.1f})">'
    return f"{head}<title>{escape(visible(spot.said))}</title>{''.join(ends)}{shape(spot.kind)}</g>"


def _frame_x(across: Axis, box: tuple[float, ...]) -> str:
    body = "".join(
        _tick_x(across.at(tick), short(tick), box, "zero" if not tick else "grid") for tick in across.ticks()
    )
    return f'<g class="frame-x">{body}</g>'


def _tick_x(x: float, text: str, box: tuple[float, ...], css: str) -> str:
    return rule(x, box[1], x, box[3], css) + label(x, box[3] + 18, text)


def _frame_y(up: Axis, box: tuple[float, ...]) -> str:
    body = "".join(
        rule(box[0], up.at(tick), box[2], up.at(tick), "zero" if not tick else "grid")
        + label(box[0] - 6, up.at(tick) + 4, short(tick), "end")
        for tick in up.ticks()
    )
    return f'<g class="frame-y">{body}</g>'


def _upright(text: str, y: float, css: str) -> str:
    return label(0, 0, text, css=f"tick {css}").replace(
        "<text ", f'<text transform="translate(14 {y:.0f}) rotate(-90)" ', 1
    )


def _with_box(picture: str, box: tuple[float, ...]) -> str:
    return picture.replace("<svg ", f'<svg data-box="{" ".join(f"{edge:g}" for edge in box)}" ', 1)
