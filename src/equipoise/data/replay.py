"""Replay: pairs that earlier stages were trained on, once more, in an exact share. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import cycle, islice

from equipoise.data.mix import MixLine, Mixture, allocate
from equipoise.data.seeds import generator
from equipoise.recipe import Replay
from equipoise.records import InputError, Pair

MARK = " replayed"
"""Behind the name of a source; the name of a recipe's source has no space, and trackers take one in theirs."""


def is_replayed(source: str) -> bool:
    """Whether a pair of this source came from an earlier stage."""
    return source.endswith(MARK)


def asked(own: int, share: float, earlier: Mapping[str, int]) -> dict[str, int]:
    """Pairs to replay of each source (by its name with the mark), so that they are `share` of all pairs of the stage.

    `own` are the pairs of the stage's mix; to them come own * share / (1 - share) others, to the nearest pair (a half
    goes up), divided by the pairs of each source that earlier stages were trained on, by the largest remainder.
    """
    part = Fraction(share).limit_denominator(10**9)
    pairs = math.floor(own * part / (1 - part) + Fraction(1, 2))
    whole = sum(earlier.values())
    if not whole:
        return {}
    counts = allocate({name: count / whole for name, count in earlier.items()}, pairs)
    return {f"{name}{MARK}": count for name, count in counts.items()}


def draw(
    own: Sequence[Pair],
    earlier: Sequence[Pair],
    spec: Replay,
    *,
    seed: int,
    stage: str,
    usable: Callable[[Pair], bool],
    planned: bool,
) -> Mixture:
    """Draw the pairs that a stage replays beside its own; their source has the mark behind its name.

    `earlier` are the pairs that earlier stages were trained on. Each source has an order of its own, made from the
    seed, the stage and its name; what the stage draws anyway, and what is not `usable`, is passed over. Where
    there are too few, `spec.when_short` says what to do; only in a plan (`planned`) does `fail` raise InputError,
    since later it is a stage that was not kept which is missing.
    """
    there = {(pair.prompt, pair.chosen, pair.rejected) for pair in own}
    pools: dict[str, list[Pair]] = {}
    for pair in dict.fromkeys(earlier):
        pools.setdefault(pair.source, []).append(pair)
    wanted = asked(len(own), spec.share, Counter(pair.source for pair in earlier))
    pairs: list[Pair] = []
    lines = []
    for marked, count in wanted.items():
        name = marked.removesuffix(MARK)
        new = [pair for pair in pools[name] if (pair.prompt, pair.chosen, pair.rejected) not in there]
        order = generator("replay", seed, stage, name).permutation(len(new))
        found = list(islice((new[int(place)] for place in order if usable(new[int(place)])), count))
        if planned and spec.when_short == "fail" and len(found) < count:
            raise InputError(
                f"stage {stage}: replay: {count} pairs of {name} asked, {len(found)} of earlier stages are there that "
                "it does not draw anyway; lower replay.share, or set replay.when_short: shrink or repeat"
            )
        taken = list(islice(cycle(found), count)) if found and spec.when_short == "repeat" else found
        pairs += [replace(pair, source=marked) for pair in taken]
        lines.append(MixLine(marked, count, len(new), len(taken), max(0, len(taken) - len(found))))
    return Mixture(tuple(pairs), tuple(lines))
