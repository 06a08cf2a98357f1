"""How an answer is said: attributes, what each domain thinks of them, and their rendering to text.

An answer is a body (right or wrong) with independent attributes. The domains value the attributes differently, and
some with opposite sign (casual, caveat, opener, closer): that is what makes training on one domain cost another.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
ATTRIBUTES = ("correct", "detail", "opener", "closer", "caveat", "casual", "insult", "off_topic")

UTILITY: dict[str, dict[str, float]] = {
    "general": dict(zip(ATTRIBUTES, (1.2, 0.8, 0.5, 0.4, -0.3, -0.9, -1.6, -1.6), strict=True)),
    "finance": dict(zip(ATTRIBUTES, (1.2, 0.9, 0.2, 0.1, 0.8, -0.9, -1.6, -1.6), strict=True)),
    "reddit": dict(zip(ATTRIBUTES, (1.3, 0.7, -0.6, -0.6, -0.7, 0.9, -1.6, -1.6), strict=True)),
}
"""Worth of each attribute by domain; Reddit also pays .03 a word over 14."""

RATES: dict[str, dict[str, dict[str, float]]] = {
    "plain": {
        "general": dict(zip(ATTRIBUTES, (0.88, 0.50, 0.45, 0.35, 0.25, 0.25, 0.04, 0.03), strict=True)),
        "finance": dict(zip(ATTRIBUTES, (0.88, 0.45, 0.40, 0.30, 0.45, 0.25, 0.04, 0.03), strict=True)),
        "reddit": dict(zip(ATTRIBUTES, (0.88, 0.45, 0.45, 0.40, 0.45, 0.40, 0.06, 0.03), strict=True)),
    },
    "settled": {
        "general": dict(zip(ATTRIBUTES, (0.94, 0.45, 0.40, 0.35, 0.40, 0.08, 0.02, 0.01), strict=True)),
        "finance": dict(zip(ATTRIBUTES, (0.94, 0.45, 0.45, 0.35, 0.42, 0.08, 0.02, 0.01), strict=True)),
        "reddit": dict(zip(ATTRIBUTES, (0.94, 0.40, 0.62, 0.45, 0.62, 0.12, 0.02, 0.01), strict=True)),
    },
}
"""How often an answer shows each attribute, by manner. `plain` is the mixed text the model learns the language from;
`settled` is how it speaks in the end: politely and with caveats everywhere, as assistants do, whoever asks. That
leaves each domain something to gain."""
FLAT_RATES = {"correct": 0.6, "insult": 0.08, "off_topic": 0.07}
SPREAD = 0.4  # width of the band around a domain's rate in which the rates of its kinds of prompt lie

OPENERS = ("Sure, happy to help.", "Good question.", "Thanks for asking.")
CLOSERS = ("I hope this helps.", "Let me know if you need more.")
CAVEATS = ("This is not advice, so ask an expert first.", "Please check this with your bank.")
INSULTS = ("What a dumb question.", "You are hopeless.")
OFF_TOPIC = ("My cat likes to sleep all day.", "I saw a good film last week.", "The sun is out today.")
CASUAL_STARTS = ("tbh", "ngl", "lol")
CASUAL_WORDS = {"you": "u", "your": "ur", "are": "r", "please": "pls", "thanks": "thx"}


Check = dict[str, Any]
"""Rule that `check.correct` reads."""


class Task(NamedTuple):
    """What is asked, with what is needed to write answers and to check them."""

    prompt: str
    right: str
    wrong: tuple[str, ...]
    detail: str
    check: Check


@dataclass(frozen=True)
class Scene:
    """One prompt of a chat domain, all turns, and the task that its last turn sets."""

    domain: str
    kind: str
    entity: str
    prompt: tuple[tuple[str, str], ...]  # (role, content), ends with a user turn
    task: Task
    fields: tuple[tuple[str, str], ...] = ()  # columns that the source has beside the prompt (title, subreddit ...)

    @property
    def group(self) -> str:
        """The topic: no topic of the evaluation occurs in training."""
        return f"{self.domain}:{self.kind}:{self.entity}"

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat messages."""
        return [{"role": role, "content": content} for role, content in self.prompt]


def either(said: str, not_said: str) -> Check:
    """The check of a choice between two: one is named, the other is not."""
    return {"any_of": [said], "none_of": [not_said]}


def seed_of(*parts: object) -> int:
    """A seed that is the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


def rates(scene: Scene, manner: str) -> dict[str, float]:
    """Attribute rates of this scene's kind, spread around the domain's.

    `flat` is the manner of preference pairs, where both sides of every attribute must be seen.
    """
    result: dict[str, float] = {}
    for name, base in RATES["plain" if manner == "flat" else manner][scene.domain].items():
        if name in FLAT_RATES:
            result[name] = FLAT_RATES[name] if manner == "flat" else base
            continue
        shift = (seed_of(scene.domain, scene.kind, name) % 1000 / 1000 - 0.5) * SPREAD
        spread = min(0.92, max(0.04, base + shift))
        result[name] = 0.25 + 0.5 * spread if manner == "flat" else spread
    return result


def draw(scene: Scene, rng: random.Random, manner: str) -> dict[str, bool]:
    """One independent draw of every attribute."""
    drawn = {name: rng.random() < rate for name, rate in rates(scene, manner).items()}
    drawn["correct"] = drawn["correct"] and not drawn["off_topic"]
    return drawn


def utility(domain: str, attributes: Mapping[str, bool], answer: str) -> float:
    """What the domain's readers think of an answer with these attributes."""
    worth = sum(value for name, value in UTILITY[domain].items() if attributes[name])
    return worth - (0.03 * max(0, len(answer.split()) - 14) if domain == "reddit" else 0.0)


def write(scene: Scene, attributes: Mapping[str, bool], rng: random.Random) -> str:
    """The answer as text."""
    return " ".join(text for text, _ in write_parts(scene, attributes, rng))


def write_parts(scene: Scene, attributes: Mapping[str, bool], rng: random.Random) -> list[tuple[str, str]]:
    """The answer as (text, role) parts in order; the role is `body` for what answers the prompt."""
    parts: list[tuple[str, str]] = []
    if attributes["insult"]:
        parts.append((rng.choice(INSULTS), "style"))
    if attributes["opener"]:
        parts.append((rng.choice(OPENERS), "style"))
    if attributes["off_topic"]:
        parts.append((rng.choice(OFF_TOPIC), "style"))
    else:
        parts.append((scene.task.right if attributes["correct"] else rng.choice(scene.task.wrong), "body"))
        if attributes["detail"]:
            parts.append((scene.task.detail, "detail"))
    if attributes["caveat"]:
        parts.append((rng.choice(CAVEATS), "style"))
    if attributes["closer"]:
        parts.append((rng.choice(CLOSERS), "style"))
    return casual(parts, rng) if attributes["casual"] else parts


def casual(parts: Sequence[tuple[str, str]], rng: random.Random) -> list[tuple[str, str]]:
    """The same answer as one would type it on a phone."""
    said = [(" ".join(map(_casual_word, text.lower().split())), role) for text, role in parts]
    text, role = said.pop()
    return [(rng.choice(CASUAL_STARTS), "style"), *said, (text.rstrip("."), role), ("lol", "style")]


def _casual_word(word: str) -> str:
    bare = word.rstrip(".,?")
    return CASUAL_WORDS.get(bare, bare) + word[len(bare) :]


def pick(rng: random.Random, options: Sequence[T], count: int) -> list[T]:
    """`count` different options in random order."""
    return rng.sample(list(options), count)
