"""Before and after on the scale of the score: the first screen's picture of a domain. Pure."""

from __future__ import annotations

from equipoise.records import Comparison
from equipoise.report.plots import symbol
from equipoise.report.plots_parts import label, nice, rule, svg, tipped
from equipoise.report.text import places_for, signed

_WIDTH, _HEIGHT, _MIDDLE = 420, 62, 22
_FAR = 4.0


def before_after(row: Comparison) -> str:
    """A hollow dot before, the verdict's mark after with the interval of the paired change, and the hold margin.

    The margin is left out where it is so far away that the interval would shrink to a dot.
    """
    low, high = (row.before + end for end in row.ci)
    ends = [row.before, row.after, low, high]
    spread = (max(ends) - min(ends)) or abs(row.before) * 0.1 or 1.0
    border = None if row.margin is None else row.before - row.margin
    if border is not None and row.margin is not None and row.margin < _FAR * spread:
        ends.append(border)
    start, end = min(ends), max(ends)
    air = (end - start) * 0.08 or spread / 2
    start, end = start - air, end + air

    def at(value: float) -> float:
        return 12 + (_WIDTH - 24) * (value - start) / (end - start)

    body = [rule(at(start), 42, at(end), 42, "axis")]
    step = nice((end - start) / 3)
    first, last = int(start // step) + 1, int(end // step)
    for value in (place * step for place in range(first, last + 1)):
        body += [rule(at(value), 40, at(value), 45, "axis"), label(at(value), 58, f"{round(value / step) * step:.6g}")]
    if border is not None and border in ends and border < row.before:
        said = f"allowed loss: {row.margin:g} (hold margin)"
        left, width = at(border), at(row.before) - at(border)
        body.append(tipped(said, f'<rect class="allowed" x="{left:.1f}" y="4" width="{width:.1f}" height="36"/>'))
        body.append(rule(left, 4, left, 40, "border"))
    places = places_for(row.ci)
    change = f"{signed(row.difference, places)}, interval {signed(row.ci[0], places)} to {signed(row.ci[1], places)}"
    said = f"{row.domain}: {row.before:.{places}f} before, {row.after:.{places}f} after: {change}: {row.verdict}"
    mark = [
        rule(at(row.before), 4, at(row.before), 42, "zero"),
        rule(at(row.before), _MIDDLE, at(row.after), _MIDDLE, "moved"),
        rule(at(low), _MIDDLE, at(high), _MIDDLE, "span"),
        *(rule(at(end), _MIDDLE - 5, at(end), _MIDDLE + 5, "span") for end in (low, high)),
        f'<circle class="was" cx="{at(row.before):.1f}" cy="{_MIDDLE}" r="5"/>',
        symbol(at(row.after), _MIDDLE, row.verdict),
        f'<rect class="hit" x="0" y="0" width="{_WIDTH}" height="42"/>',
    ]
    body.append(f'<g class="v-{row.verdict}">{tipped(said, "".join(mark))}</g>')
    return svg(_WIDTH, _HEIGHT, said, body, "change")
