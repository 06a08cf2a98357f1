"""Every outcome and every action of `evaluation.gate`."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from equipoise.evaluation.gate import Outcome, decide, may_shrink, require_percentages, vacuous
from equipoise.recipe import Gate
from equipoise.records import Health, InputError, Score
from test_compare import score, scores

N = 60
WAVE = [0.3 * math.sin(i) for i in range(N)]  # mean near 0; the interval reaches about 0.055 to each side


def pair(by: float) -> tuple[dict[str, list[Score]], dict[str, list[Score]]]:
    return {"d": scores([0.0] * N)}, {"d": scores([by + x for x in WAVE])}


@pytest.mark.parametrize(
    ("rule", "by", "outcome"),
    [
        ({"improve": {"d": 0.0}}, 0.2, "pass"),
        ({"improve": {"d": 0.0}}, 0.0, "undecided"),
        ({"improve": {"d": 0.0}}, -0.2, "fail"),
        ({"improve": {"d": 0.5}}, 0.2, "fail"),
        ({"hold": {"d": 0.1}}, 0.0, "pass"),
        ({"hold": {"d": 0.1}}, -0.1, "undecided"),
        ({"hold": {"d": 0.1}}, -0.2, "fail"),
        ({"hold": {"d": 0.0}}, 0.2, "pass"),
    ],
)
def test_outcomes(rule: dict[str, Any], by: float, outcome: str) -> None:
    result = decide(*pair(by), Gate(**rule))
    assert result.outcome == outcome
    (row,) = result.rows
    assert row.difference == pytest.approx(by + sum(WAVE) / N)
    assert row.ci is not None and row.difference is not None
    assert row.ci[0] < row.difference < row.ci[1]
    assert row.n == N


@pytest.mark.parametrize(
    ("by", "settings", "action", "flagged"),
    [
        (0.2, {}, "keep", False),
        (-0.2, {}, "rollback", False),
        (-0.2, {"on_fail": "stop"}, "stop", False),
        (-0.2, {"on_fail": "continue"}, "keep", True),
        (0.0, {}, "keep", True),
        (0.0, {"on_undecided": "stop"}, "stop", False),
        (0.0, {"on_undecided": "rollback"}, "rollback", False),
    ],
)
def test_actions(by: float, settings: dict[str, Any], action: str, flagged: bool) -> None:
    result = decide(*pair(by), Gate(improve={"d": 0.0}, **settings))
    assert (result.action, result.flagged) == (action, flagged)


def test_one_failure_outweighs_all_and_the_reasons_name_it() -> None:
    before, after = pair(-0.2)
    before["e"], after["e"] = scores([0.0] * N), scores([0.5 + x for x in WAVE])
    result = decide(before, after, Gate(improve={"e": 0.0}, hold={"d": 0.01}))
    assert [row.outcome for row in result.rows] == ["pass", "fail"]
    assert result.outcome == "fail"
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith("hold d: -0.19 (95% interval -0.25 to -0.14)")
    assert result.reasons[0].endswith("on 60 questions: a loss of less than 0.01 is refuted")


def test_confidence_is_that_of_the_gate() -> None:
    low, high = (decide(*pair(0.065), Gate(improve={"d": 0.0}, confidence=c)) for c in (0.9, 0.999))
    assert (low.outcome, high.outcome) == ("pass", "undecided")


def test_no_rules() -> None:
    result = decide({}, {}, Gate())
    assert (result.outcome, result.action, result.flagged, result.reasons) == (
        "pass",
        "keep",
        False,
        ("no rules",),
    )


def test_metric_of_a_domain() -> None:
    before = {"d": [score(i, 1.0, metrics={"correct": 0.0}) for i in range(30)]}
    after = {"d": [score(i, 0.0, metrics={"correct": float(i % 2)}) for i in range(30)]}
    result = decide(before, after, Gate(improve={"d.correct": 0.1}))
    assert (result.outcome, result.rows[0].key) == ("pass", "d.correct")
    with pytest.raises(InputError, match=r"gate.improve.d.f1: no item has the metric 'f1' .known: correct"):
        decide(before, after, Gate(improve={"d.f1": 0.1}))


def test_domain_without_scores_is_named() -> None:
    before, after = pair(0.0)
    with pytest.raises(InputError, match=r"gate.hold.e: there are no scores of 'e' before the stage"):
        decide(before, after, Gate(hold={"e": 0.1}))
    with pytest.raises(InputError, match=r"gate.health.d.empty: there are no scores of 'd' after the stage"):
        decide(before, {}, Gate(health={"d.empty": 0.1}))


def test_too_few_scored_items_are_undecided() -> None:
    before, after = {"d": scores([1.0, None])}, {"d": scores([2.0, 2.0])}
    result = decide(before, after, Gate(improve={"d": 0.0}, on_undecided="rollback"))
    assert (result.outcome, result.action, result.rows[0].unscored) == ("undecided", "rollback", 1)
    assert "a comparison needs at least 2" in result.reasons[0]


def with_health(values: list[tuple[bool, int]]) -> list[Score]:
    return [
        score(i, 1.0, health=Health(empty=empty, cut_off=False, repeated=False, words=words))
        for i, (empty, words) in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("limits", "outcome"),
    [
        ({"d.empty": 0.25}, "pass"),
        ({"d.empty": 0.24}, "fail"),
        ({"d.length": 2.0}, "pass"),
        ({"d.length": 1.9}, "fail"),
        ({"d.repeated": 0.0}, "pass"),
        ({"d.repeated": 0.0, "d.length": 1.0}, "fail"),
    ],
)
def test_health_rules(limits: dict[str, float], outcome: str) -> None:
    before = {"d": with_health([(False, 10)] * 4)}
    after = {"d": with_health([(False, 20)] * 3 + [(True, 20)])}
    result = decide(before, after, Gate(health=limits))
    assert result.outcome == outcome
    assert result.rows[-1].figure is not None


def test_length_where_nothing_was_said_before() -> None:
    before, after = {"d": with_health([(True, 0)] * 2)}, {"d": with_health([(False, 3)] * 2)}
    assert decide(before, after, Gate(health={"d.length": 1.5})).rows[0].figure == 3.0


def test_record_is_json() -> None:
    before, after = pair(-0.2)
    record = decide(before, after, Gate(hold={"d": 0.1}, health={"d.empty": 0.5})).record()
    read = json.loads(json.dumps(record, allow_nan=False))
    assert read["outcome"] == "fail"
    assert read["action"] == "rollback"
    assert [row["kind"] for row in read["rows"]] == ["hold", "health"]
    assert read["rows"][0].keys() >= {"key", "threshold", "difference", "ci", "n", "outcome", "reason"}


def test_vacuous_gates() -> None:
    floor, ceiling = [0.0] * 99 + [1.0], [1.0] * 99 + [0.0]
    base = {
        "floor": scores(list(floor)),
        "ceiling": scores(list(ceiling)),
        "same": scores([3.5] * 10),
        "fine": scores([0.0, 1.0] * 10),
        "metric": [score(i, float(i), metrics={"correct": 0.0}) for i in range(10)],
        "unscored": scores([None] * 3),
    }
    rule = Gate(
        improve={"ceiling": 0.0, "fine": 0.0, "metric": 0.0, "unscored": 0.0, "absent": 0.0},
        hold={"floor": 0.1, "same": 0.1, "fine": 0.1, "metric.correct": 0.1},
    )
    assert vacuous(base, rule) == [
        "improve ceiling: at its ceiling (mean 0.99 on 100 questions): nothing is left to gain, "
        "so the rule cannot pass",
        "hold floor: at its floor (mean 0.01 on 100 questions): nothing is left to lose, so the rule cannot fail",
        "hold same: all 10 questions have the same figure (3.5): it tells nothing apart",
        "hold metric.correct: at its floor (mean 0 on 10 questions): nothing is left to lose, so the rule cannot fail",
    ]
    assert "out of reach" in vacuous(base, Gate(improve={"floor": 0.0}))[0]
    assert "too easy" in vacuous(base, Gate(hold={"ceiling": 0.0}))[0]


def test_percentages_are_of_the_base_model() -> None:
    """The base's mean is 2, so 10% are 0.2 points, whatever the stage before had; the rows say both."""
    base = {"d": scores([2.0] * N)}
    before, after = {"d": scores([8.0] * N)}, {"d": scores([7.9 + x for x in WAVE])}
    result = decide(before, after, Gate(hold={"d": "10%"}), base=base)
    (row,) = result.rows
    assert (result.outcome, row.threshold, row.percent, row.base) == ("pass", pytest.approx(0.2), 10.0, 2.0)
    assert row.reason.endswith("a loss of less than 0.2 (10% of the base model's 2) is shown")
    assert decide(before, after, Gate(hold={"d": "4%"}), base=base).outcome == "undecided"
    assert decide(before, after, Gate(hold={"d": "1%"}), base=base).outcome == "fail"
    assert decide(before, after, Gate(hold={"d": "1%"})).rows[0].threshold == pytest.approx(0.08)  # before is the base
    rule = Gate(improve={"d": "-10%"})
    assert decide(before, after, rule, base=base).rows[0].threshold == pytest.approx(-0.2)
    same = decide(before, after, Gate(hold={"d": 0.2}), base=base).rows[0]
    assert (same.ci, same.outcome, same.percent) == (row.ci, row.outcome, None)


def test_a_percentage_of_nothing_is_refused() -> None:
    """Rewards may be negative: 2% of them would be a margin below 0."""
    base, metric = {"d": scores([-1.0] * 9)}, {"d": [score(i, -1.0, metrics={"ten": 5.0}) for i in range(9)]}
    with pytest.raises(InputError, match=r"gate.hold.d: 2% of the base model's mean, which is -1, means nothing"):
        require_percentages(base, Gate(hold={"d": "2%"}))
    require_percentages(metric, Gate(hold={"d.ten": "2%", "d": 0.1}))
    assert "2% of a mean of -1 means nothing" in vacuous(base, Gate(hold={"d": "2%"}))[0]
    for wrong in ("-2%", "%", "two%"):
        with pytest.raises(ValidationError):
            Gate(hold={"d": wrong})


@pytest.mark.parametrize(("retries", "action"), [(2, "retry"), (1, "retry"), (0, "rollback")])
def test_a_failure_is_tried_again_within_its_budget(retries: int, action: str) -> None:
    rule = Gate(improve={"d": 0.0}, on_fail="retry", retry={"max": 2, "scale": {"beta": 2.0}})
    result = decide(*pair(-0.2), rule, retries=retries)
    assert (result.outcome, result.action, result.flagged) == ("fail", action, False)
    assert decide(*pair(0.2), rule, retries=retries).action == "keep"
    assert decide(*pair(0.0), rule, retries=retries).action == "keep"  # undecided is not a failure


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {"pass": False, "undecided": False, "fail": True}),
        ({"on_undecided": "rollback"}, {"pass": False, "undecided": True, "fail": True}),
        ({"shrink": False}, {"pass": False, "undecided": False, "fail": False}),
    ],
)
def test_when_a_smaller_adapter_is_looked_for(settings: dict[str, Any], expected: dict[str, bool]) -> None:
    rule = Gate(**{"hold": {"d": 0.1}, "shrink": True, **settings})
    outcomes: tuple[Outcome, ...] = ("pass", "undecided", "fail")
    assert {outcome: may_shrink(outcome, rule) for outcome in outcomes} == expected


def test_which_scales_are_tried() -> None:
    assert Gate(hold={"d": 0.1}, shrink=True).scales == (0.75, 0.5, 0.25, 0.1)
    assert Gate(hold={"d": 0.1}, shrink={"steps": 4}).scales == (0.8, 0.6, 0.4, 0.2)
    assert Gate(hold={"d": 0.1}).scales == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_fail": "retry"},
        {"retry": {"max": 1, "scale": {"beta": 2.0}}},
        {"on_fail": "retry", "retry": {"max": 1, "scale": {}}},
        {"on_fail": "retry", "retry": {"max": 0, "scale": {"beta": 2.0}}},
        {"shrink": True},
    ],
)
def test_remedies_that_do_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gate(**wrong)


def test_what_is_relative_to_the_base_is_no_empty_rule() -> None:
    same = scores([0.5] * 20)
    rule = Gate(improve={"preference_accuracy:mine": 0.0, "mt_bench": 0.0})
    found = vacuous({"preference_accuracy:mine": same, "mt_bench": same}, rule)
    assert found == ["improve mt_bench: all 20 questions have the same figure (0.5): it tells nothing apart"]
