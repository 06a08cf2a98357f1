"""What the page shows of the data: rows and what was lost of them, the pairs that are left, asked against seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from equipoise.report import plots, plots_flow, words
from equipoise.report.read import RunFiles
from equipoise.report.shape import SPREAD

GAPS = {"score_gaps": "gap of the source's scores", "reward_gaps": "gap of rewards"}


@dataclass(frozen=True)
class FlowRow:
    """One source of one stage: asked, available, drawn, seen; None is what the ledger does not say.

    `lengths` (characters) and `tokens` are those of the drawn pairs; `colour` is that of the stage in every picture.
    """

    stage: str
    source: str
    asked: int
    available: int
    dropped: Mapping[str, int]
    drawn: int
    repeated: int
    whole: int | None
    cut: int | None
    epochs: float
    seen: int | None
    differs: bool
    lengths: Mapping[str, float]
    one_sided: bool
    tokens: Mapping[str, float]
    colour: int


def flow(files: RunFiles) -> list[FlowRow]:
    """The way of the pairs of every stage."""
    return [
        _flow_row(stage, source, line, entry.get("epochs", 1), place % 7)
        for place, (stage, entry) in enumerate(files.ledger.get("stages", {}).items())
        for source, line in entry.get("sources", {}).items()
    ]


def _flow_row(stage: str, source: str, line: Mapping[str, Any], epochs: float, colour: int) -> FlowRow:
    seen, asked, drawn = line.get("seen"), line["asked"], line["drawn"]
    lengths = line.get("lengths") or {}
    trained = asked - line.get("set_apart", 0)
    return FlowRow(
        stage,
        words.source_name(source),
        asked,
        line["available"],
        {**(line.get("unusable") or {}), **(line.get("too_long") or {})},
        drawn,
        line["repeated"],
        line.get("after_truncation"),
        line.get("prompts_cut"),
        epochs,
        seen,
        abs(drawn - asked if seen is None else seen - trained * epochs) > 1,
        lengths,
        words.by_length(lengths),
        line.get("tokens") or {},
        colour,
    )


@dataclass(frozen=True)
class Loss:
    """Rows that a source lost on its way; `colour` is that of the same kind of loss in every bar."""

    colour: int
    how: str
    count: float
    reasons: Mapping[str, float]


@dataclass(frozen=True)
class Gaps:
    """How far apart the answers of a source's pairs are: five numbers and a picture of them."""

    name: str
    five: Mapping[str, float]
    plot: str


@dataclass(frozen=True)
class SourceRow:
    """One source: rows, where and why some were lost, what is left and what that is like.

    `assumed`: no model has answered yet, and `available` counts questions.
    """

    name: str
    rows: int
    losses: list[Loss]
    available: int
    assumed: bool
    plot: str
    lengths: Mapping[str, float]
    one_sided: bool
    gaps: list[Gaps]
    spread: float | None


def sources(files: RunFiles) -> list[SourceRow]:
    """The sources before any mix."""
    return [_source_row(words.source_name(name), line) for name, line in files.ledger.get("sources", {}).items()]


def _source_row(name: str, line: Mapping[str, Any]) -> SourceRow:
    parts = {"available": line["available"], **dict.fromkeys(words.LOSSES.values(), 0)}
    losses = [Loss(list(parts).index(how), how, count, reasons) for how, count, reasons in words.losses(line)]
    parts |= {loss.how: loss.count for loss in losses}
    lengths = line.get("lengths") or {}
    gaps = [
        Gaps(what, line[key], plots.box(f"{name}, {what} in {line[key]['n']:,} pairs", [line[key][k] for k in SPREAD]))
        for key, what in GAPS.items()
        if line.get(key)
    ]
    return SourceRow(
        name,
        line["rows"],
        losses,
        line["available"],
        bool(line.get("assumed")),
        plots.bar(parts, f"{name}: what became of its rows"),
        lengths,
        words.by_length(lengths),
        gaps,
        line.get("spread"),
    )


@dataclass(frozen=True)
class Way:
    """The way of one source through the whole run: what became of its rows, and of its pairs in each stage."""

    name: str
    rows: float
    losses: list[Loss]
    available: float
    uses: list[FlowRow]
    drawn: float
    seen: float | None
    plot: str


def ways(files: RunFiles) -> list[Way]:
    """Every source of the ledger, and what a stage used that is no source by itself (replayed pairs)."""
    used = flow(files)
    known = {row.name: row for row in sources(files)}
    names = dict.fromkeys([*known, *(row.source for row in used)])
    return [_way(name, known.get(name), [row for row in used if row.source == name]) for name in names]


def _way(name: str, source: SourceRow | None, uses: list[FlowRow]) -> Way:
    available = source.available if source else max(row.available for row in uses)
    rows = source.rows if source else available
    bands = [plots_flow.Use(row.stage, max(0, row.drawn), row.seen and max(0, row.seen), row.colour) for row in uses]
    seen = [row.seen for row in uses if row.seen is not None]
    return Way(
        name,
        rows,
        source.losses if source else [],
        available,
        uses,
        sum(row.drawn for row in uses),
        sum(seen) if seen else None,
        plots_flow.ribbon(name, max(0, rows), max(0, available), bands),
    )


def mixes(files: RunFiles) -> list[tuple[str, list[str], str, str]]:
    """For each stage its sources and two bars: what was asked for, and what the optimiser saw."""
    found = []
    for stage in files.ledger.get("stages", {}):
        rows = [row for row in flow(files) if row.stage == stage]
        asked = plots.bar({row.source: row.asked for row in rows}, f"{stage}: asked")
        seen = plots.bar({row.source: row.seen or 0 for row in rows}, f"{stage}: seen")
        found.append((stage, [row.source for row in rows], asked, seen))
    return found
