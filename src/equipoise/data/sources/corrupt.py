"""Hard negatives without a model: an answer with one thing in it made wrong. Pure; the text alone decides what.

What can be made wrong: a scale (million becomes billion or thousand), a percentage (ten times too large or too
small), a sign, a direction (increase becomes decrease), one digit, a year. Each text gets one of the kinds that it
offers, drawn from its own content, so a data set gets all of them and the same answer is always corrupted alike.

A figure is changed wherever the text writes it the same way: changed in one place only, the text would contradict
itself, and that could be seen without knowing what is true. A direction is changed in one place only, because two
"increases" in one text seldom speak of the same thing. Nothing else tells the wrong text from the right one: articles
are kept fitting ("an increase", "a decrease"), and so are capital letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np

from equipoise.data.amounts import PERCENT, Amount, Span, amounts
from equipoise.data.seeds import generator

SCALES = {
    "thousand": ("million",), "million": ("billion", "thousand"), "billion": ("million", "trillion"),
    "trillion": ("billion",),
    "thousands": ("millions",), "millions": ("billions", "thousands"), "billions": ("millions", "trillions"),
    "trillions": ("billions",),
    "k": ("m",), "m": ("b", "k"), "b": ("m",), "mn": ("bn",), "bn": ("mn", "tn"), "tn": ("bn",),
    "mln": ("bln",), "bln": ("mln",),
}  # fmt: skip
"""Scales that are mistaken for each other, each written in the same style."""
_BOTH_WAYS = {
    "increase": "decrease", "increases": "decreases", "increased": "decreased", "increasing": "decreasing",
    "rise": "fall", "rises": "falls", "rose": "fell", "risen": "fallen", "rising": "falling", "upward": "downward",
    "positive": "negative", "lower than": "higher than", "more than": "less than", "inflow": "outflow",
    "inflows": "outflows", "surplus": "deficit", "overvalued": "undervalued", "bullish": "bearish",
    "outperform": "underperform", "outperforms": "underperforms", "outperformed": "underperformed",
    "appreciates": "depreciates", "appreciated": "depreciated", "improved": "worsened", "improves": "worsens",
    "strengthened": "weakened", "strengthens": "weakens", "maximum": "minimum",
}  # fmt: skip
_ONE_WAY = {
    "decline": "rise", "declines": "rises", "declined": "rose", "declining": "rising", "grew": "shrank",
    "dropped": "rose", "reduce": "increase", "reduces": "increases", "reduced": "increased", "reducing": "increasing",
    "reduction": "increase", "higher": "lower",
    "net loss": "net profit", "net losses": "net profits", "operating loss": "operating profit",
}  # fmt: skip
DIRECTIONS = {**_ONE_WAY, **_BOTH_WAYS, **{down: up for up, down in _BOTH_WAYS.items()}}
"""Words and their opposites. Words that are another part of speech as well ("lower", "gain") have none, or one way
only: the opposite would not fit."""
_DIRECTION = re.compile(
    rf"\b(?:(?P<article>an?)(?P<space>\s+))?(?P<word>{'|'.join(sorted(DIRECTIONS, key=len, reverse=True))})\b", re.I
)
_ARTICLE = re.compile(r"\b(an?)\s+$", re.IGNORECASE)
_VOWEL_NUMBER = re.compile(r"8|1[18](?:[0-9]{3})?(?![0-9])")
"""Numbers that are spoken with a vowel at their beginning: 8, 80, 11, 18.5, 11,000, 18000."""
NEAR = 40
"""A direction whose opposite stands within so many characters stays: "may rise or fall" has no direction."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A wrong text, and what was made wrong: a key of `KINDS`."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Edit:
    """What stands at all of `places` becomes `new`."""

    places: tuple[Span, ...]
    new: str


def corrupt(text: str) -> Corruption | None:
    """The text with one thing in it made wrong, or None where it has nothing that could be."""
    rng = generator("corrupt", text)
    found = amounts(text)
    for kind in rng.permutation(sorted(KINDS)).tolist():
        edit = KINDS[kind](text, found, rng)
        if edit is not None:
            return Corruption(kind, _applied(text, edit))
    return None


def _applied(text: str, edit: Edit) -> str:
    parts, end = [], 0
    for start, after in edit.places:
        parts += [text[end:start], edit.new]
        end = after
    return "".join([*parts, text[end:]])


def _of_amounts(
    text: str, found: Sequence[Amount], rng: np.random.Generator, change: Callable[[Amount, np.random.Generator], str]
) -> Edit | None:
    """The first change that fits, of the distinct amounts in an order of chance. An empty change is none."""
    distinct = list({one.text: one for one in reversed(found)}.values())
    for place in rng.permutation(len(distinct)).tolist():
        target = distinct[place]
        new = change(target, rng)
        places = tuple((one.start, one.end) for one in found if one.text == target.text)
        if new and all(_article_fits(text[:start], new) for start, _ in places):
            return Edit(places, new)
    return None


def _article_fits(before: str, number: str) -> bool:
    """Whether "a" or "an" in front of a number is still right."""
    article = _ARTICLE.search(before[-8:])
    vowel = _VOWEL_NUMBER.match(number.lstrip("-+($€£¥₹"))
    return article is None or (len(article[1]) == 2) == bool(vowel)


def _scale(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    def change(one: Amount, rng: np.random.Generator) -> str:
        written = text[slice(*one.scale)]
        word = written.lstrip(" -\u00a0")
        others = SCALES[one.unit]
        new = _in_case_of(word, others[rng.integers(len(others))])
        return _with(text, one, one.scale, written.removesuffix(word) + new)

    return _of_amounts(text, [one for one in found if one.unit in SCALES and one.value], rng, change)


def _percent(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    def change(one: Amount, rng: np.random.Generator) -> str:
        written = text[slice(*one.digits)]
        moved = Decimal(written.replace(",", "")).scaleb(1 if rng.random() < 0.5 else -1)
        new = f"{moved:,f}" if "," in written else f"{moved:f}"
        if "." in new and "." not in written:
            new = new.rstrip("0").rstrip(".")  # 100 becomes 10, not 10.0
        return _with(text, one, one.digits, new)

    return _of_amounts(text, [one for one in found if one.unit == PERCENT and one.value], rng, change)


def _sign(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    """Signs that are written are turned; a percentage without one gets a minus, unless words give its direction."""
    told = _DIRECTION.search(text) is not None

    def change(one: Amount, rng: np.random.Generator) -> str:
        if one.sign == "(":
            return one.text.replace("(", "", 1).replace(")", "", 1)
        if one.sign == "-":
            return re.sub("[-−–]", "", one.text, count=1)
        return "-" + one.text.lstrip("+")

    fit = [one for one in found if one.value and (one.sign or (one.unit == PERCENT and not told))]
    return _of_amounts(text, fit, rng, change)


def _digit(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    def change(one: Amount, rng: np.random.Generator) -> str:
        written = text[slice(*one.digits)]
        places = [place for place, sign in enumerate(written) if sign.isdigit()]
        place = places[rng.integers(len(places))]
        first = "1" if place == 0 else "0"  # a number that begins with 0 would be seen at once
        others = [digit for digit in "0123456789" if digit != written[place] and digit >= first]
        new = written[:place] + others[rng.integers(len(others))] + written[place + 1 :]
        return _with(text, one, one.digits, new)

    return _of_amounts(text, [one for one in found if not one.year], rng, change)


def _year(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    def change(one: Amount, rng: np.random.Generator) -> str:
        near = [str(int(one.text) + years) for years in (-3, -2, -1, 1, 2, 3)]
        new = [year for year in near if year not in text]  # "in 2018 and 2018" would be seen at once
        return new[rng.integers(len(new))] if new else ""

    return _of_amounts(text, [one for one in found if one.year], rng, change)


def _direction(text: str, found: Sequence[Amount], rng: np.random.Generator) -> Edit | None:
    there = list(_DIRECTION.finditer(text))
    for place in rng.permutation(len(there)).tolist():
        match = there[place]
        new = DIRECTIONS[match["word"].lower()]
        around = text[max(0, match.start() - NEAR) : match.end() + NEAR].lower()
        if re.search(rf"\b{new}\b", around):
            continue
        article = ""
        if match["article"]:
            fitting = "an" if new[0] in "aeiou" else "a"
            article = _in_case_of(match["article"], fitting) + match["space"]
        return Edit((match.span(),), article + _in_case_of(match["word"], new))
    return None


KINDS: dict[str, Callable[[str, Sequence[Amount], np.random.Generator], Edit | None]] = {
    "scale": _scale,
    "percent": _percent,
    "sign": _sign,
    "direction": _direction,
    "digit": _digit,
    "year": _year,
}
"""What can be made wrong, and how."""


def _with(text: str, one: Amount, span: Span, new: str) -> str:
    """An amount whose part at `span` is replaced."""
    return text[one.start : span[0]] + new + text[span[1] : one.end]


def _in_case_of(model: str, word: str) -> str:
    """A word in the capital letters of another one."""
    if model.isupper() and (len(model) > 1 or len(word) == 1):
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
