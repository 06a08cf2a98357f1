"""Who is on the front, and who cannot be told apart: pure functions of what was shown for each pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

Shown = Mapping[tuple[str, str], Collection[str]]
"""(a, b) -> domains in which a was shown to be better than b."""


def dominates(one: str, other: str, better: Shown, worse: Shown) -> bool:
    """Whether `one` is shown to be better in some domain and in no domain seen to be worse.

    `worse` may hold weaker evidence than `better`: then a hint that something was lost is enough to prevent it.
    """
    return bool(better.get((one, other))) and not worse.get((one, other))


def front(names: Sequence[str], better: Shown, worse: Shown) -> dict[str, list[str]]:
    """Return by name who dominates it, in order; those that nobody dominates are the front."""
    return {name: [other for other in names if dominates(other, name, better, worse)] for name in names}


def tied_groups(names: Sequence[str], better: Shown) -> list[list[str]]:
    """Return the largest groups within which no two were shown to differ in any domain, best-placed member first.

    Not to be told apart is no equivalence (a from b, b from c, and yet a from c): one may stand in several groups.
    The insert-and-absorb algorithm (Piepho 2004, J. Comput. Graph. Stat. 13:456-466).
    """
    groups: list[frozenset[str]] = [frozenset(names)] if names else []
    for one, other in combinations(names, 2):
        if not (better.get((one, other)) or better.get((other, one))):
            continue
        split: list[frozenset[str]] = []
        for group in groups:
            split += [group - {one}, group - {other}] if {one, other} <= group else [group]
        unique = list(dict.fromkeys(split))
        groups = [group for group in unique if not any(group < larger for larger in unique)]
    place = {name: number for number, name in enumerate(names)}
    ordered = [sorted(group, key=place.__getitem__) for group in groups]
    return sorted(ordered, key=lambda group: [place[name] for name in group])


def letters(names: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return for each name the letters of its groups: two names that share a letter were not told apart."""
    return {name: "".join(_letter(number) for number, group in enumerate(groups) if name in group) for name in names}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"
