"""Small draws that the makers of figures, puzzles and passages share, and the names of made-up people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Value = TypeVar("Value")

NAMES = (
    "Amara", "Bruno", "Chiara", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas", "Kavita", "Lars", "Maeve",
    "Nadia", "Oscar", "Priya", "Quentin", "Rosa", "Samir", "Tilda", "Ugo", "Vera", "Wanda", "Xenia", "Yusuf", "Zoe",
    "Anton", "Bea", "Carlos", "Delia", "Edgar", "Fatima", "Gustav", "Hanna", "Ivo", "Judit",
)  # fmt: skip
SURNAMES = (
    "Abara", "Bellini", "Castellan", "Drummond", "Eriksen", "Fontaine", "Grünwald", "Hashimoto", "Iversen", "Jankowski",
    "Kowalczyk", "Lindqvist", "Marchetti", "Nakamura", "Okafor", "Petrov", "Quiroga", "Rosenthal", "Sandoval",
    "Takahashi", "Ulrich", "Varga", "Whitfield", "Yıldız", "Zimmer", "Ashworth", "Brannigan", "Corrigan", "Delacroix",
)  # fmt: skip


def whole(rng: np.random.Generator, low: int, high: int, step: int = 1) -> int:
    """A whole number from `low` to `high`, both included, in steps."""
    return low + step * int(rng.integers((high - low) // step + 1))


def pick(rng: np.random.Generator, values: Sequence[Value]) -> Value:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def some(rng: np.random.Generator, values: Sequence[Value], count: int) -> list[Value]:
    """`count` different values in random order."""
    return [values[place] for place in rng.permutation(len(values))[:count].tolist()]


def person(rng: np.random.Generator) -> str:
    """First name and surname."""
    return f"{pick(rng, NAMES)} {pick(rng, SURNAMES)}"


def listed(values: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]
