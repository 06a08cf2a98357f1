"""Generators and rewards whose answers a test writes down itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.data.sampling import sample_seed
from equipoise.data.workshop import Workshop
from equipoise.model.generate import Answer
from equipoise.model.reward import Calibration, Conversation
from equipoise.records import Message, Pair

SEEDS = {sample_seed(0, sample): sample for sample in range(10)}


def answer(text: str, **options: Any) -> Answer:
    return Answer(text, tokens=len(text.split()), cut_off=False, **options)


class Scripted:
    """Answers with `say(last message, number of the sample)`; `calls` holds the prompts of every call."""

    def __init__(self, say: Callable[[str, int], Answer]) -> None:
        self.say = say
        self.calls: list[list[str]] = []

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Answer]:
        self.calls.append([prompt[-1].content for prompt in prompts])
        if progress:
            progress(len(prompts), len(prompts))
        return [self.say(prompt[-1].content, SEEDS[seed]) for prompt in prompts]


class LastWord:
    """The reward is the last word as a number; without one it is the reason why there is no reward."""

    identity = "last word"
    calibration = Calibration()

    def __init__(self) -> None:
        self.scored: list[str] = []

    def score(
        self, conversations: Sequence[Conversation], progress: Callable[[int, int], None] | None = None
    ) -> list[float | str]:
        self.scored += [text for _, text in conversations]
        return [_number(text.split()[-1]) for _, text in conversations]


def _number(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return "no number"


def workshop(
    say: Callable[[str, int], Answer], wanted: int, usable: Callable[[Pair], str | None] = lambda pair: None
) -> tuple[Workshop, Scripted]:
    made = Scripted(say)
    return Workshop(wanted=wanted, usable=usable, generator=lambda policy: made, judge=LastWord), made
