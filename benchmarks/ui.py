"""How fast the web app answers its list of 200 runs.

    python benchmarks/ui.py [--runs 200] [--out FILE]

Makes run folders like those that a run writes (three stages, four domains), starts the app on a free loopback port
as `equipoise ui` does (it reads every run once before it says its address: that is part of the start), and asks for
the list: once right after the start (cold), then again (warm), then after one of the runs has changed. Times are those
of whole answers, in milliseconds. What that reading takes, with the writing of the page, is timed as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

REPEATS, STARTS = 15, 3
DOMAINS = ("tatqa", "mt_bench", "finance_instruct", "reddit")
RECIPE = Path(__file__).parents[1] / "recipes" / "pocket.yaml"


def make_runs(root: Path, runs: int) -> None:
    """Run folders with everything that the list looks at; every fifth lies in a study."""
    from equipoise.recipe_file import load_recipe, resolved
    from equipoise.run_folder import write_json, write_lines, write_text

    recipe = resolved(load_recipe(RECIPE))
    stages = [stage["name"] for stage in recipe["stages"]]
    row = {"before": 0.5, "after": 0.6, "difference": 0.1, "ci": [0.05, 0.15], "n": 100, "verdict": "improved"}
    rule = {"kind": "hold", "key": "tatqa", "threshold": 0.1, "outcome": "pass", "reason": "hold tatqa: shown " * 5}
    gate = {"outcome": "pass", "action": "keep", "flagged": False, "reasons": [rule["reason"]] * 4, "rows": [rule] * 4}
    verdict = {**dict.fromkeys(DOMAINS, row), "kept_stage": f"3-{stages[2]}", "point": f"3-{stages[2]}"}
    for number in range(runs):
        folder = root / ("study" if number % 5 == 0 else "") / f"run-{number:03d}"
        write_json(folder / "recipe.json", {**recipe, "seed": number})
        write_text(folder / "recipe.yaml", RECIPE.read_text())
        kinds = ("begin", "evaluate", *("stage", "reference", "training", "trained", "evaluate", "gate") * 3, "end")
        events = [{"time": 1.7e9 + number * 100 + k, "event": kind, "stage": stages[0]} for k, kind in enumerate(kinds)]
        write_lines(folder / "events.jsonl", events)
        write_json(folder / "verdict.json", {**verdict, "gates": [{"stage": f"1-{stages[0]}", **gate}] * 3})
        write_json(folder / "done", {"files": {}})


def start(root: Path) -> tuple[subprocess.Popen[str], str]:
    """The app in a process of its own, and its address."""
    command = [sys.executable, "-m", "equipoise", "ui", str(root), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.match(r"(http://127\.0\.0\.1:\d+)/", server.stdout.readline())
    assert found, "the app did not start"
    return server, found[1]


def reading(root: Path) -> float:
    """Milliseconds for reading every run from the start and writing the page."""
    from equipoise.ui.app import App

    taken = []
    for _ in range(STARTS):
        started = time.perf_counter()
        App(root).list_page()
        taken.append(1000 * (time.perf_counter() - started))
    return round(statistics.median(taken), 1)


def ask(address: str, runs: int) -> float:
    """Milliseconds of one whole answer; it must hold all runs."""
    started = time.perf_counter()
    with urllib.request.urlopen(address) as answer:
        text = answer.read().decode()
    taken = 1000 * (time.perf_counter() - started)
    assert text.count("run-") >= runs
    return taken


def measure(root: Path, runs: int) -> dict[str, Any]:
    """Cold (median over several starts), warm and changed times of the page and of its JSON."""
    cold: dict[str, list[float]] = {"/": [], "/api/runs": []}
    found: dict[str, Any] = {}
    for number in range(STARTS * len(cold)):
        path = list(cold)[number % len(cold)]
        server, address = start(root)
        try:
            cold[path].append(ask(address + path, runs))
            if number >= STARTS * len(cold) - len(cold):
                warm = [ask(address + path, runs) for _ in range(REPEATS)]
                changed = []
                for _ in range(REPEATS):
                    with (root / "run-001" / "events.jsonl").open("a") as file:
                        file.write(json.dumps({"time": 1.8e9, "event": "end"}) + "\n")
                    changed.append(ask(address + path, runs))
                found[path] = {"warm_ms": warm, "one_run_changed_ms": changed}
        finally:
            server.terminate()
            server.wait()
    return {
        path: {
            "cold_ms": round(statistics.median(cold[path]), 1),
            **{key: round(statistics.median(values), 1) for key, values in times.items()},
            "slowest_warm_ms": round(max(times["warm_ms"]), 1),
        }
        for path, times in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ui.json")
    arguments = parser.parse_args()
    machine = {"cores": os.cpu_count(), "load_1_minute": os.getloadavg()[0], "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as folder:
        make_runs(Path(folder), arguments.runs)
        found = measure(Path(folder), arguments.runs)
        read = reading(Path(folder))
    record = {"runs": arguments.runs, "answers": found, "reading_ms": read, "machine": machine}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print("| answer | cold | warm | one run changed |\n|---|---|---|---|")
    for path, times in found.items():
        print(f"| `{path}` | {times['cold_ms']} ms | {times['warm_ms']} ms | {times['one_run_changed_ms']} ms |")
    print(f"reading every run and writing the page: {read} ms")


if __name__ == "__main__":
    main()
