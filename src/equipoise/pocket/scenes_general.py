"""General domain: small instructions over words given in the prompt, with or without a second turn."""

from __future__ import annotations

import random
from collections.abc import Callable

from equipoise.pocket.style import Check, Scene, Task, pick
from equipoise.pocket.words import COLOURS, COUNT_WORDS, chat_pool

SYSTEMS = ("You are a helpful assistant.", "You are an assistant. Answer in a clear and friendly way.")
CATEGORY = {
    "notes": "extraction",
    "reverse": "writing",
    "pick": "writing",
    "place": "reasoning",
    "compare": "math",
    "count": "math",
}
Made = tuple[str, Task, Task]
"""Leading entity, first turn, second turn (whose prompt makes sense after the first alone)."""


def notes(rng: random.Random, held_out: bool) -> Made:
    """Who has what, by three notes; then the same for another person."""
    who = pick(rng, chat_pool("names", "notes", held_out), 3)
    colours, things = pick(rng, COLOURS, 3), pick(rng, chat_pool("things", "notes", held_out), 3)
    what = [f"{colour} {thing}" for colour, thing in zip(colours, things, strict=True)]
    facts = " ".join(f"Note: {name} has a {thing}." for name, thing in zip(who, what, strict=True))
    i, j = rng.sample(range(3), 2)
    ask = rng.choice((f"What does {who[i]} have?", f"Which thing does {who[i]} have?"))

    def task(prompt: str, one: int, other: int) -> Task:
        check: Check = {"any_of": [what[one]], "none_of": [what[k] for k in range(3) if k != one]}
        right, wrong = (f"By the notes, {who[one]} has a {what[k]}." for k in (one, other))
        return Task(prompt, right, (wrong,), "That is in the notes above.", check)

    return who[i], task(f"{facts} {ask}", i, j), task(f"And what does {who[j]} have?", j, i)


def reverse(rng: random.Random, held_out: bool) -> Made:
    """A list from its end; then the first word of the answer."""
    words = pick(rng, chat_pool("things", "reverse", held_out), rng.choice((2, 3, 3)))
    back = words[::-1]
    ask = rng.choice(("Write these words in reverse order:", "Turn this list around:"))
    right, wrong = (f"Here is the list: {', '.join(listed)}." for listed in (back, words))
    task = Task(f"{ask} {', '.join(words)}", right, (wrong,), "It starts with the last word.", {"sequence": back})
    return words[0], task, place_of(back, "Which word stands first in your answer?", 0, "first")


def choose(rng: random.Random, held_out: bool) -> Made:
    """Two words of a list; then the length of the list."""
    words = pick(rng, chat_pool("things", "pick", held_out), rng.choice((4, 5)))
    one, two = pick(rng, words, 2)
    ask = rng.choice(("Name two of these words:", "Pick any two words from this list:"))
    check: Check = {"choose": {"from": words, "count": 2}}
    prompt, right = f"{ask} {', '.join(words)}", f"My two words are {one} and {two}."
    task = Task(prompt, right, (f"My word is {one}.",), "They are both in your list.", check)
    return words[0], task, length_of(words, "How many words did I give you in all?")


def place(rng: random.Random, held_out: bool) -> Made:
    """The first or last word of a list; then the other one."""
    words = pick(rng, chat_pool("things", "place", held_out), rng.choice((3, 4)))
    ends = [
        place_of(words, "Which word comes first?", 0, "first"),
        place_of(words, "Which word comes last?", -1, "last"),
    ]
    one, two = pick(rng, ends, 2)
    first = one._replace(prompt=f"Look at this list: {', '.join(words)}. {one.prompt}")
    return words[0], first, two._replace(prompt=f"And now: {two.prompt}")


def compare(rng: random.Random, held_out: bool) -> Made:
    """Which of two things costs more (or less); then the opposite."""
    things = pick(rng, chat_pool("things", "compare", held_out), 2)
    low, high = sorted(rng.sample(range(10, 100), 2))
    prices = [low, high] if rng.random() < 0.5 else [high, low]
    dear, cheap = things[prices.index(high)], things[prices.index(low)]

    def task(word: str, this: str, other: str, detail: str) -> Task:
        check: Check = {"any_of": [f"the {this}"], "none_of": [f"the {other}"]}
        right, wrong = (f"The {thing} costs {word}." for thing in (this, other))
        return Task(f"Which one costs {word}?", right, (wrong,), detail, check)

    sides = [
        task("more", dear, cheap, f"You see that {high} is more than {low}."),
        task("less", cheap, dear, f"You see that {low} is less than {high}."),
    ]
    one, two = pick(rng, sides, 2)
    given = f"The {things[0]} costs {prices[0]} and the {things[1]} costs {prices[1]}."
    return things[0], one._replace(prompt=f"{given} {one.prompt}"), two._replace(prompt=f"And now: {two.prompt}")


def count(rng: random.Random, held_out: bool) -> Made:
    """The length of a list; then its last word."""
    words = pick(rng, chat_pool("things", "count", held_out), rng.choice((2, 3, 4, 5)))
    task = length_of(words, f"How many words are in this list: {', '.join(words)}?")
    return words[0], task, place_of(words, "Which word comes last in it?", -1, "last")


def place_of(words: list[str], ask: str, index: int, name: str) -> Task:
    """A question for the first or last word of a list."""
    right = words[index]
    others = [word for word in words if word != right]
    wrong = tuple(f"The {name} word is {word}." for word in others)
    check: Check = {"any_of": [right], "none_of": others}
    return Task(ask, f"The {name} word is {right}.", wrong, "I looked at the order of the list.", check)


def length_of(words: list[str], ask: str) -> Task:
    """A question for the length of a list."""
    n = len(words)
    others = [word for k in range(1, 8) if k != n for word in (COUNT_WORDS[k], str(k))]
    right, wrong = (f"There are {COUNT_WORDS[k]} words in it." for k in (n, n + 1))
    check: Check = {"any_of": [COUNT_WORDS[n], str(n)], "none_of": others}
    return Task(ask, right, (wrong,), "I looked at the list again.", check)


KINDS: dict[str, Callable[[random.Random, bool], Made]] = {
    "notes": notes,
    "reverse": reverse,
    "pick": choose,
    "place": place,
    "compare": compare,
    "count": count,
}


def scene(rng: random.Random, held_out: bool) -> Scene:
    """A single-turn prompt with a system message."""
    kind = rng.choice(list(KINDS))
    entity, task, _ = KINDS[kind](rng, held_out)
    return Scene("general", kind, entity, (("system", rng.choice(SYSTEMS)), ("user", task.prompt)), task)


def two_turns(rng: random.Random, held_out: bool) -> tuple[Scene, Scene]:
    """The first and the second turn of one conversation; the second prompt holds the right first answer."""
    kind = rng.choice(list(KINDS))
    entity, first, second = KINDS[kind](rng, held_out)
    turns = (("user", first.prompt), ("assistant", first.right), ("user", second.prompt))
    return Scene("general", kind, entity, turns[:1], first), Scene("general", kind, entity, turns, second)
