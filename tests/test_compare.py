"""Joining, verdicts, figures and sentences of `evaluation.compare`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from equipoise.evaluation.compare import compare, paired_values, verdict
from equipoise.evaluation.stats import paired
from equipoise.evaluation.stats_words import sentence
from equipoise.records import Comparison, Health, InputError, Score


def score(item: int | str, value: float | None, **changes: Any) -> Score:
    fields: dict[str, Any] = {
        "id": f"q{item}",
        "task": "mt_bench",
        "content": f"content of {item}",
        "group": f"g{item}",
        "category": "",
        "split": "test",
        "answers": ("an answer",),
        "health": Health(empty=False, cut_off=False, repeated=False, words=2),
        "value": value,
        "unscored": "no answer" if value is None else None,
    }
    return Score(**{**fields, **changes})


def scores(values: list[float | None], **changes: Any) -> list[Score]:
    return [score(i, value, **changes) for i, value in enumerate(values)]


WAVE = [0.3 * math.sin(i) for i in range(60)]


def shifted(by: float) -> dict[str, list[Score]]:
    return {"mt_bench": scores([by + x for x in WAVE])}


def base() -> dict[str, list[Score]]:
    return {"mt_bench": scores([0.0] * len(WAVE))}


@pytest.mark.parametrize(
    ("by", "margin", "expected"),
    [
        (0.5, None, "improved"),
        (-0.5, 0.1, "worse"),
        (0.0, 0.2, "held"),
        (0.0, 0.01, "undecided"),
        (0.0, None, "undecided"),
    ],
)
def test_verdicts(by: float, margin: float | None, expected: str) -> None:
    found = compare(base(), shifted(by), confidence=0.95, margins={"mt_bench": margin})["mt_bench"]
    assert (found.verdict, found.margin, found.n, found.unscored) == (expected, margin, 60, 0)
    assert found.difference == pytest.approx(by + sum(WAVE) / 60)
    assert found.after - found.before == pytest.approx(found.difference)


def test_the_figures_are_those_of_paired() -> None:
    after = [0.1 + x for x in WAVE]
    found, wanted = compare(base(), shifted(0.1))["mt_bench"], paired([0.0] * 60, after)
    assert (found.ci, found.p_value, found.detectable) == (wanted.ci, wanted.p_value, wanted.detectable)


def test_more_domains_need_more_evidence() -> None:
    by = 0.058 - sum(WAVE) / 60
    assert compare(base(), shifted(by))["mt_bench"].verdict == "improved"
    noise = {f"d{i}": base()["mt_bench"] for i in range(9)}
    found = compare({**base(), **noise}, {**shifted(by), **noise})["mt_bench"]
    assert found.p_holm == pytest.approx(10 * found.p_value)
    assert found.ci[0] > 0
    assert found.verdict == "undecided"
    assert "corrected for the number of domains" in sentence(found)


def test_verdict_at_the_borders() -> None:
    assert verdict((0.1, 0.2), 0.0501, None, 0.95) == "undecided"
    assert verdict((0.0, 0.2), 0.01, 0.0, 0.95) == "undecided"
    assert verdict((-0.1, 0.2), 1.0, 0.1, 0.95) == "undecided"
    assert verdict((-0.0999, 0.2), 1.0, 0.1, 0.95) == "held"
    assert verdict((-0.2, -0.1), 0.01, 0.5, 0.95) == "worse"


def test_order_does_not_matter_and_only_shared_items_count() -> None:
    left = scores([1.0, 2.0, 4.0, 8.0])
    right = [score(9, 100.0), *reversed(scores([2.0, 2.5, 5.0]))]
    found = compare({"d": left, "only_before": left}, {"d": right})
    assert list(found) == ["d"]
    assert found["d"].n == 3
    assert (found["d"].before, found["d"].after) == pytest.approx((7 / 3, 9.5 / 3))


def test_unscored_pairs_are_left_out_and_counted() -> None:
    found = compare({"d": scores([1.0, None, 3.0, 5.0])}, {"d": scores([2.0, 2.0, None, 7.0])})["d"]
    assert (found.n, found.unscored, found.difference) == (2, 2, 1.5)
    assert "on 2 questions (2 left out, unscored)" in sentence(found)


def test_groups_are_clusters() -> None:
    before, after = scores([0.0] * 60, group="x"), scores([0.5 + x for x in WAVE], group="x")
    with pytest.raises(InputError, match="d: all 60 items belong to one cluster"):
        compare({"d": before}, {"d": after})
    grouped = [score(i, 0.5 + x, group=f"g{i // 10}") for i, x in enumerate(WAVE)]
    base_grouped = [score(i, 0.0, group=f"g{i // 10}") for i in range(60)]
    wanted = paired([0.0] * 60, [0.5 + x for x in WAVE], clusters=[i // 10 for i in range(60)])
    assert compare({"d": base_grouped}, {"d": grouped})["d"].ci == wanted.ci


def test_metrics_and_health() -> None:
    healthy = Health(empty=False, cut_off=False, repeated=False, words=10)
    broken = Health(empty=False, cut_off=True, repeated=True, words=30)
    before = [score(i, 1.0, health=healthy, metrics={"correct": float(i), "f1": 1.0}) for i in range(4)]
    after = [
        score(i, 2.0, health=broken if i == 0 else healthy, metrics={"correct": float(i) + 1} if i else {})
        for i in range(4)
    ]
    found = compare({"d": before}, {"d": after})["d"]
    assert found.metrics == {"correct": (2.0, 3.0)}  # on the three items that have it on both sides
    assert found.health == {
        "empty": (0.0, 0.0),
        "cut_off": (0.0, 0.25),
        "repeated": (0.0, 0.25),
        "switched": (0.0, 0.0),
        "length": (10.0, 15.0),
    }


def test_further_metric_instead_of_the_value() -> None:
    before = [score(i, None, metrics={"correct": 0.0}) for i in range(30)]
    after = [score(i, 1.0, metrics={"correct": float(i % 3 > 0)} if i else {}) for i in range(30)]
    found = compare({"d": before}, {"d": after}, metric="correct")["d"]
    assert (found.n, found.unscored) == (29, 1)
    assert found.difference == pytest.approx(20 / 29)
    assert paired_values(before, after, "correct").unscored == 1
    assert paired_values(before, after).ids == ()


def test_refuses_changed_items_by_name() -> None:
    after = [score(i, 1.0, content="other" if i in (1, 2, 3, 4, 5) else f"content of {i}") for i in range(8)]
    with pytest.raises(InputError, match=r"d: 5 of 8 shared items differ in content \(q1, q2, q3 and 2 more\)"):
        compare({"d": scores([1.0] * 8)}, {"d": after})


def test_refuses_what_shares_nothing() -> None:
    with pytest.raises(InputError, match=r"d: no shared item among 1 before \(q1\) and 1 after \(q2\)"):
        compare({"d": [score(1, 1.0)]}, {"d": [score(2, 1.0)]})
    with pytest.raises(InputError, match="no shared domain: a before, none after"):
        compare({"a": [score(1, 1.0)]}, {})
    with pytest.raises(InputError, match="more than once before: q1"):
        compare({"d": [score(1, 1.0), score(1, 2.0)]}, {"d": [score(1, 1.0)]})
    with pytest.raises(InputError, match=r"d: 1 item: a comparison needs at least 2 \(1 shared items are unscored\)"):
        compare({"d": scores([1.0, None])}, {"d": scores([1.0, 1.0])})


def comparison(**changes: Any) -> Comparison:
    fields: dict[str, Any] = {
        "domain": "mt_bench",
        "before": 5.0,
        "after": 5.41,
        "difference": 0.41,
        "ci": (0.20, 0.62),
        "p_value": 0.001,
        "p_holm": 0.004,
        "n": 120,
        "unscored": 0,
        "detectable": 0.3,
        "margin": None,
        "verdict": "improved",
        "health": {},
        "metrics": {},
    }
    return Comparison(**{**fields, **changes})


def test_sentences() -> None:
    improved = "mt_bench: +0.41 (95% interval +0.20 to +0.62) on 120 questions: improved"
    assert sentence(comparison()) == improved
    undecided = comparison(difference=0.1, ci=(-0.12, 0.32), p_value=0.3, n=48, detectable=0.31, verdict="undecided")
    assert sentence(undecided, wished=0.15) == (
        "mt_bench: +0.10 (95% interval -0.12 to +0.32) on 48 questions: undecided; "
        "with 48 questions a change below 0.31 cannot be seen; about 210 would be needed for 0.15"
    )
    assert "; about 190 would be needed for 0.15" in sentence(
        replace(undecided, detectable=0.3)
    )  # half of what can be seen, where nothing is wished
    held = comparison(difference=-0.001, ci=(-0.0042, 0.0022), verdict="held", margin=0.01)
    assert sentence(held, confidence=0.9) == (
        "mt_bench: -0.0010 (90% interval -0.0042 to +0.0022) on 120 questions: held "
        "(a loss of 0.01 or more is excluded)"
    )
    wide = comparison(difference=-0.2, ci=(-31.0, 30.0), margin=50.0, detectable=40.0, verdict="undecided")
    assert sentence(wide).endswith("a change below 40 cannot be seen, one of 50 can, and the interval leaves it open")
    assert ": 0 (95% interval -31 to +30)" in sentence(wide)
