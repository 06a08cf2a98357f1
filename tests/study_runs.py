"""Finished runs for tests of what is done with many runs: real files, scores as the test wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.recipe_file import parse_recipe, resolved
from equipoise.records import Health, Score, content_id
from equipoise.run_folder import Run, write_json

RECIPE = """\
# Is this a run?
name: {name}
seed: {seed}
model: {{id: local/model}}
reward: {{id: local/reward}}
sources:
  mine: {{kind: table, id: pairs.jsonl, domain: finance, columns: {{prompt: question, chosen: good, rejected: bad}}}}
stages:
  - name: only
    mix: {{mine: 16}}
    optim: {{learning_rate: {rate}}}
    gate: {{hold: {{tatqa: 0.5}}}}
evaluation:
  tasks: {{tatqa: {{}}, mt_bench: {{}}}}
"""


def write_run(
    folder: Path,
    gains: Mapping[str, Sequence[float]],
    *,
    name: str = "",
    seed: int = 0,
    rate: str = "1e-5",
    reward: str = "one",
    base: Mapping[str, Sequence[float]] | None = None,
    dev: Mapping[str, Sequence[float]] | None = None,
    question: str = "what",
) -> Path:
    """A finished run with one kept stage: item i of a task has `base` (by default i % 5) and that plus its gain.

    `gains` are those of the test items, `dev` those of the dev items; every item is a group of its own.
    """
    recipe = parse_recipe(RECIPE.format(name=name or folder.name, seed=seed, rate=rate))
    run = Run(folder)
    for task, values in gains.items():
        start = (base or {}).get(task, [float(i % 5) for i in range(len(values))])
        rows = [("test", i, b, g) for i, (b, g) in enumerate(zip(start, values, strict=True))]
        rows += [("dev", i, float(i % 5), g) for i, g in enumerate((dev or {}).get(task, []))]
        for point in ("base", "1-only"):
            scores = [_score(task, side, i, b + (g if point != "base" else 0.0), question) for side, i, b, g in rows]
            run.write_scores(point, task, scores)
    write_json(folder / "recipe.json", resolved(recipe))
    write_json(folder / "provenance.json", {"model": "model", "reward": reward})
    write_json(folder / "verdict.json", {"gates": [], "kept_stage": "1-only", "point": "1-only"})
    write_json(folder / "done", {"files": {}})
    return folder


def _score(task: str, side: str, number: int, value: float, question: str) -> Score:
    name = f"{side}-{number}"
    return Score(
        id=name,
        task=task,
        content=content_id([question, task, name]),
        group=name,
        category="",
        split=side,  # type: ignore[arg-type]
        answers=("yes",),
        health=Health(empty=False, cut_off=False, repeated=False, words=1),
        value=None if value != value else value,
        unscored="no value" if value != value else None,
    )


def spread(mean: float, n: int = 40, size: float = 1.0) -> list[float]:
    """Gains around `mean`, half of them `size` above and half below."""
    return [mean + (size if i % 2 else -size) for i in range(n)]
