"""The mixture: exactly the shares that the recipe asks for, or an error that says why not. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice

from equipoise.data.seeds import generator
from equipoise.recipe import Mix
from equipoise.records import InputError, Pair

TOLERANCE = 1e-6
"""How far shares may be from summing to 1 (they are then scaled to do so)."""
SAMPLE = 512
"""Pairs of a source by which its mean size is known at least."""
ROUNDS = 8


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


def mix(
    available: Mapping[str, Sequence[Pair]],
    spec: Mix,
    *,
    seed: int,
    stage: str,
    usable: Callable[[Pair], bool] = lambda pair: True,
    size: Callable[[Pair], float] = lambda pair: 1.0,
    orders: Mapping[str, Sequence[int]] | None = None,
) -> Mixture:
    """Draw a stage's pairs without replacement.

    Each source has its own order, made from the seed, the stage and the source's name alone (`draw_order`), or the one
    that `orders` gives (places of its pairs): another source in the mix leaves the draw of the others unchanged, and a
    smaller draw is the beginning of a larger one. Pairs that are not `usable` are passed over; no more pairs are tried
    than the draw needs.

    With `by: tokens` or `gradient` the shares are shares of `size`: the counts, `pairs` in all, are in proportion to
    share / mean size of the source's first pairs (all that are drawn, and at least `SAMPLE`).
    Raises InputError where a source is short and `when_short` does not help.
    """
    draws, wanted = _wanted(available, spec, seed, stage, usable, size, orders)
    counts = wanted
    short = [name for name, count in wanted.items() if len(draws[name].first(count)) < count]
    if short and spec.when_short == "shrink":
        counts = _shrink(spec.shares if spec.shares and spec.by == "pairs" else wanted, draws)
    empty = any(not draws[name].first(1) for name in short)
    if short and (spec.when_short == "fail" or empty or not any(counts.values())):
        raise InputError("\n".join(_shortage(stage, name, wanted[name], draws[name].available, spec) for name in short))
    taken = {name: list(islice(cycle(draws[name].first(count)), count)) for name, count in counts.items()}
    lines = (
        MixLine(name, wanted[name], draws[name].available, counts[name], max(0, counts[name] - draws[name].available))
        for name in wanted
    )
    return Mixture(tuple(pair for name in wanted for pair in taken[name]), tuple(lines))


def draw_order(pairs: int, *, seed: int, stage: str, source: str) -> list[int]:
    """The places 0 .. pairs-1 in the order in which a stage draws the pairs of a source."""
    return [int(place) for place in generator("mix", seed, stage, source).permutation(pairs)]


def shortfall(
    available: Mapping[str, Sequence[Pair]],
    spec: Mix,
    *,
    seed: int,
    stage: str,
    usable: Callable[[Pair], bool],
    size: Callable[[Pair], float],
    orders: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, int]:
    """Pairs asked of each source that has fewer, before `when_short` helps; the arguments are those of `mix`."""
    draws, wanted = _wanted(available, spec, seed, stage, usable, size, orders)
    return {name: count for name, count in wanted.items() if len(draws[name].first(count)) < count}


def expected_gradient(chosen_tokens: int, rejected_tokens: int, *, per_token: bool) -> float:
    """How long a pair's gradient is to be expected at the start of a stage, up to a factor that all pairs share.

    There every margin is 0, so every pair's loss has the same slope, and the gradient is that slope times the gradient
    of log pi(chosen) - log pi(rejected): a sum of one term for each answer token. Terms of about the same length in
    directions that have little to do with each other add up like a random walk: sqrt(chosen + rejected). Losses
    `per_token` divide each sum by its length first: sqrt(1/chosen + 1/rejected). docs/data.md shows how far this
    agrees with measured gradients.
    """
    if per_token:
        return math.sqrt(1 / chosen_tokens + 1 / rejected_tokens)
    return math.sqrt(chosen_tokens + rejected_tokens)


class _Draw:
    """The usable pairs of a source in the order of its draw, tried one by one as they are needed."""

    def __init__(self, pairs: Sequence[Pair], order: Sequence[int], usable: Callable[[Pair], bool]) -> None:
        self._untried = iter(order)
        self._pairs, self._usable = pairs, usable
        self._found: list[Pair] = []
        self._unusable = 0

    @property
    def available(self) -> int:
        """Pairs that are usable, or were not tried yet."""
        return len(self._pairs) - self._unusable

    def first(self, count: int) -> list[Pair]:
        """The first `count` usable pairs; fewer where there are no more."""
        while len(self._found) < count and (place := next(self._untried, None)) is not None:
            if self._usable(self._pairs[place]):
                self._found.append(self._pairs[place])
            else:
                self._unusable += 1
        return self._found[:count]


def _wanted(
    available: Mapping[str, Sequence[Pair]],
    spec: Mix,
    seed: int,
    stage: str,
    usable: Callable[[Pair], bool],
    size: Callable[[Pair], float],
    orders: Mapping[str, Sequence[int]] | None,
) -> tuple[dict[str, _Draw], dict[str, int]]:
    """The draws of a stage, nothing drawn yet, and how many pairs of each the mix asks for."""
    given = orders or {}
    draws = {
        name: _Draw(
            available[name],
            given[name] if name in given else draw_order(len(available[name]), seed=seed, stage=stage, source=name),
            usable,
        )
        for name in spec.sources
    }
    return draws, asked(spec) if spec.by == "pairs" else _by_size(spec, draws, size)


def _by_size(spec: Mix, draws: Mapping[str, _Draw], size: Callable[[Pair], float]) -> dict[str, int]:
    """Counts whose summed sizes are in the shares; in rounds, since a count depends on a mean that depends on it."""
    shares = {name: share for name, share in (spec.shares or {}).items() if share}
    counts = dict.fromkeys(shares, 0)
    for _ in range(ROUNDS):
        parts = {}
        for name, share in shares.items():
            sizes = [size(pair) for pair in draws[name].first(max(SAMPLE, counts[name]))]
            parts[name] = _exact(share * len(sizes) / math.fsum(sizes)) if sizes else _exact(share)
        before, counts = counts, _divide(parts, spec.pairs or 0)
        if counts == before:
            break
    return {**dict.fromkeys(spec.shares or {}, 0), **counts}


def _shrink(wanted: Mapping[str, float], draws: Mapping[str, _Draw]) -> dict[str, int]:
    """The mixture with the same proportions that uses up the source that is shortest for its part."""
    parts = {name: _exact(part) for name, part in wanted.items() if part}
    whole = sum(parts.values())
    while True:
        there = {name: draws[name].available for name in parts}
        # No exact part is above what is there, and so neither is its count: it rounds up to a whole number at most.
        pairs = min(math.floor(there[name] * whole / part) for name, part in parts.items())
        counts = {**dict.fromkeys(wanted, 0), **_divide(parts, pairs)}
        if all(len(draws[name].first(count)) == count for name, count in counts.items()):
            return counts  # else trying more pairs has found fewer usable ones


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


def _shortage(stage: str, source: str, wanted: int, there: int, spec: Mix) -> str:
    if there == 0 or spec.when_short == "shrink":
        advice = "mend the source, or take it out of the mix"
    else:
        advice = "ask for fewer, give the source more rows, or set `when_short: shrink` or `repeat`"
    return f"stage {stage}: source {source}: {wanted} pairs asked, {there} available; {advice}"
