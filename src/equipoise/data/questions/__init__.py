"""The built-in questions in MT-Bench's eight categories: two turns each, the second builds on the first answer.

Each category is a file of forms beside this page (`writing.toml`). A form is a way to ask: the text of the first
turn, several follow-ups, and what may stand in their `{slots}`. Forms take turns, and every slot goes through all of
its values before one comes again, so that the first hundred questions are as mixed as the next hundred. A question
whose wording is near an earlier one of its form is left out.

The questions were written for this project; none is one of MT-Bench's own.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

import numpy as np

from equipoise.data.questions import figures, measures, passages, puzzles
from equipoise.data.questions.draw import NAMES, some
from equipoise.data.seeds import generator
from equipoise.data.words import words
from equipoise.recipe_sources import Category
from equipoise.records import InputError

_SLOT = re.compile(r"\{(\w+)\}")
NEAR = 0.5
"""Two first turns are near each other when they share at least so much (Jaccard) of their runs of three words."""
TRIES = 200
"""A form has no more questions once so many draws in a row were near an earlier one."""
MOST = 1000
"""Questions of a category; every one has that many."""
MAKERS: Mapping[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    **figures.MAKERS,
    **measures.MAKERS,
    **passages.MAKERS,
    **puzzles.MAKERS,
}
"""What fills the slots of a form that must agree with each other: numbers with a solution, a passage with its facts."""


@dataclass(frozen=True, slots=True)
class Question:
    """Two user turns."""

    category: Category
    turns: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Form:
    """A way to ask. A slot may name several things that belong together: `"bird, food": [["owl", "mice"], ...]`."""

    first: str
    then: Sequence[str]
    slots: Mapping[str, Sequence[Any]]
    make: str | None = None


def bank(category: Category, n: int) -> list[Question]:
    """The first `n` questions of a category: always the same ones, and the beginning of those of a larger `n`.

    Raises InputError where more than `MOST` are asked.
    """
    if n > MOST:
        raise InputError(
            f"mt_bench_style: {n} built-in questions of {category} asked, there are {MOST}; lower `questions`, "
            "name more `categories`, or give questions of your own with `id`"
        )
    return [Question(category, turns) for turns in islice(_questions(category), n)]


@cache
def forms(category: Category) -> tuple[Form, ...]:
    """The forms of a category. A slot whose value is a name stands for the list of that name in the same file."""
    text = files(__package__).joinpath(f"{category}.toml").read_text(encoding="utf-8")
    page = tomllib.loads(text)
    lists = page.get("lists", {})
    return tuple(
        Form(**{**form, "slots": {key: lists[of] if isinstance(of, str) else of for key, of in form["slots"].items()}})
        for form in ({"slots": {}, **form} for form in page["form"])
    )


def _questions(category: Category) -> Iterator[tuple[str, str]]:
    """One question of each form in turn, until no form has another."""
    streams = [_of_form(form, category, place) for place, form in enumerate(forms(category))]
    while streams:
        drawn = [(stream, next(stream, None)) for stream in streams]
        streams = [stream for stream, turns in drawn if turns]
        yield from (turns for _, turns in drawn if turns)


def _of_form(form: Form, category: Category, place: int) -> Iterator[tuple[str, str]]:
    """The questions of one form, no two of them near each other."""
    bags = {key: _bag(values, category, place, key) for key, values in form.slots.items()}
    follow_ups = _bag(form.then, category, place, "then")
    numbers = generator("questions", category, place, "make")
    earlier: list[frozenset[tuple[str, ...]]] = []
    failures = 0
    while failures < TRIES:
        values = dict(zip(("name", "other", "third"), some(numbers, NAMES, 3), strict=True))
        values.update(MAKERS[form.make](numbers) if form.make else {})
        for key, bag in bags.items():
            values.update(_named(key, next(bag)))
        first = _filled(form.first, values)
        runs = _runs(first)
        if any(len(runs & other) >= NEAR * len(runs | other) for other in earlier):
            failures += 1
            continue
        failures = 0
        earlier.append(runs)
        yield _tidy(first), _tidy(_filled(next(follow_ups), values))


def _bag(values: Sequence[Any], *name: str | int) -> Iterator[Any]:
    """All values in random order, then all of them again in another order, without end."""
    draws = generator("questions", *name)
    while True:
        yield from (values[place] for place in draws.permutation(len(values)).tolist())


def _named(key: str, value: Any) -> dict[str, Any]:
    names = key.split(", ")
    return dict(zip(names, value if len(names) > 1 else [value], strict=True))


def _filled(text: str, values: Mapping[str, Any]) -> str:
    """The text with its slots filled; what fills a slot may have slots, and other braces (code) stay."""
    return _SLOT.sub(lambda found: _filled(str(values[found[1]]), values) if found[1] in values else found[0], text)


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    said = words(text)
    return frozenset(zip(said, said[1:], said[2:], strict=False))


def _tidy(text: str) -> str:
    """A value at the beginning of a sentence may be written in lower case."""
    text = text.strip()
    return text[:1].upper() + text[1:]
