"""What the page shows of the data: sources, what was dropped and why, asked against seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.report import plots, words
from equipoise.report.read import RunFiles


@dataclass(frozen=True)
class FlowRow:
    """One source of one stage: asked, available, drawn, seen."""

    stage: str
    source: str
    asked: int
    available: int
    dropped: Mapping[str, int]
    drawn: int
    repeated: int
    epochs: float
    seen: int | None
    differs: bool


def flow(files: RunFiles) -> list[FlowRow]:
    """The way of the pairs of every stage."""
    rows = []
    for stage, entry in files.ledger.get("stages", {}).items():
        for source, line in entry.get("sources", {}).items():
            seen, asked, epochs = line.get("seen"), line.get("asked", 0), entry.get("epochs", 1)
            dropped = {**(line.get("unusable") or {}), **(line.get("too_long") or {})}
            differs = (
                abs((line.get("drawn", 0) if seen is None else seen) - asked * (epochs if seen is not None else 1)) > 1
            )
            numbers = line.get("available", 0), dropped, line.get("drawn", 0), line.get("repeated", 0)
            rows.append(FlowRow(stage, source, asked, *numbers, epochs, seen, differs))
    return rows


@dataclass(frozen=True)
class SourceRow:
    """One source: rows, what was dropped and why, what is left."""

    name: str
    rows: int
    dropped: Mapping[str, int]
    available: int
    longer: float | None
    one_sided: bool
    plot: str


def sources(files: RunFiles) -> list[SourceRow]:
    """The sources before any mix."""
    found = []
    for name, line in files.ledger.get("sources", {}).items():
        dropped = {**(line.get("malformed") or {}), **(line.get("cleaned") or {})}
        available, lengths = line.get("available", 0), line.get("lengths")
        picture = plots.bar({"available": available, **dropped}, f"{name}: what became of its rows")
        longer = None if lengths is None else lengths.get("longer_wins", lengths.get("chosen_longer"))
        one_sided = words.by_length(lengths)
        found.append(SourceRow(name, line.get("rows", 0), dropped, available, longer, one_sided, picture))
    return found


def mixes(files: RunFiles) -> list[tuple[str, list[str], str, str]]:
    """For each stage its sources and two bars: what was asked for, and what the optimiser saw."""
    found = []
    for stage in files.ledger.get("stages", {}):
        rows = [row for row in flow(files) if row.stage == stage]
        asked = plots.bar({row.source: row.asked for row in rows}, f"{stage}: asked")
        seen = plots.bar({row.source: row.seen or 0 for row in rows}, f"{stage}: seen")
        found.append((stage, [row.source for row in rows], asked, seen))
    return found
