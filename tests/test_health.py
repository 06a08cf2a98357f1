"""The stated rules of `evaluation.health`, on answers as models write them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.evaluation.health import health, repeats

PARAGRAPH = (
    "A bond pays interest at fixed dates. Its price falls when rates rise, because later payments are then "
    "worth less today. Short bonds move less than long ones, so they suit money that is needed soon."
)


@pytest.mark.parametrize(
    "answer",
    [
        "The price falls when rates rise. The price falls when rates rise.",
        "the price falls when rates rise\nThe price falls when rates rise!",
        "buy buy buy buy",
        "yes, yes, Yes. yes",
        "sell it now sell it now sell it now",
        "I think that the company will grow and I think that the company will grow and I think",
        "hahahahahahahahahahahaha",
        "好的好的好的好的好的好的好的好的好的好的好的好的",
        PARAGRAPH + " " + PARAGRAPH,
    ],
)
def test_repeated(answer: str) -> None:
    assert repeats(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "42",
        "$1,000,000,000",
        "very, very, very good",
        "Yes. No. Yes. No.",
        PARAGRAPH,
        "| year | revenue |\n|------|------|\n| 2018 | 12.4 |\n| 2019 | 13.1 |",
        "--------------------------------",
        "1. The price of gold rose.\n2. The price of oil fell.\n3. The price of wheat stayed the same.",
        "The revenue was 12.4 in 2018 and 13.1 in 2019, so it grew by 0.7.",
    ],
)
def test_not_repeated(answer: str) -> None:
    assert not repeats(answer)


def test_share_of_repeated_words_by_hand() -> None:
    # 20 words, of which the last 6 (`a b c d e f` again) lie in repeated 4-grams: 30 %, not more.
    words = list("abcdefghijklmn")
    assert not repeats(" ".join(words + words[:6]))
    assert repeats(" ".join(words[:-1] + words[:6]))  # 6 of 19


def test_health_of_several_turns() -> None:
    found = health(["Gold rose.", "buy buy buy buy"], cut_off=True)
    assert (found.empty, found.cut_off, found.repeated, found.words) == (False, True, True, 6)
    # The second turn may say again what the first one said.
    assert not health([PARAGRAPH, PARAGRAPH], cut_off=False).repeated


@pytest.mark.parametrize("answers", [[], [""], [" \n\t"], ["fine", ""]])
def test_empty(answers: list[str]) -> None:
    assert health(answers, cut_off=False).empty


@given(st.text())
def test_any_text_has_a_health(text: str) -> None:
    found = health([text], cut_off=False)
    assert found.words == len(text.split())
    assert found.empty == (not text.strip())


@pytest.mark.parametrize("text", ["word ", "x", "ab-", "\ud800", "..........a"])
def test_long_answers_take_no_time(text: str) -> None:
    start = time.perf_counter()
    health([text * (100_000 // len(text))], cut_off=False)
    assert time.perf_counter() - start < 5.0


def test_a_long_answer_without_repetition_takes_no_time() -> None:
    start = time.perf_counter()
    assert not repeats(" ".join(f"{i * 7919 % 100_003:x}" for i in range(17_000)))
    assert time.perf_counter() - start < 5.0
