"""What the page shows of each stage: settings, training plots, the gate and its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.evaluation.gate import Row
from equipoise.evaluation.stats_words import with_interval
from equipoise.report import plots
from equipoise.report.read import RunFiles, StageFiles
from equipoise.report.text import short

COLUMNS = ("loss", "margin", "accuracy", "chosen_drift", "rejected_drift", "learning_rate", "grad_norm")
"""The figures of the table of steps."""


@dataclass(frozen=True)
class StageView:
    """A stage: its state, settings, training plots, table of steps, and gate."""

    files: StageFiles
    state: str
    settings: list[tuple[str, str]]
    sources: list[str]
    plots: list[tuple[str, str]]
    steps: list[dict[str, Any]]
    rules: list[tuple[Row, str, str]]


def stages(files: RunFiles) -> list[StageView]:
    """The stages of the recipe, begun or not."""
    return [
        StageView(
            stage,
            _state(stage),
            _settings(stage.settings),
            _step_sources(stage.steps),
            _training_plots(stage),
            _some(stage.steps),
            [_rule(rule, stage.gate.confidence) for rule in stage.gate.rows] if stage.gate else [],
        )
        for stage in files.stages
    ]


def _state(stage: StageFiles) -> str:
    if stage.gate is None:
        return "unfinished" if stage.steps else "not begun"
    return "kept" if stage.kept else "refused"


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that people ask about first; all others are in the recipe below."""
    mix, dpo = settings.get("mix", {}), settings.get("dpo", {})
    optim, lora = settings.get("optim", {}), settings.get("lora", {})
    shown = [
        ("Loss", dpo.get("loss")),
        ("Beta", dpo.get("beta")),
        ("Learning rate", optim.get("learning_rate")),
        ("Epochs", optim.get("epochs")),
        ("Batch", optim.get("batch_size")),
        ("LoRA rank", lora.get("rank")),
        ("LoRA alpha", lora.get("alpha")),
        ("Reference", settings.get("reference")),
        ("When short", mix.get("when_short")),
    ]
    return [
        (name, f"{value:g}" if isinstance(value, float) else str(value)) for name, value in shown if value is not None
    ]


def _step_sources(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    return sorted({name for step in steps for name in step.get("sources", {})})


def _training_plots(stage: StageFiles) -> list[tuple[str, str]]:
    """Title and plot of every figure that the training log holds."""
    by_source = [("Loss", "loss", False), ("Margin (reward units)", "margin", True), ("Accuracy", "accuracy", False)]
    found = []
    for title, key, zero in by_source:
        drawn = [_line("all", stage.steps, key)]
        names = _step_sources(stage.steps)
        if len(names) > 1:
            drawn += [
                _line(name, [{"step": s["step"], **s.get("sources", {}).get(name, {})} for s in stage.steps], key)
                for name in names
            ]
        found.append((title, plots.lines(f"{title} over steps", drawn, zero=zero)))
    drift = [_line("chosen", stage.steps, "chosen_drift"), _line("rejected", stage.steps, "rejected_drift")]
    found.append(
        (
            "Log-probability against the reference, in nats (solid: chosen, dashed: rejected)",
            plots.lines("Drift over steps", drift, zero=True),
        )
    )
    found.append(
        (
            "Learning rate",
            plots.lines("Learning rate over steps", [_line("rate", stage.steps, "learning_rate")], zero=True),
        )
    )
    found.append(
        ("Gradient norm", plots.lines("Gradient norm over steps", [_line("norm", stage.steps, "grad_norm")], zero=True))
    )
    return [(title, plot) for title, plot in found if plot]


def _line(name: str, steps: Sequence[Mapping[str, Any]], key: str) -> plots.Line:
    values = [(float(step["step"]), float(step[key])) for step in steps if key in step and "step" in step]
    return plots.Line(name, values)


def _some(steps: Sequence[dict[str, Any]], most: int = 10) -> list[dict[str, Any]]:
    """A few steps from first to last, for the table beside the plots."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (most - 1))] for place in range(most)]


def _rule(rule: Row, confidence: float) -> tuple[Row, str, str]:
    """A rule of a gate, what was seen in words, and its plot."""
    if rule.ci is None or rule.difference is None:
        return rule, "" if rule.figure is None else short(rule.figure), ""
    border = rule.threshold if rule.kind == "improve" else -rule.threshold
    mark = plots.Mark(rule.key, rule.difference, rule.ci, rule.outcome)
    plot = plots.interval(mark, border=border, border_name="limit", shade=rule.kind == "hold")
    return rule, with_interval(rule.difference, rule.ci, confidence), plot
