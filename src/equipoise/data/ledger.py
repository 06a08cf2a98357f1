"""The ledger: what was asked for, what there was, what was dropped and why, and what the optimiser saw."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from equipoise.data.built import Built
from equipoise.data.mix import Mixture
from equipoise.records import Pair

MANY_CUT = 0.2
"""Share of cut prompts above which a ledger says so."""


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
class SourceLine:
    """A source: rows = sum(malformed) + sum(cleaned) + available."""

    rows: int
    malformed: Mapping[str, int]
    cleaned: Mapping[str, int]
    available: int
    lengths: Lengths | None


@dataclass(frozen=True, slots=True)
class StageLine:
    """One source in one stage, in pairs. Pairs that this stage cannot encode (`unusable`, by reason) are taken out
    before the draw: source.available = sum(unusable) + available, and what is drawn is what is trained on.

    `prompts_cut` counts the drawn pairs whose prompt lost its beginning.

    `seen` counts presentations to the optimiser, a pair of two epochs twice; None while nothing was trained.
    """

    asked: int
    available: int
    drawn: int
    repeated: int
    lengths: Lengths | None = None
    unusable: Mapping[str, int] = field(default_factory=dict)
    prompts_cut: int = 0
    seen: int | None = None


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
            {name: SourceLine(**_with_lengths(line)) for name, line in record["sources"].items()},
            {
                name: StageLedger(
                    stage["epochs"],
                    {source: StageLine(**_with_lengths(line)) for source, line in stage["sources"].items()},
                )
                for name, stage in record["stages"].items()
            },
        )


def lengths(pairs: Sequence[Pair]) -> Lengths | None:
    """Length statistics of pairs; None where there are none."""
    if not pairs:
        return None
    sides = [(len(pair.chosen), len(pair.rejected)) for pair in pairs]
    longer = sum(chosen > rejected for chosen, rejected in sides) / len(sides)
    equal = sum(chosen == rejected for chosen, rejected in sides) / len(sides)
    chosen, rejected = (statistics.median(side) for side in zip(*sides, strict=True))
    return Lengths(chosen, rejected, longer, longer + equal / 2)


def source_line(built: Built, cleaned: Sequence[Pair], reasons: Mapping[str, int]) -> SourceLine:
    """The line of a source from what it built and what cleaning left."""
    return SourceLine(built.rows, dict(built.dropped), dict(reasons), len(cleaned), lengths(cleaned))


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
    stage: StageLedger, unusable: Mapping[str, Mapping[str, int]], prompts_cut: Mapping[str, int]
) -> StageLedger:
    """The stage with what encoding found: pairs without room by source and reason, and cut prompts by source."""
    lines = {
        name: replace(line, unusable=dict(unusable.get(name, {})), prompts_cut=prompts_cut.get(name, 0))
        for name, line in stage.sources.items()
    }
    return replace(stage, sources=lines)


def seen(stage: StageLedger, counts: Mapping[str, int]) -> StageLedger:
    """The stage with what the optimiser was shown: source -> presentations."""
    lines = {name: replace(line, seen=counts.get(name, 0)) for name, line in stage.sources.items()}
    return replace(stage, sources=lines)


def problems(ledger: Ledger) -> list[str]:
    """One sentence for each source of which the optimiser saw another number of pairs than was asked for, or
    many of whose prompts were cut.

    Expected are asked x epochs; up to one pair of difference is rounding. A stage that was not trained yet is judged
    by what is drawn.
    """
    lines = [
        (name, stage, source, line) for name, stage in ledger.stages.items() for source, line in stage.sources.items()
    ]
    found = [_difference(name, stage.epochs, source, line) for name, stage, source, line in lines]
    cut = [
        f"Stage {name}: {line.prompts_cut} of {line.drawn} prompts of {source} lost their beginning; raise "
        "dpo.max_prompt_length."
        for name, _, source, line in lines
        if line.prompts_cut > MANY_CUT * line.drawn
    ]
    return [sentence for sentence in found if sentence] + cut


def _difference(stage: str, epochs: float, source: str, line: StageLine) -> str | None:
    got, expected, verb = (line.drawn, float(line.asked), "has")
    if line.seen is not None:
        got, expected, verb = (line.seen, line.asked * epochs, "saw")
    if abs(got - expected) <= 1:
        return None
    parts = [f"{line.available} available", f"{line.drawn} drawn"]
    parts += [f"{count} unusable: {reason}" for reason, count in line.unusable.items()]
    passes = "" if epochs == 1 or line.seen is None else f" ({line.asked} x {epochs:g} epochs)"
    return f"Stage {stage} {verb} {got} pairs of {source}, asked {expected:g}{passes}: {', '.join(parts)}."


def _with_lengths(line: Mapping[str, Any]) -> dict[str, Any]:
    return {**line, "lengths": None if line["lengths"] is None else Lengths(**line["lengths"])}
