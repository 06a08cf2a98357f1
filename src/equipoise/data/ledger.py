"""The ledger: what was asked for, what there was, what was dropped and why, and what the optimiser saw."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from equipoise.data.built import Built
from equipoise.data.mix import Mixture
from equipoise.model.chat import EncodedPair
from equipoise.records import Pair

MANY_CUT = 0.2
"""Share of cut prompts above which a ledger says so."""
MANY_ASKED = 0.8
"""Share of its questions above which a stage may well be short of answers that make a pair."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of answers in characters (medians), and how often the chosen one is the longer.

    `longer_wins` is the accuracy of the rule "the longer answer is better" (equal lengths count half): far
    from 0.5, a model can win by length alone.
    """

    chosen: float
    rejected: float
    chosen_longer: float
    longer_wins: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Where `n` numbers lie: the smallest, the quartiles, the largest."""

    n: int
    smallest: float
    lower: float
    median: float
    upper: float
    largest: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """Lengths in tokens, as they are trained on: medians, the longest prompt plus answer, all answers together."""

    prompt: float
    chosen: float
    rejected: float
    longest: int
    answers: int


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A source: rows = sum(malformed) + sum(cleaned) + held_out + sum(unpaired) + available.

    `malformed` is what the reader dropped, `cleaned` what cleaning dropped, `held_out` what was kept out of training,
    and `unpaired` the questions that a model answered without a pair to show for it (or that nobody needed). `spread`
    is the standard deviation of rewards by which gaps were judged. `assumed`: the answers are not generated yet, and
    `available` counts questions. The gaps are those of available pairs, where the source or a reward model gave any.
    """

    rows: int
    malformed: Mapping[str, int]
    cleaned: Mapping[str, int]
    available: int
    lengths: Lengths | None
    held_out: int = 0
    unpaired: Mapping[str, int] = field(default_factory=dict)
    score_gaps: Spread | None = None
    reward_gaps: Spread | None = None
    spread: float | None = None
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class StageLine:
    """One source in one stage, in pairs. Pairs that this stage cannot encode (`unusable`, by reason) are taken out
    before the draw: source.available = sum(unusable) + available, and what is drawn is what is trained on. Only as
    many pairs are encoded as the draw needs, so `unusable` counts what was met on the way.

    `after_truncation` counts the drawn pairs that still hold both answers whole once they are tokens, and
    `prompts_cut` those of them whose prompt lost its beginning.

    `seen` counts presentations to the optimiser, a pair of two epochs twice; None while nothing was trained.
    `set_apart` are drawn pairs that the stage is watched by and never trained on (`optim.stop`). What is replayed from
    earlier stages has a line of its own, `<source> replayed`; its `available` counts pairs that the stage does not draw
    anyway.
    """

    asked: int
    available: int
    drawn: int
    repeated: int
    lengths: Lengths | None = None
    unusable: Mapping[str, int] = field(default_factory=dict)
    after_truncation: int = 0
    prompts_cut: int = 0
    tokens: Tokens | None = None
    seen: int | None = None
    set_apart: int = 0


@dataclass(frozen=True, slots=True)
class StageLedger:
    """A stage: its passes over the mix, and a line for each source."""

    epochs: float
    sources: Mapping[str, StageLine]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All sources and all stages of a run; `data/ledger.json`."""

    sources: Mapping[str, SourceLine] = field(default_factory=dict)
    stages: Mapping[str, StageLedger] = field(default_factory=dict)

    def with_source(self, name: str, line: SourceLine) -> Ledger:
        """This ledger with a source added or replaced."""
        return replace(self, sources={**self.sources, name: line})

    def with_stage(self, name: str, stage: StageLedger) -> Ledger:
        """This ledger with a stage added or replaced."""
        return replace(self, stages={**self.stages, name: stage})

    def record(self) -> dict[str, Any]:
        """The JSON object of `data/ledger.json`."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Ledger:
        """Read a ledger back; raises KeyError or TypeError on a foreign object."""
        return cls(
            {name: source_line_of(line) for name, line in record["sources"].items()},
            {
                name: StageLedger(
                    stage["epochs"],
                    {source: StageLine(**_parts(line)) for source, line in stage["sources"].items()},
                )
                for name, stage in record["stages"].items()
            },
        )


def source_line_of(record: Mapping[str, Any]) -> SourceLine:
    """Read a source's line back; raises KeyError or TypeError on a foreign object."""
    return SourceLine(**_parts(record))


def lengths(pairs: Sequence[Pair]) -> Lengths | None:
    """Length statistics of pairs; None where there are none."""
    if not pairs:
        return None
    sides = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    longer = sum(chosen > rejected for chosen, rejected in sides) / len(sides)
    equal = sum(chosen == rejected for chosen, rejected in sides) / len(sides)
    chosen, rejected = (statistics.median(side) for side in zip(*sides, strict=True))
    return Lengths(chosen, rejected, longer, longer + equal / 2)


def spread_of(values: Sequence[float]) -> Spread | None:
    """Quartiles of numbers (by linear interpolation); None where there are none."""
    if not values:
        return None
    found = np.quantile(np.asarray(values, np.float64), [0.0, 0.25, 0.5, 0.75, 1.0]).tolist()
    return Spread(len(values), *(round(value, 6) for value in found))


def source_line(built: Built, cleaned: Sequence[Pair], reasons: Mapping[str, int]) -> SourceLine:
    """The line of a source from what it built and what cleaning left."""
    return with_pairs(SourceLine(built.rows, dict(built.dropped), dict(reasons), 0, None), cleaned)


def with_pairs(line: SourceLine, pairs: Sequence[Pair]) -> SourceLine:
    """The line with what can be said of the available pairs."""
    return replace(
        line,
        available=len(pairs),
        lengths=None if line.assumed else lengths(pairs),
        score_gaps=spread_of([pair.score_gap for pair in pairs if pair.score_gap is not None]),
        reward_gaps=spread_of([pair.reward_gap for pair in pairs if pair.reward_gap is not None]),
    )


def stage_ledger(mixture: Mixture, *, epochs: float) -> StageLedger:
    """The lines of a stage before anything is encoded."""
    drawn: dict[str, list[Pair]] = {line.source: [] for line in mixture.lines}
    for pair in mixture.pairs:
        drawn[pair.source].append(pair)
    return StageLedger(
        epochs,
        {
            line.source: StageLine(line.asked, line.available, line.drawn, line.repeated, lengths(drawn[line.source]))
            for line in mixture.lines
        },
    )


def encoded(
    stage: StageLedger, unusable: Mapping[str, Mapping[str, int]], rows: Sequence[EncodedPair], *, max_length: int
) -> StageLedger:
    """The stage with what encoding found: pairs without room by source and reason, and the drawn pairs as tokens."""
    lines = {}
    for name, line in stage.sources.items():
        own = [row for row in rows if row.source == name]
        whole = [row for row in own if len(row.prompt) + max(len(row.chosen), len(row.rejected)) <= max_length]
        lines[name] = replace(
            line,
            unusable=dict(unusable.get(name, {})),
            after_truncation=len(whole),
            prompts_cut=sum(row.prompt_cut > 0 for row in own),
            tokens=_tokens(own),
        )
    return replace(stage, sources=lines)


def _tokens(rows: Sequence[EncodedPair]) -> Tokens | None:
    if not rows:
        return None
    sides = [(len(row.prompt), len(row.chosen), len(row.rejected)) for row in rows]
    prompt, chosen, rejected = (statistics.median(side) for side in zip(*sides, strict=True))
    longest = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in sides)
    return Tokens(prompt, chosen, rejected, longest, sum(chosen + rejected for _, chosen, rejected in sides))


def seen(stage: StageLedger, counts: Mapping[str, int]) -> StageLedger:
    """The stage with what the optimiser was shown: source -> presentations."""
    lines = {name: replace(line, seen=counts.get(name, 0)) for name, line in stage.sources.items()}
    return replace(stage, sources=lines)


def differences(ledger: Ledger) -> list[str]:
    """One sentence for each source of which the optimiser saw another number of pairs than was asked for.

    Expected are asked (less those set apart) x epochs; up to one pair of difference is rounding. A stage that was not
    trained yet is judged by what is drawn.
    """
    found = [
        _difference(name, stage.epochs, source, line)
        for name, stage in ledger.stages.items()
        for source, line in stage.sources.items()
    ]
    return [sentence for sentence in found if sentence]


def problems(ledger: Ledger) -> list[str]:
    """The differences, and one sentence for each source many of whose prompts were cut, or that may become short."""
    cut = [
        f"Stage {name}: {line.prompts_cut} of {line.drawn} prompts of {source} lost their beginning; raise "
        "dpo.max_prompt_length."
        for name, stage in ledger.stages.items()
        for source, line in stage.sources.items()
        if line.prompts_cut > MANY_CUT * line.drawn
    ]
    return differences(ledger) + cut + _perhaps_short(ledger)


def _perhaps_short(ledger: Ledger) -> list[str]:
    """One sentence for each source without answers so far of which a stage needs almost every question."""
    found = []
    for name, stage in ledger.stages.items():
        for source, line in stage.sources.items():
            there = ledger.sources.get(f"{source}@{name}") or ledger.sources.get(source)
            if there and there.assumed and line.asked > MANY_ASKED * there.available:
                found.append(
                    f"Stage {name} asks {line.asked} pairs of {source}, which has {there.available} questions, and not "
                    "every question makes a pair; give it more rows, or ask for fewer."
                )
    return found


def _difference(stage: str, epochs: float, source: str, line: StageLine) -> str | None:
    got, expected, verb = (line.drawn, float(line.asked), "has")
    if line.seen is not None:
        got, expected, verb = (line.seen, (line.asked - line.set_apart) * epochs, "saw")
    if abs(got - expected) <= 1:
        return None
    parts = [f"{line.available} available", f"{line.drawn} drawn"]
    parts += [f"{count} unusable: {reason}" for reason, count in line.unusable.items()]
    passes = "" if epochs == 1 or line.seen is None else f" ({line.asked - line.set_apart} x {epochs:g} epochs)"
    return f"Stage {stage} {verb} {got} pairs of {source}, asked {expected:g}{passes}: {', '.join(parts)}."


def _parts(line: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a line, its own records read back."""
    kinds = {"lengths": Lengths, "score_gaps": Spread, "reward_gaps": Spread, "tokens": Tokens}
    return {
        name: kinds[name](**value) if name in kinds and value is not None else value for name, value in line.items()
    }
