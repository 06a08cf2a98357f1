"""Obvious cases by which a reward model is checked before its first use: good must beat bad.

At most one case in eight may go wrong. With the eight built-in ones a model that tosses a coin passes in 9 of 256
tries; if half of them were enough, it would in more than a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.records import InputError, Message
from equipoise.run_folder import read_json

FILE = "sanity.json"
FORGIVEN = 1 / 8
"""Share of the cases that may go wrong."""


@dataclass(frozen=True, slots=True)
class Case:
    """To `prompt`, `good` is obviously a better answer than `bad`."""

    prompt: tuple[Message, ...]
    good: str
    bad: str


def _case(question: str, good: str, bad: str) -> Case:
    return Case((Message("user", question),), good, bad)


BUILT_IN = (
    _case("What is the capital of France?", "The capital of France is Paris.", "The capital of France is Madrid."),
    _case("What is 7 plus 5?", "7 plus 5 is 12.", "I do not know and I do not care."),
    _case(
        "How can I save money each month?",
        "Write down what you spend for a month, cut what you do not need, and move a fixed sum to a savings "
        "account on pay day.",
        "Go away, you are a fool.",
    ),
    _case(
        "What is a bond?",
        "A bond is a loan to a company or a state that pays interest until it is paid back.",
        "A bond is a bond is a bond is a bond is a bond is a bond is a bond is a bond.",
    ),
    _case(
        "Explain in one sentence what inflation is.",
        "Inflation is a general rise of prices, so that the same money buys less than before.",
        "Penguins swim well and sleep in groups.",
    ),
    _case(
        "My friend lost her job. What can I say to her?",
        "You could say: I am sorry, that is hard. I am here for you; do you want to talk, or to look at jobs together?",
        "asdf qwer zxcv uiop hjkl.",
    ),
    _case("Name three primary colours.", "Red, yellow and blue.", "No."),
    _case(
        "Please write a friendly greeting for a letter.",
        "Dear Anna, I hope this letter finds you well.",
        "Letter the friendly a for greeting write please.",
    ),
)
"""Used where the reward model brings no cases of its own."""


def read_cases(folder: Path) -> tuple[Case, ...] | None:
    """Cases of `sanity.json` beside a reward model, a list of `{prompt: [{role, content}], good, bad}`.

    None where there is no such file; raises InputError where it is malformed or empty.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    value: Any = read_json(path)
    try:
        cases = tuple(
            Case(tuple(Message(turn["role"], turn["content"]) for turn in case["prompt"]), case["good"], case["bad"])
            for case in value
        )
        if not all(isinstance(text, str) for case in cases for text in (case.good, case.bad, *_said(case))):
            raise TypeError("a text is no string")
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not a list of {{prompt: [{{role, content}}], good, bad}} ({error!r})") from None
    if not cases:
        raise InputError(f"{path}: no cases in it; delete the file to use the built-in ones")
    return cases


def _said(case: Case) -> list[str]:
    return [text for message in case.prompt for text in (message.role, message.content)]
