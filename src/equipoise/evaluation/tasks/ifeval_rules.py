"""The 25 instruction kinds of IFEval: each rule is a pure function (response, values) -> followed or not.

Source: https://arxiv.org/abs/2311.07911, and the behaviour of the published program (link in `ifeval.py`).
Where a rule looks odd (bold text counts twice as a highlight, paragraphs in one kind are divided by `***`),
the published one does the same, and scores are comparable only if it is kept. Three deliberate differences:
keywords are plain text, never patterns; a letter may be any character (the published program replaces `#` and
`!` by a random letter); a missing value is an error, where the published program draws one at random.

Every rule takes time linear in the length of the response: a model that repeats one character must not hang a
run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from equipoise.evaluation.language import detect_language
from equipoise.evaluation.tasks.ifeval_rules_text import count_capital_words, count_sentences

Values = Mapping[str, Any]
Rule = Callable[[str, Values], bool]

CONSTRAINED_ANSWERS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
# `\s*` would start anew at each of a thousand blank lines; the bullet's own line is enough.
_STAR_BULLET = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
_DASH_BULLET = re.compile(r"^[^\S\n]*-.*$", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*([^\n*]*)\*\*")
_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}
_DIVIDER = re.compile(r"\s?\*\*\*\s?")


# The values of an instruction -------------------------------------------------------------------------------


def _whole(values: Values, name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1 != 0:
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    return int(value)


def _text(values: Values, name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be a text, not {value!r}")
    return value.strip()


def _texts(values: Values, name: str) -> list[str]:
    value = values.get(name)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f"{name} must be a list of texts, not {value!r}")
    return list(value)


def _compared(count: int, values: Values, threshold: str, relation: str = "relation") -> bool:
    limit = _whole(values, threshold)
    match values.get(relation):
        case "less than":
            return count < limit
        case "at least":
            return count >= limit
        case other:
            raise ValueError(f"{relation} must be 'less than' or 'at least', not {other!r}")


# keywords ---------------------------------------------------------------------------------------------------


def _keywords_exist(response: str, values: Values) -> bool:
    """Every keyword occurs somewhere, also inside a longer word."""
    return all(re.search(re.escape(word), response, re.IGNORECASE) for word in _texts(values, "keywords"))


def _keyword_frequency(response: str, values: Values) -> bool:
    pattern = re.compile(re.escape(_text(values, "keyword")), re.IGNORECASE)
    return _compared(len(pattern.findall(response)), values, "frequency")


def _forbidden_words(response: str, values: Values) -> bool:
    """No forbidden word occurs as a word of its own."""
    words = _texts(values, "forbidden_words")
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", response, re.IGNORECASE) for word in words)


def _letter_frequency(response: str, values: Values) -> bool:
    letter = _text(values, "letter").lower()
    return _compared(response.lower().count(letter), values, "let_frequency", "let_relation")


# language and case ------------------------------------------------------------------------------------------


def _response_language(response: str, values: Values) -> bool:
    """A response in which no language can be found (digits only) counts as followed."""
    return detect_language(response) in (_text(values, "language"), None)


def _english_capital(response: str, values: Values) -> bool:
    return response.isupper() and detect_language(response) in ("en", None)


def _english_lowercase(response: str, values: Values) -> bool:
    return response.islower() and detect_language(response) in ("en", None)


def _capital_word_frequency(response: str, values: Values) -> bool:
    return _compared(count_capital_words(response), values, "capital_frequency", "capital_relation")


# length -----------------------------------------------------------------------------------------------------


def _number_sentences(response: str, values: Values) -> bool:
    return _compared(count_sentences(response), values, "num_sentences")


def _number_words(response: str, values: Values) -> bool:
    """Runs of letters and digits: `don't` is two words, as in the published program."""
    return _compared(len(re.findall(r"\w+", response)), values, "num_words")


def _number_paragraphs(response: str, values: Values) -> bool:
    """Paragraphs are divided by `***`; the first and the last part may be empty, no other."""
    parts = [part.strip() for part in _DIVIDER.split(response)]
    if not all(parts[1:-1]):
        return False
    return sum(1 for part in parts if part) == _whole(values, "num_paragraphs")


def _nth_paragraph_first_word(response: str, values: Values) -> bool:
    """So many paragraphs, divided by an empty line, and the n-th begins with the word.

    Empty paragraphs are left out of the number, but keep their place when the n-th is looked up.
    """
    parts = [part.strip() for part in response.split("\n\n")]
    number, nth = sum(1 for part in parts if part), _whole(values, "nth_paragraph")
    if number != _whole(values, "num_paragraphs") or not 1 <= nth <= number or not parts[nth - 1]:
        return False
    word = parts[nth - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == _text(values, "first_word").lower()


# content and format -----------------------------------------------------------------------------------------


def _number_placeholders(response: str, values: Values) -> bool:
    """`[...]` on one line, counted from left to right."""
    count = 0
    for line in response.split("\n"):
        end = -1
        while (start := line.find("[", end + 1)) >= 0 and (end := line.find("]", start)) >= 0:
            count += 1
    return count >= _whole(values, "num_placeholders")


def _postscript(response: str, values: Values) -> bool:
    """The marker occurs, anywhere; the two usual ones may be written with spaces."""
    marker, lowered = _text(values, "postscript_marker"), response.lower()
    pattern = _POSTSCRIPTS.get(marker)
    return bool(pattern.search(lowered)) if pattern else marker.lower() in lowered


def _number_bullet_lists(response: str, values: Values) -> bool:
    """Exactly so many lines begin with one `*` or with `-`."""
    count = len(_STAR_BULLET.findall(response)) + len(_DASH_BULLET.findall(response))
    return count == _whole(values, "num_bullets")


def _constrained_response(response: str, values: Values) -> bool:
    return any(answer in response for answer in CONSTRAINED_ANSWERS)


def _number_highlighted_sections(response: str, values: Values) -> bool:
    """`*text*`; text between double asterisks counts as well."""
    found = _HIGHLIGHT.findall(response) + _DOUBLE_HIGHLIGHT.findall(response)
    return sum(1 for text in found if text.strip()) >= _whole(values, "num_highlights")


def _multiple_sections(response: str, values: Values) -> bool:
    """The mark and a number: `Section 1`."""
    mark = re.escape(_text(values, "section_spliter"))
    return len(re.findall(rf"{mark}\s?\d+", response)) >= _whole(values, "num_sections")


def _json_format(response: str, values: Values) -> bool:
    """The whole response is JSON, inside a Markdown fence or not."""
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):  # a thousand opening brackets are no answer
        return False
    return True


def _title(response: str, values: Values) -> bool:
    """`<<...>>` with something inside, from the first `<<` of a line to its last `>>`."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start <= end - 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


# combination, start and end, punctuation --------------------------------------------------------------------


def _two_responses(response: str, values: Values) -> bool:
    """Two different responses divided by six asterisks; only the outer parts may be empty."""
    parts = [part.strip() for part in response.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeat_prompt(response: str, values: Values) -> bool:
    return response.strip().lower().startswith(_text(values, "prompt_to_repeat").lower())


def _end_checker(response: str, values: Values) -> bool:
    return response.strip().strip('"').lower().endswith(_text(values, "end_phrase").lower())


def _quotation(response: str, values: Values) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _no_comma(response: str, values: Values) -> bool:
    return "," not in response


RULES: dict[str, Rule] = {
    "keywords:existence": _keywords_exist,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}
