"""The way of a source's rows as bands: what is lost on the way, what is drawn for which stage, what is seen. Pure.

Heights are in proportion; the thinnest band is still visible. Texts stand beside the picture, not in it, so that it
can be as narrow as a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.report.plots_parts import svg, tipped

_WIDTH, _HEIGHT, _NODE = 600.0, 84.0, 7.0
_THIN = 1.5


@dataclass(frozen=True, slots=True)
class Use:
    """Pairs of a source in one stage; `seen` is None while that is not known."""

    stage: str
    drawn: float
    seen: float | None
    colour: int


def ribbon(name: str, rows: float, available: float, uses: Sequence[Use]) -> str:
    """Four columns, a third of the width apart: rows, available pairs, drawn pairs, pairs seen by the optimiser."""
    drawn, seen = sum(use.drawn for use in uses), sum(use.seen or 0.0 for use in uses)
    scale = _HEIGHT / (max(rows, available, drawn, seen) or 1.0)
    places = [place * (_WIDTH - _NODE) / 3 for place in range(4)]

    def tall(value: float) -> float:
        return max(_THIN, value * scale) if value > 0 else 0.0

    body = [
        _band(places[0], places[1], (0.0, tall(available)), (0.0, tall(available)), "way", f"{available:,.0f} left")
    ]
    if rows > available:
        top, foot = tall(available), tall(rows)
        body.append(_fading(places[0], (top, foot), "lost", f"{rows - available:,.0f} of {rows:,.0f} rows dropped"))
    if available > drawn:
        top, foot = tall(drawn), tall(available)
        body.append(_fading(places[1], (top, foot), "rest", f"{available - drawn:,.0f} pairs not asked for"))
    here = there = 0.0
    for use in uses:
        high, goal = tall(use.drawn), tall(use.seen or 0.0)
        css = f"p{use.colour}"
        said = f"{use.stage}: {use.drawn:,.0f} drawn"
        body.append(_band(places[1], places[2], (here, here + high), (here, here + high), css, said))
        if use.seen is not None:
            said += f", {use.seen:,.0f} seen"
            body.append(_band(places[2], places[3], (here, here + high), (there, there + goal), css, said))
        here, there = here + high, there + goal
    ends = [(places[0], tall(rows)), (places[1], tall(available)), (places[2], here), (places[3], there)]
    body += [f'<rect class="node" x="{x:.1f}" y="0" width="{_NODE}" height="{high:.1f}"/>' for x, high in ends if high]
    said = f"{name}: {rows:,.0f} rows, {available:,.0f} available, {drawn:,.0f} drawn, {seen:,.0f} seen"
    whole = svg(int(_WIDTH), int(_HEIGHT), said, body, "ribbon")
    return whole.replace(" role=", ' preserveAspectRatio="none" role=', 1)


def _band(left: float, right: float, begin: tuple[float, float], end: tuple[float, float], css: str, said: str) -> str:
    """A band from the node at `left` to that at `right`; `begin` and `end` are top and foot."""
    x1, x2 = left + _NODE, right
    middle = (x1 + x2) / 2
    top = f"M{x1:.1f} {begin[0]:.1f}C{middle:.1f} {begin[0]:.1f} {middle:.1f} {end[0]:.1f} {x2:.1f} {end[0]:.1f}"
    foot = f"L{x2:.1f} {end[1]:.1f}C{middle:.1f} {end[1]:.1f} {middle:.1f} {begin[1]:.1f} {x1:.1f} {begin[1]:.1f}Z"
    return tipped(said, f'<path class="band {css}" d="{top}{foot}"/>')


def _fading(left: float, ends: tuple[float, float], css: str, said: str) -> str:
    """A band that ends on the way, in a point."""
    x1, x2 = left + _NODE, left + _NODE + 70
    return tipped(
        said, f'<path class="band {css}" d="M{x1:.1f} {ends[0]:.1f}L{x2:.1f} {ends[1]:.1f}L{x1:.1f} {ends[1]:.1f}Z"/>'
    )
