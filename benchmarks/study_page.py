"""Time and size of the study page of many runs: `python benchmarks/study_page.py`.

Makes run folders of realistic sizes in a folder of its own (score files with answers, questions, recipes that differ in
several settings, some runs unfinished), writes the page with `equipoise report FOLDER` in a process of its own, and
says how long that took and how large the page is. `--seeds 5` makes the same number of runs of a fifth of the recipes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import run_python

from equipoise.recipe_file import parse_recipe, resolved
from equipoise.records import Health, Score, content_id
from equipoise.run_folder import Run, write_json, write_lines, write_scores

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "study_page.json"
DOMAINS = {"tatqa": (400, True), "mt_bench": (160, False), "finance_instruct": (200, False), "reddit": (200, False)}
"""Items of each domain, dev and test together, and whether an answer is right or wrong."""
TEST = 0.6
"""Share of test items."""
UNFINISHED = 20
"""Every such run has no end."""
WORDS = ("the", "of", "rate", "was", "million", "company", "net", "sales", "and", "income", "2019", "2020", "tax", "by")
RECIPE = """\
# Which settings keep every domain?
name: recipe-{number:03d}
seed: {seed}
model: {{id: local/model}}
reward: {{id: local/reward}}
sources:
  mine: {{kind: table, id: pairs.jsonl, domain: finance, columns: {{prompt: question, chosen: good, rejected: bad}}}}
stages:
  - name: only
    mix: {{mine: {pairs}}}
    dpo: {{beta: {beta}}}
    optim: {{learning_rate: {rate}, epochs: {epochs}}}
    lora: {{rank: {rank}}}
evaluation:
  tasks: {{tatqa: {{}}, mt_bench: {{}}, finance_instruct: {{}}, reddit: {{}}}}
"""


def main() -> None:
    """Make the runs, write the page, and say what it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1, help="runs of each recipe")
    parser.add_argument("--keep", type=Path, help="make the runs here, and leave them")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result is written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.keep or Path(name)
        make_study(folder, options.runs, options.seeds)
        about = json.loads(run_python("machine.py", "cpu", threads=1))
        result = {**about, "runs": options.runs, "seeds": options.seeds, **measure(folder)}
    write_json(options.out, result)
    took = f"{result['seconds']:.1f} s ({result['seconds_of_computing']:.1f} s of computing)"
    print(f"{options.runs} runs, {len(DOMAINS)} domains: {took}, {result['megabytes']:.1f} MB")


def measure(folder: Path) -> dict[str, Any]:
    """Seconds of the command, imports included, and megabytes of the page and of what it was made from."""
    command = [sys.executable, "-m", "equipoise", "report", str(folder)]
    started, computed = time.perf_counter(), _computed()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, computing = time.perf_counter() - started, _computed() - computed
    read = sum(path.stat().st_size for path in folder.rglob("*.jsonl"))
    return {
        "seconds": round(seconds, 2),
        "seconds_of_computing": round(computing, 2),
        "megabytes": round((folder / "report.html").stat().st_size / 1e6, 2),
        "megabytes_of_records": round(read / 1e6, 1),
    }


def _computed() -> float:
    """Seconds of computing of all processes started so far and ended: other work on the machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def make_study(folder: Path, runs: int, seeds: int) -> None:
    """Write `runs` run folders: every recipe under `seeds` seeds, the base scores the same for all."""
    base = {task: np.random.default_rng(0).random(n) for task, (n, _) in DOMAINS.items()}
    for number in range(runs):
        make_run(folder / f"run-{number:03d}", number // seeds, number % seeds, base, number % UNFINISHED == 7)


def make_run(folder: Path, number: int, seed: int, base: dict[str, Any], unfinished: bool) -> None:
    """One run: its recipe, the scores of base and stage with answers, questions, and events."""
    rng = np.random.default_rng([1, number])
    chosen = {
        "beta": rng.choice([0.01, 0.03, 0.1, 0.3]),
        "rate": f"{10 ** rng.uniform(-6, -4):.2e}",
        "epochs": rng.choice([0.25, 0.5, 1.0]),
        "rank": rng.choice([8, 16, 32]),
        "pairs": rng.choice([800, 1600, 7558]),
    }
    recipe = parse_recipe(RECIPE.format(number=number, seed=seed, **chosen))
    run, of_run = Run(folder), np.random.default_rng([2, number, seed])
    for task, (n, right_or_wrong) in DOMAINS.items():
        gain = rng.normal(0.03, 0.05)
        after = np.clip(base[task] + of_run.normal(gain, 0.15, n), 0.0, 1.0)
        for point, values in (("base", base[task]), ("1-only", after)):
            shown = (values > 0.5).astype(float) if right_or_wrong else 12 * values - 8
            said = np.random.default_rng(5) if point == "base" else of_run
            write_scores(run.folder / "scores" / point, {task: [_score(task, i, x, said) for i, x in enumerate(shown)]})
        prompt = [{"role": "user", "content": " ".join(WORDS * 6)}]
        items = [{"id": f"{task}-{i}", "task": task, "prompt": prompt, "group": str(i)} for i in range(n)]
        write_lines(folder / "items" / f"{task}.jsonl", items)
    write_json(folder / "recipe.json", resolved(recipe))
    write_json(folder / "provenance.json", {"model": "model", "reward": "reward"})
    times = [("begin", {}), ("evaluate", {"point": "base"}), ("stage", {"pairs": int(chosen["pairs"])})]
    times += [("evaluate", {"point": "1-only"}), ("end", {})]
    events = [{"time": 1.7e9 + 400.0 * k, "event": name, **more} for k, (name, more) in enumerate(times)]
    write_lines(folder / "events.jsonl", events)
    if not unfinished:
        write_json(folder / "verdict.json", {"gates": [], "kept_stage": "1-only", "point": "1-only"})
        write_json(folder / "done", {"files": {}})


def _score(task: str, number: int, value: float, rng: np.random.Generator) -> Score:
    words = int(rng.integers(10, 80))
    name = f"{task}-{number}"
    return Score(
        id=name,
        task=task,
        content=content_id(name),
        group=f"{task}-{number // 2}" if task == "mt_bench" else name,
        category="",
        split="test" if number % 10 < 10 * TEST else "dev",
        answers=(" ".join(rng.choice(WORDS, words)),),
        health=Health(empty=False, cut_off=False, repeated=False, words=words),
        value=float(value),
        metrics={"ten": float(value)},
    )


if __name__ == "__main__":
    main()
