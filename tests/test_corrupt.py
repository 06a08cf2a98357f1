"""Amounts in texts and hard negatives made of them: worked examples, and what must hold for every text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.data.amounts import agreement, amounts, is_marked, stated
from equipoise.data.seeds import generator
from equipoise.data.sources.corrupt import DIRECTIONS, KINDS, _applied, corrupt

MILLION = 10**6


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was 48.", [("48", 48)]),
        ("revenue of $12.5 million", [("$12.5 million", 12_500_000)]),
        ("US$ 1,452.4bn and €3.2M", [("US$ 1,452.4bn", 1_452_400 * MILLION), ("€3.2M", 3_200_000)]),
        ("5%, 12.5 percent and 25 basis points", [("5%", 0.05), ("12.5 percent", 0.125), ("25 basis points", 0.0025)]),
        ("(1,234), ($8.11) and (2.87)%", [("(1,234)", -1234), ("($8.11)", -8.11), ("(2.87)%", -0.0287)]),
        ("-5, $-5, -$5, −5 and +5", [("-5", -5), ("$-5", -5), ("-$5", -5), ("−5", -5), ("+5", 5)]),
        ("10-15 or 5%-7%", [("10", 10), ("15", 15), ("5%", 0.05), ("7%", 0.07)]),
        ("$5k, $5m, 5M", [("$5k", 5000), ("$5m", 5 * MILLION), ("5M", 5 * MILLION)]),
        ("2 Million and 3 BILLION", [("2 Million", 2 * MILLION), ("3 BILLION", 3000 * MILLION)]),
        ("x = 5; .5 of it", [("5", 5), (".5", 0.5)]),
        ("1. First 12 of them\n2) then 13", [("12", 12), ("13", 13)]),
        ("(1) first, (2) second", []),
        ("Table 2, step 3, Q3, 3rd, 10-K, 401(k), 5G, March 31, 31 March, 10:30, 1/2, 5.2.1, 5,00", []),
        ("9" * 31, []),
        ("9" * 5000, []),
        ("no number, none at all", []),
    ],
)
def test_amounts(text: str, expected: list[tuple[str, float]]) -> None:
    found = amounts(text)
    assert [(one.text, one.value) for one in found] == [(t, Fraction(str(v))) for t, v in expected]
    assert [text[one.start : one.end] for one in found] == [one.text for one in found]
    assert not any(one.year for one in found)


@pytest.mark.parametrize(
    "text",
    [
        "in 2019",
        "fiscal 2019",
        "(2019)",
        "since March 31, 2019",
        "from 2019 to 2020",
        "2018-2019",
        "Q3 2019",
        "the 2019",
    ],
)
def test_years(text: str) -> None:
    assert amounts(text) and all(one.year for one in amounts(text))


@pytest.mark.parametrize("text", ["1950", "a total of 1950", "$2019", "2,019", "2019 million", "5019"])
def test_no_years(text: str) -> None:
    assert not any(one.year for one in amounts(text))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("That makes 48 in fund heron. It is 6 times 8.", "48"),
        ("The answer is approximately $12.5 million, up from 11.", "$12.5 million"),
        ("In 2019 the answer was 3; the answer is 4, not 5.", "4"),
        ("Profit = 50 - 20 = 30, a sign of 2 things", "30"),
        ("\\boxed{42} by 3 steps", "42"),
        ("First 10, then 20. So it is 30 in 2019.", "30"),
        ("It was in 2019", "2019"),
        ("none", None),
    ],
)
def test_the_number_that_is_the_answer(text: str, answer: str | None) -> None:
    found = stated(text)
    assert (found and found.text) == answer


def test_a_text_says_that_a_number_is_its_answer() -> None:
    assert [is_marked(text) for text in ("The answer is 5.", "$5.2 million", " 12%.", "#### 7")] == [True] * 4
    assert [is_marked(text) for text in ("There are 5.", "the answer is no", "A fee of 19 is less than 67.")] == [
        False
    ] * 3


@pytest.mark.parametrize(
    ("sample", "reference", "verdict"),
    [
        ("It is 48.", "48", "right"),
        ("$1,234.40", "1234", "right"),
        ("12,540,000", "12.5 million", "right"),  # rounds to 12.5 million
        ("12,560,000", "12.5 million", "wrong"),
        ("0.2342", "23.42%", "right"),
        ("(5)%", "-5%", "right"),
        ("12 million", "12.5 million", "unclear"),  # less exact
        ("14 million", "12.5 million", "wrong"),
        ("33%", "33.33%", "unclear"),
        ("12.5", "12.5 million", "unclear"),  # the question may have asked for millions
        ("12.5 billion", "12.5 million", "wrong"),
        ("23.42", "23.42%", "unclear"),
        ("-5%", "a decrease of 5%", "unclear"),
        ("-5%", "5%", "wrong"),
        ("54", "48", "wrong"),
        ("no idea", "48", None),
    ],
)
def test_right_and_wrong_numbers(sample: str, reference: str, verdict: str | None) -> None:
    assert agreement(sample, reference) == verdict


@pytest.mark.parametrize(
    ("kind", "text", "possible"),
    [
        ("scale", "Sales of $2.5 Million.", {"Sales of $2.5 Billion.", "Sales of $2.5 Thousand."}),
        ("scale", "2 thousand here, 2 thousand there", {"2 million here, 2 million there"}),
        ("scale", "$5K", {"$5M"}),
        ("percent", "It is 5% now and 5% then.", {"It is 50% now and 50% then.", "It is 0.5% now and 0.5% then."}),
        ("percent", "100% or 12.50 percent", {"1000% or 12.50 percent", "10% or 12.50 percent", "100% or 125.0 percent",
                                              "100% or 1.250 percent"}),
        ("sign", "Net change: -5.", {"Net change: 5."}),
        ("sign", "A margin of ($1,234) thousand", {"A margin of $1,234 thousand"}),
        ("sign", "A return of 5%", {"A return of -5%"}),
        ("direction", "An increase in costs", {"A decrease in costs"}),
        ("direction", "Sales ROSE, a decrease", {"Sales FELL, a decrease", "Sales ROSE, an increase"}),
        ("year", "in 2019; 2016 2017 2018 2020 2021", {"in 2022; 2016 2017 2018 2020 2021"}),
    ],
)  # fmt: skip
def test_worked_examples(kind: str, text: str, possible: set[str]) -> None:
    made = [KINDS[kind](text, amounts(text), generator("test", seed)) for seed in range(40)]
    assert {_applied(text, edit) for edit in made if edit} == possible


def test_one_digit() -> None:
    made = {_applied("Total: 120", edit) for seed in range(300) if (edit := digit("Total: 120", seed))}
    assert made == (
        {f"Total: {first}20" for first in "23456789"}
        | {f"Total: 1{second}0" for second in "013456789"}
        | {f"Total: 12{third}" for third in "123456789"}
    )


def digit(text: str, seed: int):  # type: ignore[no-untyped-def]
    return KINDS["digit"](text, amounts(text), generator("test", seed))


def test_articles_keep_fitting() -> None:
    made = [_applied("an 8% rate", edit) for seed in range(100) if (edit := digit("an 8% rate", seed))]
    assert made == []  # every other digit needs "a"
    made = [_applied("a 7% rate", edit) for seed in range(100) if (edit := digit("a 7% rate", seed))]
    assert made and "a 8% rate" not in made


@pytest.mark.parametrize(
    "text", ["No idea.", "", "Rates may rise or fall.", "1. First\n2. Second", "See Table 2.", "Lower your costs."]
)
def test_nothing_to_corrupt(text: str) -> None:
    assert corrupt(text) is None


def test_the_text_alone_decides_and_every_kind_comes_up() -> None:
    text = "Revenue rose by 5% to $12.{} million in 2019, costs by -3%."
    made = [corrupt(text.format(number)) for number in range(100)]
    assert made == [corrupt(text.format(number)) for number in range(100)]
    kinds = Counter(one.kind for one in made if one)
    assert kinds.keys() == KINDS.keys() and min(kinds.values()) >= 8


PIECES = st.sampled_from(
    [*DIRECTIONS, "a", "an", "The", "in 2019", "$12.5 million", "12.5 million", "-3", "(4,200)", "8%", "11 percent",
     "0", "0%", "$5k", "2.", "2018-2019", "costs", "(", ")", "\n", "-", "1. ", "€", "٣", "revenue"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map(" ".join)))
def test_a_corrupted_text_differs_in_one_thing_only(text: str) -> None:
    made = corrupt(text)
    if made is None:
        return
    assert made.text != text and corrupt(text) == made
    if made.kind == "direction":
        assert any(made.text == text[:start] + new + text[end:] for start, end, new in turned(text))
        return
    found = amounts(text)
    assert any(
        all_changed_alike(text, [(one.start, one.end) for one in found if one.text == figure], made.text)
        for figure in {one.text for one in found}
    )


def all_changed_alike(text: str, places: list[tuple[int, int]], changed: str) -> bool:
    """Whether `changed` is the text with one and the same other figure at all of these places."""
    ends = [0, *(end for _, end in places)]
    starts = [*(start for start, _ in places), len(text)]
    kept = [re.escape(text[end:start]) for end, start in zip(ends, starts, strict=True)]
    pattern = kept[0] + "(?P<new>.+)" + "(?P=new)".join(kept[1:])
    return re.fullmatch(pattern, changed, re.DOTALL) is not None


def turned(text: str) -> Iterator[tuple[int, int, str]]:
    """Every way to turn one direction of a text, with the article that it then needs."""
    for word, new in DIRECTIONS.items():
        for match in re.finditer(rf"\b(?:(an?)(\s+))?{word}\b", text, re.IGNORECASE):
            article = ("an" if new[0] in "aeiou" else "a") + match[2] if match[1] else ""
            yield *match.span(), article + new
