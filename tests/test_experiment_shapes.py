"""The shapes of the eight original experiments, on files in the layouts of the real data sets: drawn is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from experiments import equipoise, write_rows

SHAPES: dict[str, list[dict[str, int]]] = {
    "1-pure-reddit": [{"reddit": 22585}],
    "3-hybrid-2way": [{"reddit": 15809, "finance": 2000}],
    "4-hybrid-3way": [{"reddit": 9034, "finance": 2000, "general": 3000}],
    "5-optimized-2way": [{"reddit": 13551, "finance": 1500}],
    "6-balanced": [{"reddit": 7528, "finance": 1800}],
    "7-progressive-2stage": [{"general": 800}, {"reddit": 5958, "finance": 1600}],
    "8-progressive-3stage": [{"general": 800}, {"finance": 1200}, {"reddit": 353, "finance": 151}],
}
DESIGNED = {
    "3-hybrid-2way": (17809, {"reddit": 0.7, "finance": 0.3}),
    "6-balanced": (9328, {"reddit": 0.5, "finance": 0.5}),
}
WORDS = [
    f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu", "ha", "ki", "lo") for b in ("nd", "rt", "sh", "ck", "mp", "lt")
]


def said(random: Random, n: int) -> str:
    return " ".join(random.choices(WORDS, k=n)).capitalize() + "."


def posts(n: int, random: Random) -> Iterator[dict[str, Any]]:
    """Posts with two comments whose scores really differ, the longer one better in half of them."""
    for number in range(n):
        post = {
            "id": f"p{number}",
            "title": said(random, 5),
            "selftext": said(random, 30),
            "subreddit": f"s{number % 5}",
        }
        for good in (False, True):
            score = random.uniform(0.6, 0.9) if good else random.uniform(0.01, 0.1)
            scores = {"z_score": 1.0, "normalized_score": 0.5, "comment_normalized_score": score}
            yield {**post, "body": said(random, 12 + random.randrange(6)), **scores, "combined_score": 0.5 + score}


def make_files(folder: Path, largest: dict[str, int], seed: int = 0) -> None:
    random = Random(seed)
    write_rows(folder / "reddit.jsonl", list(posts(round(1.3 * largest["reddit"]) + 40, random)))
    write_rows(
        folder / "finance.jsonl",
        [
            {
                "system": "",
                "user": f"What profit did {said(random, 6)[:-1]} make?",
                "assistant": f"The profit was {n + 2}.5 million dollars in {1990 + n % 30}.",
            }
            for n in range(largest["finance"] + 20)
        ],
    )
    write_rows(
        folder / "general.jsonl",
        [
            {
                "system": "Be kind.",
                "question": f"Tell me of {said(random, 8)}",
                "chosen": said(random, 9),
                "rejected": said(random, 9),
            }
            for _ in range(largest["general"] + 20)
        ],
    )


def recipe_of(folder: Path, mixes: list[str]) -> str:
    stages = "\n".join(
        f"  - {{name: s{n}, mix: {mix}, dpo: {{max_length: 512, max_prompt_length: 384}}}}"
        for n, mix in enumerate(mixes)
    )
    return f"""\
# Is what is asked what is drawn?
name: shape
model: {{id: pocket}}
reward: {{id: pocket}}
sources:
  reddit: {{kind: reddit, id: {folder}/reddit.jsonl}}
  finance: {{kind: finance_instruct, id: {folder}/finance.jsonl, rejected: corrupted}}
  general: {{kind: orca, id: {folder}/general.jsonl}}
stages:
{stages}
evaluation:
  tasks: {{reddit: {{id: pocket, limit: 12}}}}
"""


def check(folder: Path, scale: int) -> None:
    """Ledgers of all shapes, at the counts that were trained on and at the shares that were meant."""
    shapes = {
        name: [{source: -(-count // scale) for source, count in stage.items()} for stage in stages]
        for name, stages in SHAPES.items()
    }
    stages = [stage for found in shapes.values() for stage in found]
    largest = {source: max(stage.get(source, 0) for stage in stages) for source in ("reddit", "finance", "general")}
    largest["finance"] = max(largest["finance"], *(round(n * s["finance"] / scale) + 2 for n, s in DESIGNED.values()))
    make_files(folder, largest)
    for name, found in shapes.items():
        ledger = ledger_of(folder, [json.dumps(stage) for stage in found])
        lines = [ledger["stages"][f"s{n}"]["sources"] for n in range(len(found))]
        assert [{source: line["drawn"] for source, line in stage.items()} for stage in lines] == found, name
        assert ledger["problems"] == []
    for pairs, shares in DESIGNED.values():
        ledger = ledger_of(folder, [json.dumps({"pairs": pairs // scale, "shares": shares})])
        lines = ledger["stages"]["s0"]["sources"]
        assert sum(line["drawn"] for line in lines.values()) == pairs // scale
        for source, share in shares.items():
            assert abs(lines[source]["drawn"] - share * (pairs // scale)) < 1


def ledger_of(folder: Path, mixes: list[str]) -> dict[str, Any]:
    (folder / "recipe.yaml").write_text(recipe_of(folder, mixes))
    done = equipoise("data", folder / "recipe.yaml", "--json", cache=folder / "cache")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_one_shape_and_a_short_one_which_says_why(tmp_path: Path) -> None:
    make_files(tmp_path, {"reddit": 60, "finance": 20, "general": 30})
    ledger = ledger_of(tmp_path, ['{"reddit": 45, "finance": 15, "general": 15}'])
    assert {source: line["drawn"] for source, line in ledger["stages"]["s0"]["sources"].items()} == {
        "reddit": 45,
        "finance": 15,
        "general": 15,
    }
    (tmp_path / "recipe.yaml").write_text(
        recipe_of(tmp_path, ['{"pairs": 400, "shares": {"reddit": 0.1, "finance": 0.9}}'])
    )
    done = equipoise("data", tmp_path / "recipe.yaml", cache=tmp_path / "cache")
    assert done.returncode == 2
    assert "stage s0: source finance: 360 pairs asked," in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_all_shapes_at_a_twentieth(tmp_path: Path) -> None:
    check(tmp_path, 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_shapes_in_full(tmp_path: Path) -> None:
    check(tmp_path, 1)
