"""What the page shows of a stage's training log: plots over steps, figures by source, and a table of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.report import plots
from equipoise.report.read import StageFiles
from equipoise.report.text import listed

NAMES = {
    "loss": "loss",
    "margin": "margin",
    "accuracy": "accuracy",
    "data_kl": "KL",
    "chosen_drift": "chosen drift",
    "rejected_drift": "rejected drift",
    "learning_rate": "learning rate",
    "beta": "beta",
    "grad_norm": "gradient norm",
    "dev_loss": "dev loss",
    "dev_accuracy": "dev accuracy",
}
"""The figures of the table of steps, and how people call them."""

BY_SOURCE = ("loss", "margin", "accuracy", "data_kl", "chosen_drift", "rejected_drift")
_LAST = 0.2
_ROWS = 20
_PLOTS = (
    ("Loss", "loss", False),
    ("Margin (reward units)", "margin", True),
    ("Accuracy: share of pairs ranked rightly", "accuracy", False),
    ("KL from the reference, estimated (nats per token)", "data_kl", True),
)


@dataclass(frozen=True)
class TrainingView:
    """Plots with their titles, the names of the sources, and two tables: by source, and of some steps."""

    plots: list[tuple[str, str]]
    sources: list[str]
    by_source: list[tuple[str, dict[str, float]]]
    columns: list[str]
    steps: list[dict[str, Any]]


def view(stage: StageFiles) -> TrainingView:
    """All of it; empty where no step is logged."""
    names = _names(stage.steps, "sources")
    columns = [key for key in NAMES if any(key in step for step in stage.steps)]
    return TrainingView(
        _training_plots(stage, names if len(names) > 1 else []),
        names,
        [(name, _means(_of(stage.steps, name))) for name in names],
        columns,
        _some(stage.steps),
    )


def _of(steps: Sequence[Mapping[str, Any]], name: str, part: str = "sources") -> list[dict[str, Any]]:
    """The figures of one source (or of the adapter of one domain), in the steps that it was part of."""
    return [{"step": step["step"], **step[part][name]} for step in steps if name in step.get(part, {})]


def _names(steps: Sequence[Mapping[str, Any]], part: str) -> list[str]:
    return sorted({name for step in steps for name in step.get(part, {})})


def _training_plots(stage: StageFiles, names: Sequence[str]) -> list[tuple[str, str]]:
    """Title and plot of every figure that the training log holds."""
    steps = stage.steps
    found = []
    for title, key, zero in _PLOTS:
        drawn = [_line("all", steps, key), *(_line(name, _of(steps, name), key) for name in names)]
        found.append((title, plots.lines(f"{title} over steps", drawn, zero=zero)))
    drift = [_line("chosen", steps, "chosen_drift"), _line("rejected", steps, "rejected_drift")]
    title = "Log-probability against the reference, in nats (solid: chosen, dashed: rejected)"
    found.append((title, plots.lines("Drift over steps", drift, zero=True)))
    looks = [_line("dev loss", steps, "dev_loss")]
    found.append(("Loss of the pairs that were set apart", plots.lines("Dev loss over steps", looks)))
    looks = [_line("dev accuracy", steps, "dev_accuracy")]
    found.append(("Accuracy on the pairs that were set apart", plots.lines("Dev accuracy over steps", looks)))
    for title, key in (("Learning rate", "learning_rate"), ("Beta", "beta"), ("Gradient norm", "grad_norm")):
        drawn = [_line(title.lower(), steps, key)]
        domains = _names(steps, "adapters") if key != "beta" else []
        drawn += [_line(f"adapter of {name}", _of(steps, name, "adapters"), key) for name in domains]
        said = f"{title} (solid: the stage; dashed, in order: adapters of {listed(domains)})" if domains else title
        found.append((said, plots.lines(f"{title} over steps", drawn, zero=True)))
    earlier = [(f"attempt {number}", one.steps) for number, one in enumerate(stage.earlier, 1) if one.steps]
    if earlier:
        tried = [_line(name, log, "loss") for name, log in [("last attempt", steps), *earlier]]
        found.append(("Loss of every attempt (solid: the last)", plots.lines("Loss of every attempt", tried)))
    return [(title, plot) for title, plot in found if plot]


def _line(name: str, steps: Sequence[Mapping[str, Any]], key: str) -> plots.Line:
    return plots.Line(name, [(float(step["step"]), float(step[key])) for step in steps if key in step])


def _means(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the last fifth of the steps, each pair counted once; and the pairs of all steps."""
    last = steps[-math.ceil(len(steps) * _LAST) :]
    found = {"pairs": math.fsum(step.get("pairs", 0.0) for step in steps)}
    for key in BY_SOURCE:
        known = [(step.get("pairs", 1.0), step[key]) for step in last if key in step]
        weight = math.fsum(pairs for pairs, _ in known)
        if weight > 0:
            found[key] = math.fsum(pairs * value for pairs, value in known) / weight
    return found


def _some(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A few steps from first to last, for the table beside the plots."""
    if len(steps) <= _ROWS:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (_ROWS - 1))] for place in range(_ROWS)]
