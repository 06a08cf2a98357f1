"""The mixture: exactly the shares that the recipe asks for, or an error that says why not. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice

from equipoise.data.seeds import generator
from equipoise.recipe import Mix
from equipoise.records import InputError, Pair

TOLERANCE = 1e-6
"""How far shares may be from summing to 1 (they are then scaled to do so)."""


@dataclass(frozen=True, slots=True)
class MixLine:
    """What the mixture took from one source, in pairs.

    `drawn` includes `repeated`: pairs that came in a second (third, ...) time because the source was short.
    """

    source: str
    asked: int
    available: int
    drawn: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Mixture:
    """The pairs of a stage, source by source in the recipe's order, with one ledger line for each source."""

    pairs: tuple[Pair, ...]
    lines: tuple[MixLine, ...]


def allocate(shares: dict[str, float], pairs: int) -> dict[str, int]:
    """Divide `pairs` by `shares` with the method of the largest remainder.

    The counts sum to `pairs`, and each is less than 1 away from its exact part. Equal remainders go to the larger
    share, then by name, so that the order in which shares are written changes nothing. A share is the
    simple fraction that was meant: 0.1 is a tenth, 1/3 a third. Raises ValueError on a share that is negative or
    no number, on shares that do not sum to 1, and on a negative number of pairs.
    """
    if pairs < 0:
        raise ValueError(f"cannot divide {pairs} pairs")
    for name, share in shares.items():
        if not math.isfinite(share) or share < 0:
            raise ValueError(f"share of {name}: {share} is not a number of 0 or more")
    exact = {name: _exact(share) for name, share in shares.items()}
    if abs(float(sum(exact.values())) - 1.0) > TOLERANCE:
        raise ValueError(f"shares sum to {float(sum(exact.values())):.9g}, not to 1")
    return _divide(exact, pairs)


def asked(spec: Mix) -> dict[str, int]:
    """Pairs that a recipe asks for, by source."""
    if spec.counts is not None:
        return dict(spec.counts)
    return allocate(dict(spec.shares or {}), spec.pairs or 0)


def mix(available: Mapping[str, Sequence[Pair]], spec: Mix, *, seed: int, stage: str) -> Mixture:
    """Draw a stage's pairs without replacement.

    Each source has its own order, made from the seed, the stage and the source's name alone: another source in
    the mix leaves the draw of the others unchanged, and a smaller draw is the beginning of a larger one.
    Raises InputError where a source is short and `when_short` does not help.
    """
    wanted = asked(spec)
    there = {name: len(available[name]) for name in wanted}
    short = [name for name, count in wanted.items() if count > there[name]]
    counts = wanted
    if short and spec.when_short == "shrink":
        counts = _shrunk(spec, there)
    if short and (spec.when_short == "fail" or any(there[name] == 0 for name in short) or not any(counts.values())):
        raise InputError("\n".join(_shortage(stage, name, wanted[name], there[name], spec) for name in short))
    drawn = {name: _draw(available[name], counts[name], seed, stage, name) for name in wanted}
    lines = (
        MixLine(name, wanted[name], there[name], counts[name], max(0, counts[name] - there[name])) for name in wanted
    )
    return Mixture(tuple(pair for name in wanted for pair in drawn[name]), tuple(lines))


def _exact(share: float) -> Fraction:
    return Fraction(share).limit_denominator(10**9)


def _divide(parts: Mapping[str, Fraction], pairs: int) -> dict[str, int]:
    """Largest remainder for parts of any positive sum."""
    whole = sum(parts.values())
    quotas = {name: part * pairs / whole for name, part in parts.items()}
    counts = {name: math.floor(quota) for name, quota in quotas.items()}
    order = sorted(parts, key=lambda name: (counts[name] - quotas[name], -parts[name], name))
    for name in order[: pairs - sum(counts.values())]:
        counts[name] += 1
    return counts


def _shrunk(spec: Mix, there: Mapping[str, int]) -> dict[str, int]:
    """The mixture with the same shares that uses up the source that is shortest for its share."""
    given: Mapping[str, float] = spec.counts or spec.shares or {}
    parts = {name: _exact(share) for name, share in given.items() if share}
    whole = sum(parts.values())
    # No exact part is above what is there, and so neither is its count: a count rounds up to a whole number at most.
    pairs = min(math.floor(there[name] * whole / part) for name, part in parts.items())
    return {**dict.fromkeys(given, 0), **_divide(parts, pairs)}


def _draw(pairs: Sequence[Pair], count: int, seed: int, stage: str, source: str) -> list[Pair]:
    order = generator("mix", seed, stage, source).permutation(len(pairs)).tolist()
    return [pairs[place] for place in islice(cycle(order), count)]


def _shortage(stage: str, source: str, wanted: int, there: int, spec: Mix) -> str:
    if there == 0 or spec.when_short == "shrink":
        advice = "look in the ledger for what was dropped, or take the source out of the mix"
    else:
        advice = "ask for fewer, give the source more rows, or set `when_short: shrink` or `repeat`"
    return f"stage {stage}: source {source}: {wanted} pairs asked, {there} available; {advice}"
