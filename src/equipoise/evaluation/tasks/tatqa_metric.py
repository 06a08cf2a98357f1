"""Exact match and F1 of TAT-QA: a written number is right only together with its scale.

Source: Zhu et al. 2021, "TAT-QA: A Question Answering Benchmark on a Hybrid of Tabular and Textual Content in
Finance" (https://aclanthology.org/2021.acl-long.254), and the behaviour of the evaluator published with it
(https://github.com/NExTplusplus/TAT-QA). Scores are comparable with published ones only if its quirks are
kept, so they are kept, and named where they happen. Three steps:

1. An answer becomes one line of text. Numbers are multiplied by their scale and written with four decimals,
   other text is followed by the scale word; the parts of an answer with several spans are sorted and joined.
2. The line becomes words: lower case, no punctuation, no articles, numbers in one spelling.
3. Equal words in equal order are an exact match; F1 is that of the two *sets* of words, to two decimals.

Pure: standard library only, no state, time linear in the length of the answer.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from typing import Any

ANSWER_TYPES = ("span", "multi-span", "arithmetic", "count")
GOLD_SCALES = ("", "thousand", "million", "billion", "percent")

Number = int | float
Prediction = str | Number | Sequence[str | Number] | None

# Looked for inside a word, in this order: `millions`, `percentage` and `24Billion` count as scales too.
_FACTORS = (("hundred", 100), ("thousand", 1000), ("million", 10**6), ("billion", 10**9), ("percent", 0.01))
_AROUND_NUMBERS = str.maketrans("", "", "'\"\\$€£¥%(),[]")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_FIRST_NUMBER = re.compile(r"([+-]?\d+(?:\.\d+)?)|[+-]?\.\d+")
_SCALE_AFTER_DIGITS = re.compile(r"(?<![\d.])[\d.]+\s?([a-zA-Z]+)")
_BRACKETED = re.compile(r"\([\d.\s]+\)")
_PERCENT_SIGN = re.compile(r"[\d.\s]%")
_MOST_DIGITS = 200  # a longer integer would overflow on its way to a float, so it is read as a float at once


def exact_match_and_f1(
    prediction: Prediction,
    prediction_scale: str | None,
    *,
    gold_answer: Any,
    answer_type: str,
    gold_scale: str,
) -> tuple[float, float]:
    """Return (exact match, F1), each in [0, 1]; for arithmetic and count questions F1 is the exact match.

    Args:
        prediction: a string, a number or a list of them. Nothing, "", [] and the *number* 0 are "no answer"
            and score 0; the text "0" is an answer.
        prediction_scale: the predicted scale; plural and upper case are understood, None is the same as "".
        gold_answer: a list of spans for `span` and `multi-span`, a number for `arithmetic`, a whole number or
            its text for `count`.
        answer_type: one of `ANSWER_TYPES`.
        gold_scale: one of `GOLD_SCALES`.

    Raises:
        ValueError: the gold answer is malformed: unknown type or scale, no span, or not a number.
    """
    gold = _normalised(_as_line(_gold_parts(gold_answer, answer_type), _checked_scale(gold_scale)))
    if not prediction:
        return 0.0, 0.0
    parts = [prediction] if isinstance(prediction, str | int | float) else list(prediction)
    candidates = [_normalised(line) for line in _readings(parts, prediction_scale or "")]
    exact = float(gold in candidates)
    if answer_type in ("arithmetic", "count"):
        return exact, exact
    return exact, max(_f1(set(candidate.split()), set(gold.split())) for candidate in candidates)


def _checked_scale(gold_scale: str) -> str:
    if gold_scale not in GOLD_SCALES:
        raise ValueError(f"unknown gold scale {gold_scale!r}, known: {', '.join(map(repr, GOLD_SCALES))}")
    return gold_scale


def _gold_parts(gold_answer: Any, answer_type: str) -> list[str]:
    """The gold answer as strings, one per span; raises ValueError when it does not suit its type."""
    wrong = ValueError(f"malformed gold answer of type {answer_type!r}: {gold_answer!r}")
    if answer_type not in ANSWER_TYPES:
        raise ValueError(f"unknown answer type {answer_type!r}, known: {', '.join(ANSWER_TYPES)}")
    if answer_type in ("span", "multi-span"):
        if not isinstance(gold_answer, list | tuple) or not gold_answer:
            raise wrong
        if not all(isinstance(span, str) or _is_finite(span) for span in gold_answer):
            raise wrong
        return [str(span) for span in gold_answer]
    if answer_type == "arithmetic":
        if not (_is_finite(gold_answer) or (isinstance(gold_answer, str) and _is_number(gold_answer))):
            raise wrong
        return [str(gold_answer)]
    if not (_is_finite(gold_answer) or isinstance(gold_answer, str)):
        raise wrong
    try:
        return [str(int(gold_answer))]
    except ValueError:
        raise wrong from None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _readings(parts: Sequence[Any], scale: str) -> list[str]:
    """The lines that a prediction may stand for; one of them has to match.

    A single number without any scale is also read with four decimals in place of two, so that 0.2342 equals
    23.42 percent.
    """
    lines = [_as_line(parts, scale)]
    text = str(parts[0])
    if len(parts) == 1 and not scale and "%" not in text and _is_number(text):
        value = _to_number(text)
        if value is not None:
            lines.append(f"{value:.4f}")
    return lines


def _as_line(parts: Sequence[Any], scale: str) -> str:
    """Join the parts of an answer, sorted, each multiplied by the scale or followed by its name.

    Parts of one kind are sorted by their own order (numbers by size), as in the published evaluator, which
    stops on mixed kinds; here these are sorted as text.
    """
    try:
        ordered = sorted(parts)
    except TypeError:
        ordered = sorted(parts, key=str)
    return " ".join(_scaled(str(part), scale) for part in ordered)


def _scaled(text: str, scale: str) -> str:
    value = _to_number(text) if _is_number(text) else None
    if value is None:
        return f"{text} {scale}" if scale else text
    if "%" in text:  # the sign has been counted already, whatever the scale says
        return f"{value:.4f}"
    return f"{round(value, 2) * _factor(scale):.4f}"


def _normalised(line: str) -> str:
    """Lower case, punctuation and articles gone, numbers in one spelling, single spaces."""
    return " ".join(" ".join(_normalised_token(token) for token in line.split(" ")).split())


def _normalised_token(token: str) -> str:
    """One token without punctuation and articles.

    Points to know: punctuation is dropped before the token is looked at as a number, so `12.5.` becomes 125;
    a whole number keeps its spelling, so the text `2019 and 2018` differs from the list of both (2018.0
    2019.0).
    """
    token = token.lower()
    if not _is_number(token):
        token = token.translate(_PUNCTUATION)
    if _is_number(token):
        token = str(_to_number(token))  # "None" for `.5` and `inf`, as the published evaluator writes them
    return _ARTICLE.sub(" ", token)


def _f1(predicted: set[str], gold: set[str]) -> float:
    """F1 of two sets of words, rounded to two decimals; two empty sets are equal."""
    if not predicted and not gold:
        return 1.0
    shared = len(predicted & gold)
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return round(2 * precision * recall / (precision + recall), 2)


def _factor(text: str) -> Number:
    """The factor of the first scale word inside `text`, else 1."""
    lowered = text.lower()
    return next((factor for word, factor in _FACTORS if word in lowered), 1)


def _is_number(text: str) -> bool:
    """Whether the text is a number, alone or before a scale word; words after these two are not read."""
    words = " ".join(word.translate(_AROUND_NUMBERS) for word in text.split()).split()
    if not words:
        return False
    try:
        value = float(words[0])
    except ValueError:
        return False
    return not math.isnan(value) and (len(words) == 1 or _factor(words[1]) != 1)


def _to_number(text: str) -> Number | None:
    """The value of a text that `_is_number`: its first digits times scale word, brackets and percent sign.

    None when these digits have nothing before the point (`.5`). Brackets mean "negative" only around plain
    digits: `(12.6)` and `$(12.6)`, but not `(1,234)`, `($8.11)` or `(2.87%)`.
    """
    found = _FIRST_NUMBER.search(text.translate(_AROUND_NUMBERS))
    if found is None or found.group(1) is None:
        return None
    digits = found.group(1)
    value: Number = float(digits) if "." in digits or len(digits) > _MOST_DIGITS else int(digits)
    scaled = _SCALE_AFTER_DIGITS.search(text)
    scale = _factor(scaled.group(1)) if scaled else 1
    sign = -1 if _BRACKETED.search(text) else 1
    percent = 0.01 if _PERCENT_SIGN.search(text.strip()) else 1
    return round(value * scale * sign * percent, 4)
