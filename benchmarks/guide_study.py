"""The figures of docs/guide-progressive.md: one value changed at a time, beside the runs that `make study` leaves.

    python benchmarks/guide_study.py recipes runs/twins runs/guide/recipes     # write the changed recipes
    python benchmarks/guide_study.py tables runs/study runs/guide [--write]    # the tables, once they have run

`make guide` does all of it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study_tables import SUFFIX, cell, filled, long, rounded, table

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "results" / "guide_study.json"
PAGE = ROOT / "docs" / "guide-progressive.md"
MIXED, STAGED, SINGLE = "4-hybrid-3way", "8-progressive-3stage-ungated", "1-pure-reddit"
REPLAY = "{share: 0.25}"
CHANGES: dict[str, tuple[str, list[str]]] = {
    "beta-0.005": (MIXED, ["stages.0.dpo.beta=0.005"]),
    "beta-0.1": (MIXED, ["stages.0.dpo.beta=0.1"]),
    "beta-0.5": (MIXED, ["stages.0.dpo.beta=0.5"]),
    "rate-2.5e-4": (MIXED, ["stages.0.optim.learning_rate=2.5e-4"]),
    "rate-2e-3": (MIXED, ["stages.0.optim.learning_rate=2e-3"]),
    "general-none": (MIXED, ["stages.0.mix.shares={reddit: 0.57, finance: 0.43}"]),
    "general-0.6": (MIXED, ["stages.0.mix.shares={reddit: 0.23, finance: 0.17, general: 0.6}"]),
    "replay-0.25": (STAGED, [f"stages.1.replay={REPLAY}", f"stages.2.replay={REPLAY}"]),
    "shrunk": (
        SINGLE,
        [
            "stages.0.gate={hold: {mt_bench: 0.2, finance_instruct: 0.2}, on_fail: rollback, on_undecided: rollback, "
            "shrink: true}"
        ],
    ),
}
"""Each changed recipe: the one that it was made of, and what is set in it."""
ITEMS = (25, 50, 100, 250, 500, 1000)


def write_recipes(twins: Path, out: Path) -> None:
    """Write the changed recipes."""
    from equipoise.recipe_file import load_recipe
    from equipoise.recipe_text import plain_recipe, recipe_text

    out.mkdir(parents=True, exist_ok=True)
    for name, (origin, changes) in CHANGES.items():
        recipe = load_recipe(twins / f"{origin}.yaml", [f"name={name}", *changes])
        question = f"What does {origin} become with {', '.join(changes)}?"
        (out / f"{name}.yaml").write_text(recipe_text(plain_recipe(recipe), question))


def collect(study: Path, guide: Path) -> dict[str, Any]:
    """Everything that the page says, from the folders of both studies."""
    from equipoise.study.board_json import board_record
    from equipoise.study.entrants import read_entrants
    from equipoise.study.leaderboard import make_board
    from equipoise.study.versus import versus, versus_record

    origins = sorted({long(origin) for origin, _ in CHANGES.values()})
    runs = sorted(path for origin in origins for path in study.glob(f"{origin}-seed*"))
    entrants = read_entrants([*runs, guide])
    board = make_board(entrants)
    compared = {}
    for name, (origin, _) in CHANGES.items():
        rows = versus_record(versus(board, long(origin)), long(origin))["rows"]
        compared[name] = next(row for row in rows if row["name"] == name)
    rows = {row["name"]: row for row in board_record(board)["rows"]}
    return rounded(
        {
            "gains": {name: {**rows[name]["domains"], "overall": rows[name]["overall"]} for name in rows},
            "feasible": {name: rows[name]["feasible"] for name in rows},
            "differences": compared,
            "kept": {one.name: list(one.kept) for one in entrants.rows},
            "margins": {one.name: max(map(largest_margin, one.folders)) for one in entrants.rows},
            "scales": [scale_of(path) for path in sorted(guide.glob("shrunk-seed*"))],
            "spread": spread(entrants),
        }
    )


def largest_margin(run: Path) -> float:
    """The largest mean margin of a step, in reward units (beta times the log-ratio)."""
    logs = run.glob("stages/*/train.jsonl")
    return max(abs(json.loads(line)["margin"]) for log in logs for line in log.read_text().splitlines())


def scale_of(run: Path) -> float | None:
    """The scale at which the adapter of a run with one stage was kept; None where it was not."""
    (gate,) = json.loads((run / "verdict.json").read_text())["gates"]
    return float(gate["scale"]) if gate["action"] == "keep" else None


def spread(entrants: Any) -> dict[str, float]:
    """Standard deviation over items of the change of a score, by domain: the median of all runs."""
    return {
        name: float(
            np.median([np.nanstd(row, ddof=1) for one in entrants.rows for row in one.after[name] - one.before[name]])
        )
        for name in entrants.domains
    }


def detectable(deviation: float, items: int) -> float:
    """The smallest true change that a two-sided test at 5% sees with 80% power: (1.96 + 0.84) s / sqrt(n)."""
    return 2.80 * deviation / items**0.5


def tables(data: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by name."""
    domains = [name for name in next(iter(data["gains"].values())) if name != "overall"]
    heads = ["recipe", *domains, "overall"]

    def gains(names: Sequence[str], *, margins: bool = False) -> str:
        rows = [[name.replace(SUFFIX, ""), *(cell(data["gains"][name][key]) for key in heads[1:])] for name in names]
        if not margins:
            return table(heads, rows)
        wide = [[*row, f"{data['margins'][name]:.2f}"] for row, name in zip(rows, names, strict=True)]
        return table([*heads, "largest margin of a step"], wide)

    def changed(names: Sequence[str]) -> str:
        found = data["differences"]
        return table(
            ["changed", *heads[1:]],
            [
                [name, *(cell(found[name]["domains"][key]) for key in domains), cell(found[name]["overall"])]
                for name in names
            ],
        )

    mixed = long(MIXED)
    return {
        "beta": gains(["beta-0.005", mixed, "beta-0.1", "beta-0.5"], margins=True),
        "rate": gains(["rate-2.5e-4", mixed, "rate-2e-3"]),
        "shares": gains([long(SINGLE), "general-none", mixed, "general-0.6"]),
        "general": changed(["general-none", "general-0.6"]),
        "replay": changed(["replay-0.25"]),
        "shrink": gains([long(SINGLE), "shrunk"]),
        "items": table(
            ["domain", "spread of changes", *(f"n = {n}" for n in ITEMS)],
            [[name, f"{s:.2f}", *(f"{detectable(s, n):.2f}" for n in ITEMS)] for name, s in data["spread"].items()],
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["recipes", "tables"])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--write", action="store_true", help="Commit these figures.")
    given = parser.parse_args()
    if given.action == "recipes":
        return write_recipes(given.first, given.second)
    data = collect(given.first, given.second)
    for name, text in tables(data).items():
        print(f"\n{name}\n\n{text}")
    if given.write:
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(filled(PAGE, tables(data)))
    return None


if __name__ == "__main__":
    main()
