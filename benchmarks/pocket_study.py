"""The figures of docs/pocket-study.md, from the study that `make study` leaves in runs/study.

python benchmarks/pocket_study.py runs/study            # the tables, and how far they are from the committed ones
    python benchmarks/pocket_study.py runs/study --write    # commit these: benchmarks/results and the page
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from study_tables import SUFFIX, cell, filled, long, rounded, table

ROOT = Path(__file__).parents[1]
DATA = ROOT / "benchmarks" / "results" / "pocket_study.json"
PAGE = ROOT / "docs" / "pocket-study.md"
QUESTIONS = (
    ("Stages against one mixture of the same size", "7-progressive-2stage-ungated", "7-progressive-2stage-one-mixture"),
    ("Stages against one mixture of the same size", "8-progressive-3stage-ungated", "8-progressive-3stage-one-mixture"),
    ("The order of the stages", "7-progressive-2stage-ungated", "7-progressive-2stage-reversed"),
    ("The order of the stages", "8-progressive-3stage-ungated", "8-progressive-3stage-reversed"),
    ("What the gates changed", "7-progressive-2stage", "7-progressive-2stage-ungated"),
    ("What the gates changed", "8-progressive-3stage", "8-progressive-3stage-ungated"),
    ("A mix against one source, same steps", "3-hybrid-2way", "1-pure-reddit"),
    ("A mix against one source, same steps", "4-hybrid-3way", "1-pure-reddit"),
    ("Flipped preferences", "4-hybrid-3way-flipped", "4-hybrid-3way"),
    ("Flipped preferences", "6-balanced-flipped", "6-balanced"),
    ("Flipped preferences", "7-progressive-2stage-flipped", "7-progressive-2stage-ungated"),
    ("Flipped preferences", "8-progressive-3stage-flipped", "8-progressive-3stage-ungated"),
)
"""What is asked, which recipe, and which it is compared with."""


def collect(study: Path) -> dict[str, Any]:
    """Everything that the page says, from the study's folder."""
    from equipoise.study.board_json import board_record
    from equipoise.study.entrants import read_entrants
    from equipoise.study.leaderboard import make_board
    from equipoise.study.versus import versus, versus_record

    state = json.loads((study / "study.json").read_text())
    board = make_board(read_entrants([study]))
    record = board_record(board)
    rows = [{key: value for key, value in row.items() if key != "runs"} for row in record.pop("rows")]
    compared = {}
    for _, one, other in QUESTIONS:
        found = versus_record(versus(board, long(other)), long(other))
        compared[f"{one} - {other}"] = next(row for row in found["rows"] if row["name"] == long(one))
    done = [row for row in state["rows"] if row["state"] == "done"]
    return rounded(
        {
            "totals": state["totals"],
            "failed": [row["name"] for row in state["rows"] if row["state"] == "failed"],
            "kept": count((row["recipe"], row["kept_stage"]) for row in done),
            "gates": count(gate for row in done for gate in gates_of(study / row["name"], row["recipe"])),
            "one_seed": count(
                (verdicts_of(study / row["name"])[domain], pooled["domains"][domain]["verdict"])
                for pooled in rows
                for row in done
                if row["recipe"] == pooled["name"]
                for domain in pooled["domains"]
            ),
            "board": {**record, "rows": rows},
            "differences": compared,
        }
    )


def verdicts_of(run: Path) -> dict[str, str]:
    """What a run by itself says of each domain."""
    found = json.loads((run / "verdict.json").read_text())
    return {name: said["verdict"] for name, said in found.items() if isinstance(said, dict) and "verdict" in said}


def gates_of(run: Path, recipe: str) -> list[tuple[str, str, int, str]]:
    """The decisions of a run: recipe, stage, the number of rules, and what was found and done."""
    gates = json.loads((run / "verdict.json").read_text())["gates"]
    return [(recipe, gate["stage"], len(gate["rows"]), f"{gate['outcome']}: {gate['action']}") for gate in gates]


def count(keys: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """How often each key occurs, in their order."""
    return [[*key, number] for key, number in sorted(Counter(keys).items())]


def tables(data: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page by name."""
    domains = list(data["board"]["domains"])
    gains = [
        [
            row["name"].replace(SUFFIX, ""),
            *(cell(row["domains"][name]) for name in domains),
            cell(row["overall"]),
            "yes" if row["feasible"] else f"no: {', '.join(row['worse_in'])}",
            row["letters"],
        ]
        for row in data["board"]["rows"]
    ]
    asked = [
        [
            title,
            f"{one} − {other}",
            *(cell(data["differences"][f"{one} - {other}"]["domains"][name]) for name in domains),
            cell(data["differences"][f"{one} - {other}"]["overall"]),
        ]
        for title, one, other in QUESTIONS
    ]
    gates = [[row[0].replace(SUFFIX, ""), *row[1:]] for row in data["gates"] if row[2]]
    return {
        "gains": table(["recipe", *domains, "overall", "feasible", "tied"], gains),
        "differences": table(["question", "compared", *domains, "overall"], asked),
        "seeds": one_seed(data["one_seed"]),
        "gates": table(["recipe", "stage", "rules", "found: done", "of 5 seeds"], gates),
        "cost": cost(data["totals"]),
    }


def one_seed(counts: list[list[Any]]) -> str:
    """How often the verdict of a single run is that of five."""
    said = {(one, all_): number for one, all_, number in counts}
    verdicts = ["improved", "held", "undecided", "worse"]
    used = [name for name in verdicts if any(name in key for key in said)]
    rows = [[one, *(said.get((one, all_), 0) for all_ in used)] for one in used]
    return table(["one run says", *(f"five say {name}" for name in used)], rows)


def cost(totals: Mapping[str, Any]) -> str:
    """Where the time of the study went."""
    rows = [
        ["runs", f"{totals['done']} done, {totals['failed']} failed"],
        ["process time of all runs", f"{totals['seconds'] / 60:.1f} min"],
        ["training, reference included", f"{totals['training_seconds'] / 60:.1f} min"],
        ["generation and scoring", f"{totals['measuring_seconds'] / 60:.1f} min"],
        ["all else", f"{totals['other_seconds'] / 60:.1f} min ({totals['overhead']:.1%})"],
        [
            "reference log-probabilities",
            f"{totals['reference_computed']} computed, {totals['reference_reused']} reused",
        ],
        ["scores of the base model", f"computed by {totals['base_scores_computed']} of {totals['done']} runs"],
    ]
    return table(["", ""], rows)


def furthest(data: Mapping[str, Any], committed: Mapping[str, Any]) -> str:
    """By how much the gains differ from the committed ones, and whether any leaves its interval."""
    before = {row["name"]: row["domains"] for row in committed["board"]["rows"]}
    apart, outside = 0.0, []
    for row in data["board"]["rows"]:
        for domain, effect in row["domains"].items():
            old = before[row["name"]][domain]
            apart = max(apart, abs(effect["difference"] - old["difference"]))
            if not old["ci"][0] <= effect["difference"] <= old["ci"][1]:
                outside.append(f"{row['name']} {domain}")
    return (
        f"largest difference to a committed gain: {apart:.5f}; outside of its interval: {', '.join(outside) or 'none'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--write", action="store_true", help="Commit these figures.")
    given = parser.parse_args()
    data = collect(given.study)
    for name, text in tables(data).items():
        print(f"\n{name}\n\n{text}")
    if DATA.is_file():
        print("\n" + furthest(data, json.loads(DATA.read_text())))
    if given.write:
        DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
        PAGE.write_text(filled(PAGE, tables(data)))


if __name__ == "__main__":
    main()
