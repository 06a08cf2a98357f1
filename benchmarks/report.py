"""Time and size of the report of one run: `python benchmarks/report.py`.

Makes the folder of a run of two stages with 3 x 2,000 scored items at each of its three points (answers of 10 to 80
words, questions, 250 training steps a stage), with the functions that a run writes it with, and lets `equipoise report`
write its page in a process of its own. The weights and the pairs are left out: the page does not read them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from processes import HERE, run_python

from equipoise.data.ledger import Ledger, Lengths, SourceLine, StageLedger, StageLine, Tokens
from equipoise.evaluation.gate import decide
from equipoise.outcome import comparison_json, gate_before, only, verdict_json
from equipoise.recipe import Recipe
from equipoise.recipe_file import parse_recipe, resolved
from equipoise.records import Health, Score, content_id
from equipoise.run_folder import Run, write_json, write_lines, write_text

RESULT = HERE / "results" / "report.json"
DOMAINS = {"tatqa": 0.0, "mt_bench": -0.1, "finance_instruct": 0.4}
"""The domains, and what the last stage adds to their scores."""
WORDS = (
    "the",
    "of",
    "rate",
    "was",
    "million",
    "company",
    "net",
    "sales",
    "and",
    "income",
    "2019",
    "tax",
    "for",
    "year",
)
RECIPE = """\
# Does finance improve while nothing is lost?
name: large
model: {id: local/model}
reward: {id: local/reward}
sources:
  mine: {kind: table, id: a.jsonl, domain: finance, columns: {prompt: question, chosen: good, rejected: bad}}
  other: {kind: table, id: b.jsonl, domain: general, columns: {prompt: question, chosen: good, rejected: bad}}
stages:
  - {name: first, mix: {mine: 8000, other: 8000}, gate: {hold: {tatqa: 0.05}}}
  - {name: second, mix: {mine: 8000, other: 8000}, gate: {improve: {finance_instruct: 0.0}, hold: {mt_bench: 0.2}}}
evaluation:
  tasks: {tatqa: {}, mt_bench: {}, finance_instruct: {}}
"""


def main() -> None:
    """Make the run, write its report some times, and say what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--items", type=int, default=2000, help="scored items of each of the three domains")
    parser.add_argument("--steps", type=int, default=250, help="training steps of each stage")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the run here, and leave it")
    parser.add_argument("--out", type=Path, help="result file; without it only the usual sizes are written")
    options = parser.parse_args()
    usual = all(getattr(options, name) == parser.get_default(name) for name in ("items", "steps", "repeats"))
    with tempfile.TemporaryDirectory() as name:
        run = make_run(options.keep or Path(name) / "large", options.items, options.steps)
        about = json.loads(run_python("machine.py", "cpu", threads=1))
        result = {**about, "items": options.items, "steps": options.steps, **measure(run, options.repeats)}
    out = options.out or (RESULT if usual else None)
    if out:
        write_json(out, result)
    page = f"{median(result['seconds']):.1f} s, {result['megabytes']:.2f} MB"
    print(f"3 x {options.items:,} items at 3 points, {result['megabytes_of_records']} MB of records: {page}")


def measure(run: Run, repeats: int) -> dict[str, Any]:
    """Seconds of the command, imports included, and megabytes of the page and of what it was made from."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        command = [sys.executable, "-m", "equipoise", "report", str(run.folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(round(time.perf_counter() - started, 2))
    read = sum(path.stat().st_size for path in run.folder.rglob("*.jsonl"))
    size = (run.folder / "report.html").stat().st_size
    return {"seconds": seconds, "megabytes": round(size / 1e6, 2), "megabytes_of_records": round(read / 1e6, 1)}


def make_run(folder: Path, items: int, steps: int) -> Run:
    """A finished run as the stages leave it."""
    run, recipe = Run(folder), parse_recipe(RECIPE)
    points = {
        point: {task: _scores(task, items, place * gain / 2, place) for task, gain in DOMAINS.items()}
        for place, point in enumerate(("base", "1-first", "2-second"))
    }
    for point, scores in points.items():
        for task, records in scores.items():
            run.write_scores(point, task, records)
    for task in DOMAINS:
        asked = [{"role": "user", "content": " ".join(WORDS * 6)}]
        write_lines(folder / "items" / f"{task}.jsonl", ({"id": f"{task}-{n}", "prompt": asked} for n in range(items)))
    write_text(folder / "recipe.yaml", RECIPE)
    write_json(folder / "recipe.json", resolved(recipe))
    write_json(folder / "provenance.json", {"model": "model", "reward": "reward", "seed": 0})
    write_json(folder / "data" / "ledger.json", _ledger().record())
    _judge(run, recipe, points, steps)
    return run


def _judge(run: Run, recipe: Recipe, points: dict[str, dict[str, list[Score]]], steps: int) -> None:
    """Training logs, gates, comparison and verdict."""
    gates, kept = [], "base"
    for number, stage in enumerate(recipe.stages, 1):
        point = f"{number}-{stage.name}"
        write_lines(run.stage(number, stage.name) / "train.jsonl", _steps(steps))
        result = decide(gate_before(stage, points, kept), only(points[point], "dev"), stage.gate)
        gates.append({"stage": point, "compared_with": "base", "kept_before": kept, **result.record()})
        write_json(run.stage(number, stage.name) / "gate.json", gates[-1])
        kept = point if result.action == "keep" else kept
    comparisons = comparison_json(recipe, points)
    write_json(run.folder / "comparison.json", comparisons)
    write_json(run.folder / "verdict.json", verdict_json(comparisons, points, gates, kept))


def _scores(task: str, items: int, gain: float, point: int) -> list[Score]:
    same, own = np.random.default_rng(1), np.random.default_rng([2, point])
    values = same.normal(0.0, 1.0, items) + own.normal(gain, 0.5, items)
    return [_score(task, number, float(value), own) for number, value in enumerate(values)]


def _score(task: str, number: int, value: float, rng: np.random.Generator) -> Score:
    words, name = int(rng.integers(10, 80)), f"{task}-{number}"
    return Score(
        id=name,
        task=task,
        content=content_id(name),
        group=f"{task}-{number // 2}",
        category=("arithmetic", "span", "count", "multi-span")[number % 4] + (", table" if number % 3 else ", text"),
        split="test" if number % 5 > 1 else "dev",
        answers=(" ".join(rng.choice(WORDS, words)),),
        health=Health(empty=False, cut_off=bool(rng.random() < 0.02), repeated=False, words=words),
        value=round(value, 6),
        metrics={"ten": round(10 / (1 + float(np.exp(-value))), 6), "correct": float(value > 0)},
    )


def _steps(steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)

    def figures(step: int) -> dict[str, float]:
        noise = float(rng.normal(0.0, 0.02))
        return {
            "loss": 0.69 - 0.3 * step / steps + noise,
            "margin": 2.0 * step / steps + noise,
            "accuracy": min(1.0, 0.5 + 0.4 * step / steps + noise),
            "chosen_drift": -3.0 * step / steps,
            "rejected_drift": -9.0 * step / steps,
            "data_kl": 0.05 * step / steps,
            "pairs": 32.0,
        }

    return [
        {"step": step, "learning_rate": 1e-5, "beta": 0.1, "grad_norm": 1.0, **figures(step)}
        | {"sources": {"mine": figures(step), "other": figures(step)}}
        for step in range(1, steps + 1)
    ]


def _ledger() -> Ledger:
    lengths, tokens = Lengths(700.0, 650.0, 0.52, 0.52), Tokens(120, 210, 190, 1900, 3_000_000)
    names = ("mine", "other")
    sources = {
        name: SourceLine(100_000, {"empty answer": 900}, {"near-duplicate": 9_000}, 90_100, lengths) for name in names
    }
    line = StageLine(8000, 90_100, 8000, 0, lengths, {}, 8000, 0, tokens, seen=8000)
    return Ledger(sources, {stage: StageLedger(1.0, dict.fromkeys(names, line)) for stage in ("first", "second")})


if __name__ == "__main__":
    main()
