"""Figures in plain words: as many digits as the interval can bear, and what an undecided result needs."""

from __future__ import annotations

import math

from equipoise.evaluation.stats import needed_n
from equipoise.records import Comparison


def decimals(ci: tuple[float, float]) -> int:
    """Return how many decimals an interval can bear: two digits of its width, between 0 and 6."""
    width = ci[1] - ci[0]
    return min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 2


def with_interval(difference: float, ci: tuple[float, float], confidence: float) -> str:
    """Return e.g. "+0.41 (95% interval +0.20 to +0.62)"."""
    places = decimals(ci)
    number, low, high = (_signed(x, places) for x in (difference, *ci))
    return f"{number} ({confidence * 100:g}% interval {low} to {high})"


def sentence(comparison: Comparison, *, confidence: float = 0.95, wished: float | None = None) -> str:
    """Return one line on one domain; undecided ones say what could have been seen and what would be needed.

    `wished` is the effect that the reader wants to see: by default the margin, else half of what can be.
    """
    c = comparison
    figures = with_interval(c.difference, c.ci, confidence)
    left_out = f" ({c.unscored} left out, unscored)" if c.unscored else ""
    said = f"{c.domain}: {figures} on {c.n} questions{left_out}: {c.verdict}"
    why = beside(c)
    said += why
    if c.verdict == "held":
        return f"{said} (a loss of {c.margin:g} or more is excluded)"
    if c.verdict == "undecided" and not why:
        return f"{said}{_alone(c, confidence)}; {needed(c, wished)}"
    return said


def beside(c: Comparison) -> str:
    """What else decided: the noise of the instrument, or items that lost their score."""
    if c.noise is not None and 0 < abs(c.difference) <= c.noise and c.verdict in ("held", "undecided"):
        return f" (measuring the unchanged model again moves it by up to {c.noise:.2g})"
    if c.lost and c.verdict == "undecided":
        return f" ({c.lost} questions had a score before and have none after)"
    return ""


def _alone(c: Comparison, confidence: float) -> str:
    """Say so where the domain alone would have been significant, and the number of domains decided."""
    alone = c.p_value < 1 - confidence <= c.p_holm
    return f" (alone p = {c.p_value:.2g}, corrected for the number of domains {c.p_holm:.2g})" if alone else ""


def needed(c: Comparison, wished: float | None) -> str:
    """Return what n items can show, and about how many would be needed for the wished effect."""
    effect = float(f"{wished or c.margin or c.detectable / 2:.2g}")  # as printed
    seen = f"with {c.n} questions a change below {c.detectable:.2g} cannot be seen"
    if effect >= c.detectable:
        return f"{seen}, one of {effect:.2g} can, and the interval leaves it open"
    return f"{seen}; about {_round(needed_n(c.n, c.detectable, effect))} would be needed for {effect:.2g}"


def _round(n: int) -> str:
    """Return n with two digits: more would promise too much."""
    step = 10 ** max(0, len(str(n)) - 2)
    return f"{round(n / step) * step:,}"


def _signed(x: float, places: int) -> str:
    """Return x with its sign; what rounds to zero has none."""
    text = f"{x:+.{places}f}"
    return text[1:] if float(text) == 0 else text
