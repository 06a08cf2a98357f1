"""What the page shows of each stage: settings, training plots, the gate and its numbers, and what was tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.evaluation.gate import Row
from equipoise.evaluation.stats_words import with_interval
from equipoise.report import plots, training
from equipoise.report.read import RunFiles, StageFiles
from equipoise.report.shape_gate import Decision
from equipoise.report.text import listed, short
from equipoise.report.unfinished import THEN


@dataclass(frozen=True)
class Rule:
    """A rule of a gate, the limit and what was seen in words, and its plot."""

    row: Row
    asked: str
    seen: str
    plot: str


@dataclass(frozen=True)
class AttemptView:
    """One attempt: its number, the values that it was trained with, how it ended, and the rules that decided."""

    number: int
    values: list[tuple[str, str]]
    steps: int
    outcome: str
    then: str
    stopped: str
    rules: list[Rule]


@dataclass(frozen=True)
class ScaleView:
    """One scale of the adapter that was tried, and the rules that decided."""

    scale: str
    outcome: str
    rules: list[Rule]


@dataclass(frozen=True)
class StageView:
    """A stage: its state, settings, training plots, table of steps, gate, and what was tried."""

    files: StageFiles
    state: str
    settings: list[tuple[str, str]]
    began: str
    training: training.TrainingView
    rules: list[Rule]
    judged: str
    stopped: str
    attempts: list[AttemptView]
    scales: list[ScaleView]


def stages(files: RunFiles) -> list[StageView]:
    """The stages of the recipe, begun or not."""
    return [_view(stage) for stage in files.stages]


def _view(stage: StageFiles) -> StageView:
    decided = stage.decision if stage.gate else None
    return StageView(
        stage,
        _state(stage),
        _settings(stage),
        _began(stage),
        training.view(stage),
        _rules(decided.result.rows, decided.result.confidence) if decided else [],
        _judged(decided),
        decided.stopped if decided else "",
        _attempts(stage),
        _scales(decided),
    )


def _state(stage: StageFiles) -> str:
    if stage.gate is None:
        return "unfinished" if stage.steps or stage.earlier or stage.decision else "not begun"
    return "kept" if stage.kept else "refused"


def _settings(stage: StageFiles) -> list[tuple[str, str]]:
    """The settings that people ask about first, with the values of the last attempt; all others are in the recipe."""
    settings = stage.settings
    mix, dpo = settings.get("mix", {}), settings.get("dpo", {})
    optim, lora = settings.get("optim", {}), settings.get("lora", {})
    values = stage.decision.values if stage.decision else {}
    shown = [
        ("Loss", dpo.get("loss")),
        ("Beta", values.get("beta") or dpo.get("beta")),
        ("Learning rate", values.get("learning_rate") or optim.get("learning_rate")),
        ("Epochs", values.get("epochs") or optim.get("epochs")),
        ("Batch", optim.get("batch_size")),
        ("Replay", values.get("replay") or settings.get("replay")),
        *_adapters(lora),
        ("Reference", settings.get("reference")),
        ("When short", mix.get("when_short")),
    ]
    return [(name, said(value)) for name, value in shown if value is not None]


def _adapters(lora: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """One adapter, or one for each domain with its own rank, alpha and learning rate."""
    own = {domain: spec for domain, spec in lora.items() if isinstance(spec, Mapping)}
    if not own:
        return [("LoRA rank", lora.get("rank")), ("LoRA alpha", lora.get("alpha"))]
    keys = ("rank", "alpha", "learning_rate")
    return [
        (f"LoRA of {domain}", {key: spec[key] for key in keys if spec.get(key) is not None})
        for domain, spec in own.items()
    ]


def said(value: Any) -> str:
    """A setting as a person writes it: what is not set is left out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {said(part)}" for key, part in value.items() if part is not None)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _began(stage: StageFiles) -> str:
    """What the stage was trained on top of."""
    if not stage.start:
        return ""
    stack = [str(name) for name in stage.start.get("stack", [])]
    own = f" Adapters of its own for {listed(stage.adapters)}." if stage.adapters else ""
    return f"Trained on top of {listed(stack) if stack else 'the base model'}.{own}"


def _judged(decided: Decision | None) -> str:
    """Which adapter the gate looked at, against what."""
    if decided is None:
        return ""
    against = {"base": " against the base model", "previous": " against the last kept stage"}
    scaled = f", with the adapter at {decided.scale:g} of its size" if decided.scale != 1.0 else ""
    attempt = f", attempt {decided.attempt}" if decided.attempt > 1 else ""
    return f"Decided on the dev questions{against.get(decided.compared_with, '')}{attempt}{scaled}."


def _attempts(stage: StageFiles) -> list[AttemptView]:
    """Every attempt where there was more than one."""
    earlier = [(number, one.steps, one.decision) for number, one in enumerate(stage.earlier, 1)]
    if not earlier and stage.gate is None and stage.decision:
        return [_attempt(1, stage.steps, stage.decision)]  # its folder was not put aside yet
    last = [(len(earlier) + 1, stage.steps, stage.decision)] if stage.steps or stage.decision else []
    return [_attempt(number, steps, decided) for number, steps, decided in [*earlier, *last]] if earlier else []


def _attempt(number: int, steps: Sequence[Mapping[str, Any]], decided: Decision | None) -> AttemptView:
    if decided is None:
        return AttemptView(number, [], len(steps), "", "not finished", "", [])
    result = decided.result
    values = [(key.replace("_", " "), said(value)) for key, value in decided.values.items() if value is not None]
    rules = _rules(result.rows, result.confidence)
    return AttemptView(number, values, len(steps), result.outcome, THEN[result.action], decided.stopped, rules)


def _scales(decided: Decision | None) -> list[ScaleView]:
    if decided is None:
        return []
    confidence = decided.result.confidence
    return [ScaleView(f"{one.scale:g}", one.outcome, _rules(one.rows, confidence)) for one in decided.tries]


def _rules(rows: Sequence[Row], confidence: float) -> list[Rule]:
    return [_rule(row, confidence) for row in rows]


def _rule(rule: Row, confidence: float) -> Rule:
    asked = {"improve": "gain above", "hold": "loss below", "health": "at most"}[
        rule.kind
    ] + f" {short(rule.threshold)}"
    if rule.percent is not None and rule.base is not None:
        asked += f" ({rule.percent:g}% of {short(rule.base)})"
    if rule.ci is None or rule.difference is None:
        return Rule(rule, asked, rule.reason if rule.figure is None else short(rule.figure), "")
    border = rule.threshold if rule.kind == "improve" else -rule.threshold
    mark = plots.Mark(rule.key, rule.difference, rule.ci, rule.outcome)
    plot = plots.interval(mark, border=border, border_name="limit", shade=rule.kind == "hold")
    return Rule(rule, asked, with_interval(rule.difference, rule.ci, confidence), plot)
