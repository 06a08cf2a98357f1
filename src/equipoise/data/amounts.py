"""Amounts in texts: where a number stands, what it is worth, how exactly it is written; which number is the answer.

An amount is a number with its sign (minus or accounting brackets), currency, scale word and percent sign. Plain
years, numbers of lists and labels ("Table 2"), names (401(k)), dates, times and fractions are none. Numbers that are
written as words are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

PERCENT = "%"
FACTORS = {
    "thousand": Fraction(10**3), "thousands": Fraction(10**3), "k": Fraction(10**3),
    "million": Fraction(10**6), "millions": Fraction(10**6), "mn": Fraction(10**6), "mln": Fraction(10**6),
    "m": Fraction(10**6),
    "billion": Fraction(10**9), "billions": Fraction(10**9), "bn": Fraction(10**9), "bln": Fraction(10**9),
    "b": Fraction(10**9),
    "trillion": Fraction(10**12), "trillions": Fraction(10**12), "tn": Fraction(10**12),
    PERCENT: Fraction(1, 100),
    "basis points": Fraction(1, 10**4), "bps": Fraction(1, 10**4),
}  # fmt: skip
"""What a number is multiplied with for the unit behind it; "percent" and "per cent" are the unit "%"."""
LONGEST = 30
"""Digits of a number; a longer row of digits is no amount."""

_SCALE = r"""
    \s?%
  | \s?-?(?i:thousands?|millions?|billions?|trillions?|mln|bln|mn|bn|tn|per\ ?cent|basis\ points|bps)(?!\w)
  | [kKMB](?!\w)
"""
_AMOUNT = re.compile(
    rf"""
    (?=[-+−–.0-9$€£¥₹A-Z])(?<![\w.^])(?<![0-9][,:/])
    (?:(?<![\w%)\]])(?P<sign>[-+−–](?=[0-9.$€£¥])))?
    (?:(?P<currency>(?:US|CA?|A|HK|NZ|S|R)?[$€£¥₹]\s?|(?:USD|EUR|GBP|CHF|JPY|INR)\s)(?P<inner>[-−–])?)?
    (?!40[13]\s?\(?[kb]\b)
    (?P<number>(?>[0-9]{{1,3}}(?:,[0-9]{{3}})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+))
    (?![,.:/]?[0-9])
    (?P<scale>{_SCALE}|(?(currency)[mb](?!\w)|(?!)))?
    (?!\w|-[KQ]\b)
    """,
    re.VERBOSE,
)
_SIGNS = {"-": "-", "−": "-", "–": "-", "+": "+"}
_TEXT_BEHIND = re.compile(r"\s+[^\W\d_]")
_BEHIND_BRACKET = re.compile(_SCALE, re.VERBOSE)
_LIST_NUMBER = re.compile(r"^[ \t]*(?:[-*•][ \t]*)?\(?\*{0,2}[0-9]{1,2}[.)]\*{0,2}(?=[ \t]+\S)", re.MULTILINE)
_LABEL = re.compile(
    r"\b(?:steps?|tables?|questions?|chapters?|figures?|sections?|phase|options?|part|item|note|level|stage|case|"
    r"scenario|tier|rule|article|exhibit|appendix|page|no\.)\s$",
    re.IGNORECASE,
)
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_MONTHS = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    "nov(?:ember)?|dec(?:ember)?"
)
_DAY_BEFORE = re.compile(rf"\b(?:{_MONTHS})\.?\s$", re.IGNORECASE)
_DAY_BEHIND = re.compile(rf"\s(?:{_MONTHS})\b", re.IGNORECASE)
_BEFORE_YEAR = re.compile(
    rf"\b(?:in|for|from|since|until|till|during|before|after|fiscal|years?|calendar|early|mid|late|end\sof|ended|"
    rf"ending|the|compared\s(?:to|with)|FY|Q[1-4]|(?:{_MONTHS})\.?(?:\s[0-9]{{1,2}},?)?)\s$"
    r"|\b(?:19|20)[0-9]{2}(?:,\s|\s(?:and|to|or|vs\.?|versus|through)\s|\s?[-–]\s?)$",
    re.IGNORECASE,
)
_BEHIND_YEAR = re.compile(r"(?:\s(?:and|to|or|vs\.?|versus|through)\s|\s?[-–]\s?)(?:19|20)[0-9]{2}\b")
_STRONG_MARK = re.compile(r"\banswer(?:\s+is|\s+would\s+be|\s+was)?\b|\\boxed\b|####", re.IGNORECASE)
_WEAK_MARK = re.compile(r"[=≈]|\b(?:makes|equals|amounts\s+to|comes\s+to|adds\s+up\s+to|totals)\b", re.IGNORECASE)
_STRONG_REACH, _WEAK_REACH = 100, 15
_DOWN = re.compile(
    r"\b(?:decreas|declin|fell|fall|drop|loss|lost|lower|reduc|negativ|down|shr[aiu]nk|defici|outflow)", re.IGNORECASE
)
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in a text, from `start` to `end`, with all that belongs to it.

    `digits` is where the bare number stands, `scale` where that stands which is behind it, `unit` a key of `FACTORS`
    or "", `sign` one of "-", "+", "(" and "". `value` counts sign and unit (a percentage is a fraction of 1), `step` is
    what one more in the last written digit is worth. `year` says that it is a calendar year.
    """

    start: int
    end: int
    text: str
    digits: Span
    scale: Span
    unit: str
    sign: str
    value: Fraction
    step: Fraction
    year: bool


def amounts(text: str) -> list[Amount]:
    """Amounts and years of a text in their order."""
    none = [match.span() for match in _LIST_NUMBER.finditer(text)]
    return [one for one in _found(text) if not any(start < one.end and one.start < end for start, end in none)]


def _found(text: str) -> Iterator[Amount]:
    for match in _AMOUNT.finditer(text):
        digits, scale, (start, end) = match.span("number"), match.span("scale"), match.span()
        plain = (start, end) == digits
        if digits[1] - digits[0] > LONGEST or (plain and _is_name(text, start, end)):
            continue
        year = plain and _is_year(text, start, end)
        sign = _SIGNS.get(match["sign"] or match["inner"] or "", "")
        if not year and not sign and text[start - 1 : start] == "(" and text[end : end + 1] == ")":
            if plain and end - start < 3 and _TEXT_BEHIND.match(text, end + 1):
                continue  # (1) first, (2) second
            sign, start, end = "(", start - 1, end + 1
            if scale[0] < 0 and (behind := _BEHIND_BRACKET.match(text, end)):
                scale, end = behind.span(), behind.end()
        yield _amount(text, (start, end), digits, scale, sign, year)


def _amount(text: str, span: Span, digits: Span, scale: Span, sign: str, year: bool) -> Amount:
    number = text[slice(*digits)].replace(",", "")
    unit = " ".join(text[slice(*scale)].lower().lstrip("-").split()) if scale[0] >= 0 else ""
    unit = PERCENT if unit in ("percent", "per cent") else unit
    factor = FACTORS.get(unit, Fraction(1))
    value = Fraction(number) * factor * (-1 if sign in ("-", "(") else 1)
    step = factor / 10 ** len(number.partition(".")[2])
    return Amount(*span, text[slice(*span)], digits, scale, unit, sign, value, step, year)


def _is_name(text: str, start: int, end: int) -> bool:
    """Whether a plain number names a thing or a day: Table 2, March 31, 31 March."""
    before = text[max(0, start - 12) : start]
    day = end - start < 3 and bool(_DAY_BEFORE.search(before) or _DAY_BEHIND.match(text, end))
    return day or bool(_LABEL.search(before))


def _is_year(text: str, start: int, end: int) -> bool:
    if not _YEAR.fullmatch(text, start, end):
        return False
    bracketed = text[start - 1 : start] == "(" and text[end : end + 1] == ")"
    before = text[max(0, start - 24) : start]
    return bracketed or bool(_BEFORE_YEAR.search(before)) or bool(_BEHIND_YEAR.match(text, end))


def stated(text: str) -> Amount | None:
    """The number that a text gives as its answer, or None.

    It is the first amount behind the last "answer is", "answer:", `\\boxed` or `####`; else the amount right behind the
    last "=", "makes", "equals" or the like; else the last amount. A year counts only where there is nothing else.
    """
    there = amounts(text)
    there = [one for one in there if not one.year] or there
    for mark, reach in ((_STRONG_MARK, _STRONG_REACH), (_WEAK_MARK, _WEAK_REACH)):
        for match in reversed(list(mark.finditer(text))):
            behind = next((one for one in there if one.start >= match.end()), None)
            if behind is not None and behind.start - match.end() <= reach:
                return behind
    return there[-1] if there else None


def is_marked(text: str) -> bool:
    """Whether a text says itself that a number is its answer, or is nothing but a number."""
    found = stated(text)
    if found is None:
        return False
    marks = (match.end() for match in _STRONG_MARK.finditer(text))
    return found.text == text.strip(" \n.") or any(0 <= found.start - end <= _STRONG_REACH for end in marks)


def agreement(sample: str, reference: str) -> Literal["right", "wrong", "unclear"] | None:
    """Whether the number that a sample states is the reference's; None where one of them states none.

    `right`: equal after rounding to the reference's last digit. `wrong` is only what is wrong however it is read;
    `unclear` is a sample that is less exact, that leaves out a scale or a percent sign, or whose sign may stand in a
    word such as "decrease".
    """
    said, true = stated(sample), stated(reference)
    if said is None or true is None:
        return None
    if abs(said.value - true.value) <= true.step / 2:
        return "right"
    one_scaled = (said.unit == "") != (true.unit == "")
    readings = [Fraction(1)]
    if one_scaled:
        readings += [Fraction(10**power) for power in (2, 3, 6, 9, 12)]
        readings += [1 / factor for factor in readings[1:]]
    told = bool(_DOWN.search(sample) or _DOWN.search(reference))
    for factor in readings:
        value, within = said.value * factor, max(said.step * factor, true.step) / 2
        if abs(value - true.value) <= within or (told and abs(value + true.value) <= within):
            return "unclear"
    return "wrong"
