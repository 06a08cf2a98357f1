"""Run folders as they are while a run goes on, and a real short run of the embedded model."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import equipoise
from equipoise import holder
from equipoise.recipe_file import parse_recipe, resolved
from equipoise.run_folder import write_json, write_lines, write_text

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.exe \x1b[31m \U0001f989"

RECIPE = """\
# Does a run show where it is?
name: going
model: {id: local/model}
reward: {id: local/reward}
sources:
  mine: {kind: table, id: pairs.jsonl, domain: finance, columns: {prompt: question, chosen: good, rejected: bad}}
stages:
  - {name: first, mix: {mine: 16}, optim: {learning_rate: 1e-5, batch_size: 4}, gate: {hold: {tatqa: 0.5}}}
  - {name: second, mix: {mine: 8}, optim: {learning_rate: 1e-5, batch_size: 4}, gate: {hold: {tatqa: 0.5}}}
evaluation:
  tasks: {tatqa: {}}
"""

SHORT = """\
# Does a very short run end?
name: short
model: {id: pocket}
reward: {id: pocket}
sources:
  general: {kind: pocket, domain: general, rows: 120}
stages:
  - name: only
    mix: {general: 32}
    dpo: {beta: 0.1, max_length: 512, max_prompt_length: 384}
    optim: {learning_rate: 1e-3, epochs: 1, batch_size: 8}
    lora: {rank: 4, alpha: 8}
    gate: {hold: {mt_bench: 20}}
evaluation:
  tasks: {mt_bench: {id: pocket, limit: 30}}
  generation: {max_new_tokens: 24, batch_size: 64}
"""

EVENTS: list[dict[str, Any]] = [
    {"time": 1000.0, "event": "begin", "recipe": "going", "resumed": False},
    {"time": 1001.0, "event": "evaluate", "point": "base"},
    {"time": 1011.0, "event": "stage", "stage": "first", "pairs": 16, "start": []},
    {"time": 1015.0, "event": "reference", "stage": "first", "reused": 0, "computed": 16},
    {"time": 1020.0, "event": "training", "stage": "first", "step": 1, "steps": 4},
]
AFTER: list[dict[str, Any]] = [
    {"time": 1026.0, "event": "trained", "stage": "first", "steps": 4, "pairs_per_s": 2.0},
    {"time": 1027.0, "event": "evaluate", "point": "1-first"},
    {"time": 1037.0, "event": "gate", "stage": "first", "outcome": "fail", "action": "stop", "attempt": 1},
    {"time": 1038.0, "event": "end", "kept": "base"},
]
ROW = {"before": 0.5, "after": 0.25, "difference": -0.25, "ci": [-0.5, -0.1], "n": 20, "verdict": "worse"}
VERDICT = {
    "tatqa": ROW,
    "gates": [{"stage": "1-first", "outcome": "fail", "action": "stop"}],
    "kept_stage": "base",
    "point": "1-first",
}
"""Of a run whose only gate refused its stage."""


def training(steps: int) -> list[dict[str, float]]:
    """Lines of train.jsonl, of 4 pairs each."""
    return [
        {"step": k, "loss": 0.7 - 0.1 * k, "margin": 0.1 * k, "accuracy": 0.25 * k, "pairs": 4.0}
        for k in range(1, steps + 1)
    ]


def going(folder: Path, *, steps: int = 3, question: str = "Does a run show where it is?") -> Path:
    """A run in the middle of its first stage: 3 of 4 steps are done, the last 2 of them in 4 seconds."""
    write_json(folder / "recipe.json", resolved(parse_recipe(RECIPE)))
    write_text(folder / "recipe.yaml", f"# {question}\n")
    write_lines(folder / "events.jsonl", EVENTS)
    log = folder / "stages" / "1-first" / "train.jsonl"
    write_lines(log, training(steps))
    os.utime(log, (1024.0, 1024.0))
    scores = [{"split": "dev", "value": 0.0}, {"split": "dev", "value": 1.0}, {"split": "test", "value": 1.0}]
    write_lines(folder / "scores" / "base" / "tatqa.jsonl", [*scores, {"split": "dev", "value": None}])
    return folder


def ended(folder: Path, **options: Any) -> Path:
    """The same at its end: the gate refused the stage."""
    going(folder, steps=4, **options)
    gate = {"outcome": "fail", "action": "stop", "flagged": False, "reasons": ["hold tatqa: a loss is shown"]}
    write_json(folder / "stages" / "1-first" / "gate.json", gate)
    write_lines(folder / "events.jsonl", [*EVENTS, *AFTER])
    write_json(folder / "verdict.json", VERDICT)
    write_json(folder / "done", {"files": {}})
    return folder


def failing(folder: Path) -> Path:
    """A run in its first stage that an error ended; its lock was given back."""
    going(folder)
    events = [*EVENTS, {"time": 1025.0, "event": "failed", "error": "step 4: the loss is NaN\x1b[31m"}]
    write_lines(folder / "events.jsonl", events)
    (folder / ".lock").write_text("{}")
    return folder


def mark(folder: Path, **changes: Any) -> None:
    """Put the mark of this process, with `changes`, into the lock of a run."""
    (folder / ".lock").write_text(json.dumps({**holder.mark(), **changes}))


def short_run(folder: Path) -> Path:
    """A real finished run of the embedded model, with an adapter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(folder / "cache"))
        done: Path = equipoise.run(parse_recipe(SHORT), out=folder / "runs", text=SHORT).run.folder
    return done
