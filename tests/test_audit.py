"""Published tables: what their figures allow, by hand and by brute force; bad files; the page of the experiments."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation.audit import (
    COLUMNS,
    Finding,
    audit,
    oddities,
    read_table,
    rows_for_terminal,
    sentence,
    summary,
)
from equipoise.evaluation.audit_cases import cases_of, spread_range
from equipoise.evaluation.audit_read import Row, Table
from equipoise.evaluation.stats import paired
from equipoise.records import InputError

DOCS = Path(__file__).parents[1] / "docs"
HEADER = "experiment,domain,metric,n,before,after,kind,paired,sd,min,max,base,claim\n"


def row(**fields: object) -> Row:
    given = {"experiment": "a", "domain": "quiz", "n": 100, "before": 40, "after": 50, "kind": "share", **fields}
    return Row.model_validate(given)


def judged(*rows: Row) -> list[Finding]:
    return audit(Table(title="test", rows=rows))


def test_shares_by_hand() -> None:
    # 40 of 100 to 50 of 100: at best 10 gained and none lost; at worst 50 gained (all that are right now), 40 lost;
    # independent: 50 * 60 / 100 = 30 gained, 20 lost
    best, independent, worst = cases_of(row(paired=True), 0.95).every
    assert best.p == pytest.approx(max(exact.mcnemar_mid_p(10, 0), exact.score_p(10, 0)))
    assert independent.p == pytest.approx(max(exact.mcnemar_mid_p(30, 20), exact.score_p(30, 20)))
    assert worst.p == pytest.approx(max(exact.mcnemar_mid_p(50, 40), exact.score_p(50, 40)))
    assert (best.given, worst.given) == ("only 10 of 100 answers changed", "90 of 100 answers changed")
    assert best.ci[0] > 0 > worst.ci[0]
    assert 5 < best.ci[1] < worst.ci[1] < 40  # in percent, as published
    # 80 % power: (1.984 + 0.845)^2 (0.24 + 0.25) / 0.01 = 392
    assert cases_of(row(paired=True), 0.95).needed == pytest.approx(392, abs=1)
    # the same in shares
    assert cases_of(row(before=0.4, after=0.5), 0.95).best.p == cases_of(row(), 0.95).best.p


@pytest.mark.parametrize(("before", "after"), [(2, 5), (6, 1), (0, 6), (4, 4), (7, 7)])
def test_every_pairing_of_seven_answers_lies_between_the_best_and_the_worst(before: int, after: int) -> None:
    found = cases_of(row(n=7, before=before / 7, after=after / 7, paired=True), 0.95)
    possible = []
    for chosen in itertools.combinations(range(7), after):
        x, y = [float(i < before) for i in range(7)], [float(i in chosen) for i in range(7)]
        gained, lost = sum(b > a for a, b in zip(x, y, strict=True)), sum(b < a for a, b in zip(x, y, strict=True))
        possible.append(max(exact.mcnemar_mid_p(gained, lost), exact.score_p(gained, lost)))
    assert found.best.p == pytest.approx(min(possible))
    assert found.worst.p == pytest.approx(max(possible))


def test_a_pairing_gives_what_the_comparison_of_its_items_gives() -> None:
    case = cases_of(row(paired=True), 0.95).every[1]  # 30 gained, 20 lost, 20 right and 30 wrong on both sides
    items = paired([0.0] * 30 + [1.0] * 20 + [1.0] * 20 + [0.0] * 30, [1.0] * 30 + [0.0] * 20 + [1.0] * 20 + [0.0] * 30)
    assert case.p == pytest.approx(items.p_value)
    assert case.ci == pytest.approx((100 * items.ci[0], 100 * items.ci[1]))


def test_separate_samples_agree_with_statsmodels() -> None:
    proportions = pytest.importorskip("statsmodels.stats.proportion")
    (case,) = cases_of(row(n=80, before=48 / 80, after=65 / 80, paired=False), 0.95).every
    theirs = proportions.confint_proportions_2indep(65, 80, 48, 80, method="newcomb", compare="diff")
    assert case.ci == pytest.approx(theirs)
    assert case.p == pytest.approx(proportions.proportions_ztest([65, 48], [80, 80])[1])


def test_unknown_pairing_considers_both() -> None:
    known, separate, unknown = (cases_of(row(paired=p), 0.95) for p in (True, False, "unknown"))
    assert unknown.best.p == min(known.best.p, separate.best.p)
    assert unknown.worst.p == max(known.worst.p, separate.worst.p)


def test_the_largest_spread_of_bounded_scores_against_brute_force() -> None:
    for before, after in ((1, 3), (4, 2), (2, 2), (0, 5)):
        scores = row(kind="score", n=5, before=10 * before / 5, after=10 * after / 5, min=0, max=10, paired=True)
        ends = [v for v in itertools.product((0.0, 10.0), repeat=5) if sum(v) == 10 * after]
        fixed = np.array([10.0] * before + [0.0] * (5 - before))
        largest = max(float(np.std(np.array(v) - fixed, ddof=1)) for v in ends)
        assert spread_range(scores) == (0.0, pytest.approx(largest))
    # Scores anywhere on the scale with these means do not exceed it.
    rng = np.random.default_rng(0)
    x, y = rng.beta(0.2, 0.3, size=(2, 50))
    scores = row(kind="score", n=50, before=float(x.mean()), after=float(y.mean()), min=0, max=1, paired=True)
    assert float(np.std(np.sort(y) - np.sort(x)[::-1], ddof=1)) <= spread_range(scores)[1]


def test_spread_from_a_published_standard_deviation() -> None:
    fields = {"kind": "score", "before": 5.0, "after": 5.5, "sd": 2.0}
    assert spread_range(row(**fields, paired=True)) == (0.0, 4.0)
    assert spread_range(row(**fields)) == (0.0, 4.0)
    assert spread_range(row(**fields, paired=False)) == pytest.approx((math.sqrt(8), math.sqrt(8)))
    assert spread_range(row(kind="score", before=5.0, after=5.5)) == (0.0, math.inf)
    # separate samples: t = 0.5 / sqrt(8 / 100) = 1.7678 on 198 degrees of freedom
    (only,) = cases_of(row(**fields, paired=False), 0.95).every
    assert only.p == pytest.approx(0.0786, abs=2e-4)


def test_the_three_verdicts() -> None:
    real = row(experiment="b", n=1000, before=40, after=60, paired=True)
    possible = row(experiment="c", paired=True)
    noise = row(experiment="d", before=40, after=44, paired=True)
    found = judged(real, possible, noise)
    assert [f.verdict for f in found] == ["real", "possible", "noise"]
    assert summary(found) == "3 claims: 1 real, 1 possible, 1 noise"
    assert "even if 1000 of 1000 answers changed, p is below 0.001" in sentence(found[0])
    assert "if only 10 of 100 answers changed" in sentence(found[1])
    assert "even if only 4 of 100 answers changed, p is 0.062" in sentence(found[2])
    # (1.984 + 0.845)^2 * (0.24 + 0.2464) / 0.0016 = 2,433, rounded up to two digits
    assert "by itself such a change takes about 2,500 questions" in sentence(found[2])


def test_many_claims_raise_the_bar() -> None:
    # 6 of 100 gained, none lost: mid-p 1 / 64, asymptotic 0.014: alone it may be real, one of 4 it cannot be
    claim = row(before=40, after=46, paired=True)
    assert judged(claim)[0].verdict == "possible"
    others = [row(experiment=str(i), before=40, after=40, paired=True) for i in range(3)]
    with_others = judged(claim, *others)
    assert with_others[0].verdict == "noise"
    assert with_others[0].p_best == pytest.approx(4 / 64)


def test_a_score_is_real_below_a_spread_that_is_named() -> None:
    claim = row(kind="score", n=50, before=6.27, after=5.33, min=0, max=10, paired=True)
    (found,) = judged(claim)
    assert found.verdict == "possible"
    # 0.94 * sqrt(50) / 2.0096 (t at 49 df)
    assert found.real_below == pytest.approx(3.3075, abs=1e-3)
    assert "vary by less than 3.3" in sentence(found)
    narrow = row(kind="score", n=50, before=6.27, after=5.33, sd=1.6, paired=True)  # at most 2 * 1.6 = 3.2
    assert judged(narrow)[0].verdict == "real"
    assert judged(row(kind="score", n=50, before=6.27, after=5.33, sd=1.7, paired=True))[0].verdict == "possible"
    few = row(kind="score", n=3, before=2, after=9, paired=True)  # three questions never prove anything
    assert judged(few)[0].verdict == "noise"
    assert "can be anything" in sentence(judged(row(kind="score", before=2.0, after=9.0))[0])


def test_what_the_untouched_base_moves_by_is_noise() -> None:
    def score(experiment: str, before: float, after: float, base: str = "m") -> Row:
        fields = {"experiment": experiment, "kind": "score", "before": before, "after": after, "base": base}
        return row(**fields, min=0, max=10, paired=True)

    # the base: 5.0, 5.5, 5.2 in three experiments, 0.5 apart (0.5 exactly: not 0.50000001)
    inside, outside, other = score("a", 5.0, 5.5), score("b", 5.5, 4.9), score("c", 5.2, 5.3)
    elsewhere = score("d", 9.0, 9.2, base="other")
    found = judged(inside, outside, other, elsewhere)
    assert [f.base_moved for f in found] == [0.5, 0.5, 0.5, None]
    assert [f.verdict for f in found] == ["noise", "possible", "noise", "possible"]
    assert "the untouched base alone moved by 0.5 over 3 runs" in sentence(found[0])
    # standard deviation of 5.0, 5.5, 5.2 is 0.2517: sqrt(2 * 100) * 0.2517 = 3.56 for each question, not 10 / 10
    assert found[0].cases.assumed == pytest.approx(3.559, abs=1e-3)
    assert found[3].cases.assumed == pytest.approx(1.0)
    # nothing is known about a model that is not named
    assert {f.base_moved for f in judged(score("a", 5.0, 5.5, ""), score("b", 5.5, 4.9, ""))} == {None}


def test_figures_that_cannot_be() -> None:
    found = judged(row(n=250, before=42.0, after=43.0), row(experiment="b", n=50, before=38, after=0.5))
    assert found[0].notes == ("quiz: 43 is no share of 250 answers: 107 right are 42.8, 108 are 43.2",)
    assert found[1].notes == ("quiz: 0.5 is no share of 50 answers: 0 right are 0, 1 are 2",)
    assert judged(row(n=103, before=6.8, after=8.7))[0].notes == ()
    assert judged(row(n=3, before=0.33, after=0.67))[0].notes == ()


def test_experiments_with_the_same_figures_are_named() -> None:
    def experiment(name: str, last: float) -> list[Row]:
        afters = {"x": 50.0, "y": 60.0, "z": last}
        return [row(experiment=name, domain=domain, after=after) for domain, after in afters.items()]

    found = judged(*experiment("a", 70), *experiment("b", 71), *experiment("c", 70))
    assert oddities(found) == ["c: all 3 figures are the same to the last digit as those of a"]


def test_no_difference_and_the_ends_of_the_scale() -> None:
    for same in (row(before=100, after=100), row(before=0, after=0), row(before=50, after=50)):
        (found,) = judged(same)
        assert (found.verdict, found.cases.needed) == ("noise", None)
        assert "there is no difference" in sentence(found)
    (whole,) = judged(row(before=0, after=100, paired="unknown"))
    assert whole.verdict == "real"
    assert judged(row(kind="score", before=0, after=10, min=0, max=10))[0].verdict == "real"


def test_csv_and_yaml_are_read_alike(tmp_path: Path) -> None:
    csv = tmp_path / "t.csv"
    csv.write_text(HEADER + 'a,quiz,,100,40,50,share,true,,,,m,\n\nb,talk,,50,5.5,6,score,,,0,10,,"better, it says"\n')
    yaml = tmp_path / "t.yaml"
    yaml.write_text(
        "title: t\ndefaults:\n  quiz: {kind: share, n: 100, paired: true, base: m}\nrows:\n"
        "  - {experiment: a, domain: quiz, before: 40, after: 50}\n"
        "  - {experiment: b, domain: talk, n: 50, before: 5.5, after: 6, kind: score, min: 0, max: 10,\n"
        "     claim: 'better, it says'}\n"
    )
    assert read_table(csv) == read_table(yaml)
    assert read_table(csv).rows[1].claim == "better, it says"


def test_the_record_is_plain_json() -> None:
    (found,) = judged(row(kind="score", before=1.0, after=2.0))
    back = json.loads(json.dumps(found.record(), allow_nan=False))
    assert back["cases"]["spread"] == [0.0, None]
    assert (back["row"]["domain"], back["verdict"], back["sentence"]) == ("quiz", "possible", sentence(found))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a,quiz,,100,40,abc,share,,,,,,", ":2: after: Input should be a valid number"),
        ("a,quiz,,1,40,50,share,,,,,,", ":2: n: Input should be greater than or equal to 2"),
        ("a,quiz,,2.5,40,50,share,,,,,,", ":2: n: "),
        ("a,quiz,,99999999999999999999,40,50,share,,,,,,", ":2: n: "),
        ("a,quiz,,100,1,1e300,score,,,,,,", ":2: after: Input should be less than or equal to"),
        ("a,quiz,,100,40,150,share,,,,,,", ":2: row: after is 150, outside 0 to 100"),
        ("a,quiz,,100,-4,50,share,,,,,,", ":2: row: before is -4, outside 0 to 100"),
        ("a,quiz,,100,4,11,score,,,0,10,,", ":2: row: after is 11, outside 0 to 10"),
        ("a,quiz,,100,4,5,score,,,10,0,,", ":2: row: min is 10 and max 0"),
        ("a,quiz,,100,4,5,score,,,0,,,", ":2: row: give both min and max"),
        ("a,quiz,,100,4,5,score,,0,,,,", ":2: sd: Input should be greater than 0"),
        ("a,quiz,,100,4,5,share,,2,,,,", ":2: row: sd, min and max belong to kind: score"),
        ("a,quiz,,100,4,5,grade,,,,,,", ":2: kind: Input should be 'share' or 'score'"),
        ("a,quiz,,100,4,5,share,maybe,,,,,", ":2: paired: must be true, false or unknown (found 'maybe')"),
        ("a,quiz,,100,nan,5,share,,,,,,", ":2: before: Input should be a finite number"),
        (",quiz,,100,4,5,share,,,,,,", ":2: experiment: missing; add it"),
        ("a,quiz,,100,4,5,share,,,,,,,,", ":2: more cells than the header has columns"),
        ('a,quiz,,100,4,5,share,,,,,,"open', "not valid CSV"),
        ("a,quiz,,100,4,5,share,,,,,,\na,quiz,,100,4,6,share,,,,,,", ":3: a: quiz stands at "),
        ("", "no rows; add claims"),
    ],
)
def test_a_bad_line_of_a_csv_is_named(tmp_path: Path, line: str, said: str) -> None:
    assert_refused(tmp_path / "t.csv", HEADER + line + "\n", said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows: []", "no rows; add claims"),
        ("- a\n- b", "a table is a mapping with a list of claims under `rows:`"),
        ("rows: {a: 1}", "a table is a mapping with a list of claims under `rows:`"),
        ("rows: [", "not valid YAML"),
        ("rows: []\ncolour: red", "colour: unknown key; known: title, confidence, defaults, rows"),
        ("rows:\n  - 7", ":2: rows[0]: a row is a mapping of fields to values"),
        ("rows:\n  - {experiment: a}\n", ":2: rows[0]: domain: missing; add it"),
        ("defaults: [1]\nrows:\n  - {experiment: a}\n", "defaults: give a mapping"),
        (
            "confidence: 95\nrows:\n  - {experiment: a, domain: q, n: 9, before: 1, after: 2, kind: score}\n",
            "confidence: Input should be less than 1",
        ),
        (
            "rows:\n\n  - {experiment: a, domain: q, n: 9, before: 1, after: 2, kind: score, colour: red}\n",
            ":3: rows[0]: colour: unknown field; known: experiment, domain",
        ),
    ],
)
def test_a_bad_place_of_a_yaml_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert_refused(tmp_path / "t.yaml", text, said)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    assert_refused(tmp_path / "t.txt", "a", "unknown kind of table")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path / "absent.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_table(tmp_path / "bytes.csv")


def assert_refused(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert "\n" not in message


def markdown(findings: list[Finding]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows_for_terminal(findings)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def test_the_page_of_the_original_experiments_shows_what_the_audit_gives() -> None:
    """Table, count and every sentence that is not noise; printed where they differ."""
    findings = audit(read_table(DOCS / "original-experiments.yaml"))
    shown = [
        markdown(findings),
        *[f"- {sentence(f)}." for f in findings if f.verdict != "noise"],
        *[f"- {line}." for line in oddities(findings)],
        summary(findings),
    ]
    page = (DOCS / "original-experiments.md").read_text()
    for text in shown:
        assert text in page, f"docs/original-experiments.md lacks:\n{text}"
