"""TAT-QA exact match and F1: agreement with the published evaluator, and worked examples by hand."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from equipoise.evaluation.tasks.tatqa_metric import exact_match_and_f1


def score(prediction: Any, scale: str | None, gold: Any, gold_scale: str, kind: str) -> tuple[float, float]:
    return exact_match_and_f1(prediction, scale, gold_answer=gold, answer_type=kind, gold_scale=gold_scale)


def test_every_row_of_the_published_evaluator(real_data: Path) -> None:
    path = real_data / "tatqa" / "official_scores.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    wrong = [
        (row["uid"], row["case"], row["pred_answer"], got)
        for row in rows
        if (
            got := score(
                row["pred_answer"],
                row["pred_scale"],
                row["gold_answer"],
                row["gold_scale"],
                row["answer_type"],
            )
        )
        != (row["em"], row["f1"])
    ]
    assert len(rows) > 1000
    assert wrong == []


@pytest.mark.parametrize(
    ("prediction", "scale", "gold", "gold_scale", "right"),
    [
        (12.6, "million", 12.6, "million", True),
        ("12.6 million", "", 12.6, "million", True),
        ("$12,600,000", "", 12.6, "million", True),
        ("12.6", "Millions", 12.6, "million", True),
        (["12.60"], "million", 12.6, "million", True),
        ("12.6", "", 12.6, "million", False),
        ("12.6", "billion", 12.6, "million", False),
        ("12.6 million", "million", 12.6, "million", False),  # the scale said twice
        (12.604, "million", 12.6, "million", True),
        (12.606, "million", 12.6, "million", False),
        (0.2342, "", 23.42, "percent", True),
        ("23.42%", "", 23.42, "percent", True),
        ("23.42%", "percent", 23.42, "percent", True),
        ("23.42", "percentage", 23.42, "percent", True),
        (0.2342, "percent", 23.42, "percent", False),
        ("(12.6)", "million", -12.6, "million", True),
        ("$(12.6)", "million", -12.6, "million", True),
        ("(1,234)", "", 1234, "", True),  # a quirk: a comma hides the brackets
        ("(2.87%)", "", 2.87, "percent", True),  # and so does a percent sign
        ("\u221212.6", "million", -12.6, "million", False),
        ("- 12.6", "million", -12.6, "million", False),
        ("about 12.6", "million", 12.6, "million", False),
        ("12.6 dollars", "million", 12.6, "million", False),
        ("0", "percent", 0, "percent", True),
        (0, "percent", 0, "percent", False),  # the number 0 is "no answer"
    ],
)
def test_numbers(prediction: Any, scale: str, gold: float, gold_scale: str, right: bool) -> None:
    assert score(prediction, scale, gold, gold_scale, "arithmetic") == (float(right), float(right))


@pytest.mark.parametrize("prediction", [2, 2.0, "2", "2.0", "2.", ["2"], [2]])
def test_count(prediction: Any) -> None:
    assert score(prediction, "", "2", "", "count") == (1.0, 1.0)
    assert score(prediction, "million", "2", "", "count") == (0.0, 0.0)
    assert score(prediction, "", "3", "", "count") == (0.0, 0.0)


def test_spans() -> None:
    gold = ["The annual basis"]
    assert score("annual BASIS.", "", gold, "", "span") == (1.0, 1.0)
    # {annual} against {annual, basis}: precision 1, recall 1/2
    assert score("annual", "", gold, "", "span") == (0.0, 0.67)
    assert score("basis annual", "", gold, "", "span") == (0.0, 1.0)
    assert score("nothing shared", "", gold, "", "span") == (0.0, 0.0)
    # the scale word joins the text: {annual, basis, percent}, precision 2/3, recall 1
    assert score("annual basis", "percent", gold, "", "span") == (0.0, 0.8)


def test_several_spans_are_one_sorted_bag() -> None:
    gold = ["2019", "2018"]
    assert score(["2018", "2019"], "", gold, "", "multi-span") == (1.0, 1.0)
    assert score(["2018"], "", gold, "", "multi-span") == (0.0, 0.67)
    assert score(["2018", "2019", "2020"], "", gold, "", "multi-span") == (0.0, 0.8)
    # a quirk: a joined text is not a number, so `2018` and `2018.0` differ
    assert score("2018 and 2019", "", gold, "", "multi-span") == (0.0, 0.0)


@pytest.mark.parametrize("prediction", ["", [], None, 0, 0.0])
@pytest.mark.parametrize("kind", ["span", "arithmetic"])
def test_no_answer_scores_zero(prediction: Any, kind: str) -> None:
    gold = ["5"] if kind == "span" else 5
    assert score(prediction, None, gold, "", kind) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("gold", "kind", "scale"),
    [
        (["5"], "sum", ""),
        (["5"], "span", "dozen"),
        (["5"], "span", None),
        ("5", "span", ""),
        ([], "multi-span", ""),
        ([None], "span", ""),
        ([5], "arithmetic", ""),
        ("about 5", "arithmetic", ""),
        (float("nan"), "arithmetic", ""),
        (None, "arithmetic", ""),
        ("2.5", "count", ""),
        ("two", "count", ""),
        (True, "count", ""),
    ],
)
@pytest.mark.parametrize("prediction", ["5", None])
def test_malformed_gold_is_refused(prediction: Any, gold: Any, kind: str, scale: Any) -> None:
    with pytest.raises(ValueError, match=r"gold|answer type"):
        score(prediction, "", gold, scale, kind)


@pytest.mark.parametrize(
    "prediction",
    [
        "7" * 100_000,
        "[" * 100_000,
        "( 1" * 30_000,
        ". " * 50_000,
        "\ud800 5",
        "\x00",
        "inf",
        "nan",
        ".5",
        "1e999",
        10**400,
        -(10**250),
        float("inf"),
        float("nan"),
        True,
        [None],
        ["5", 5],
        [[5]],
    ],
)
def test_odd_predictions_are_wrong_but_no_accident(prediction: Any) -> None:
    start = time.perf_counter()
    for scale in ("", "percent", "billion"):
        assert score(prediction, scale, 3.25, "million", "arithmetic") == (0.0, 0.0)
        exact, f1 = score(prediction, scale, ["the third item"], "", "span")
        assert (exact, f1) == (0.0, 0.0)
    assert time.perf_counter() - start < 10  # linear in the length; a quadratic pattern would take minutes
