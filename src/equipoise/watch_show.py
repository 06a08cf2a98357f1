"""A snapshot of a run in the terminal: stages, curves as one line of text, scores, gates, last events."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from equipoise.progress import duration
from equipoise.report.text import visible
from equipoise.watch import OPEN, Snapshot, StageNow

BARS = "▁▂▃▄▅▆▇█"
STYLES = {"kept": "green", "refused": "red", "tried again": "yellow", "interrupted": "yellow", "waiting": "dim"}
STYLES |= {"finished": "green", "running": "cyan", "stopped": "red", "failed": "red"}
STYLES |= {"silent": "yellow", "skipped": "dim"}
STYLES |= dict.fromkeys(OPEN, "cyan")
STYLES |= {"improved": "green", "held": "cyan", "worse": "red", "undecided": "yellow"}


def spark(values: Sequence[float], width: int = 24) -> str:
    """The course of a figure as one line of bars, each the mean of neighbouring values; "" of none.

    The lowest bar is the smallest mean, the highest the largest.
    """
    if not values:
        return ""
    cells = min(width, len(values))
    edges = [len(values) * place // cells for place in range(cells + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, spread = min(means), max(means) - min(means)
    return "".join(BARS[round((mean - low) / spread * (len(BARS) - 1)) if spread else 0] for mean in means)


def rendered(seen: Snapshot) -> RenderableType:
    """The whole snapshot."""
    parts: list[RenderableType] = [_head(seen), _stages(seen)]
    if seen.verdict:
        parts.append(_verdict(seen.verdict))
    elif seen.scores:
        parts.append(_scores(seen))
    decided = [stage for stage in seen.stages if stage.gate is not None]
    told = decided[-1:] if seen.state == "running" else decided  # a live view has to fit into the window
    gates = [line for stage in decided for line in _gate(stage, stage in told)]
    parts += [Text("\n").join([Text("Gates (dev items)", style="bold"), *gates])] if gates else []
    parts += [Text(f"! {visible(note)}", style="yellow") for note in seen.notes]
    if seen.events and seen.state != "finished":
        parts.append(Text("\n".join(event_line(event) for event in seen.events[-5:]), style="dim"))
    return Group(*(part for some in parts for part in (some, Text("")))) if parts else Text("")


def event_line(event: Mapping[str, Any]) -> str:
    """An event with its local time, on one line."""
    when = time.strftime("%H:%M:%S", time.localtime(event["time"]))
    details = ", ".join(f"{key} {value}" for key, value in event.items() if key not in ("time", "event"))
    return visible(f"{when}  {event['event']}  {details}").replace("\n", " ")[:200]


def _head(seen: Snapshot) -> Text:
    head = Text.assemble((visible(seen.name), "bold"), "  ", (seen.state, STYLES.get(seen.state, "")))
    if seen.elapsed_s is not None:
        head.append(f"  {duration(seen.elapsed_s)}")
    if seen.state == "running":
        head.append(f", {seen.left}")
    if seen.question:
        head.append(f"\n{visible(seen.question)}", style="italic")
    if seen.doing and seen.state == "running":
        head.append(f"\nnow: {visible(seen.doing)}")
    if seen.state in ("stopped", "failed", "silent"):
        head.append(f"\n{visible(seen.said)}", style=STYLES[seen.state])
    if seen.kept is not None:
        head.append(f"\nkept: {visible(seen.kept)}")
    if seen.changed:
        head.append("\nthe verdict has changed since the run ended", style="red")
    return head


def _stages(seen: Snapshot) -> Table:
    grid = _grid("stage", "state", "step", "pairs/s", "loss", "margin", "accuracy")
    for stage in seen.stages:
        steps = f"{stage.step}/{stage.steps}" if stage.steps else str(stage.step or "")
        grid.add_row(
            Text(visible(f"{stage.number} {stage.name}")),
            Text(stage.state, style=STYLES.get(stage.state, "")),
            steps,
            f"{stage.pairs_per_s:.1f}" if stage.pairs_per_s else "",
            _curve(stage.loss, "{:.3f}"),
            _curve(stage.margin, "{:+.3f}"),
            _curve(stage.accuracy, "{:.0%}"),
        )
    return grid


def _curve(values: Sequence[float], form: str) -> str:
    return f"{spark(values, 10)} {form.format(values[-1])}" if values else ""


def _gate(stage: StageNow, reasons: bool) -> list[Text]:
    assert stage.gate is not None
    outcome, action = stage.gate["outcome"], stage.gate["action"]
    flagged = " (kept all the same)" if stage.gate["flagged"] else ""
    lines = [Text(visible(f"{stage.number} {stage.name}: {outcome} -> {action}{flagged}"))]
    return lines + [Text(f"  {visible(said)}", style="dim") for said in stage.gate["reasons"] if reasons]


def _scores(seen: Snapshot) -> Table:
    points = list(dict.fromkeys(point for found in seen.scores.values() for point in found))
    grid = _grid("mean score (n), dev items", *(visible(point) for point in points))
    for domain, found in seen.scores.items():
        cells = [_mean(found.get(point)) for point in points]
        grid.add_row(Text(visible(domain)), *cells)
    return grid


def _mean(score: Mapping[str, Any] | None) -> str:
    return "" if score is None or score["mean"] is None else f"{score['mean']:.3f} ({score['n']:,})"


def _verdict(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    grid = _grid("verdict, test items", "before", "after", "difference", "interval", "n", "verdict")
    for domain, row in rows.items():
        grid.add_row(
            Text(visible(domain)),
            f"{row['before']:.3f}",
            f"{row['after']:.3f}",
            f"{row['difference']:+.3f}",
            f"{row['ci'][0]:+.3f} to {row['ci'][1]:+.3f}",
            str(row["n"]),
            Text(visible(str(row["verdict"])), style=STYLES.get(str(row["verdict"]), "")),
        )
    return grid


def _grid(*columns: str) -> Table:
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        grid.add_column(Text(name), overflow="fold")
    return grid
