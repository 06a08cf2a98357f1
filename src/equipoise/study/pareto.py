"""Who is on the front, and who cannot be told apart: pure functions of what was shown for each pair."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

Shown = Mapping[tuple[str, str], Collection[str]]
"""(a, b) -> domains in which a was shown to be better than b."""

MOST_GROUPS = 100
"""With more groups of recipes that were not told apart than this there are no letters."""


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
    These are the maximal cliques of "not told apart" (Bron & Kerbosch 1973 with Tomita's pivot), the groups that
    Piepho (2004, J. Comput. Graph. Stat. 13:456-466) finds pair by pair. Sets are bits of whole numbers. Many recipes
    in several domains can have a hundred thousand such groups, which tell nobody anything: with more than MOST_GROUPS
    there are none.
    """
    alike = _not_told_apart(names, better)
    found: list[int] = []
    waiting = [(0, (1 << len(names)) - 1, 0)] if names else []
    while waiting:
        group, open_, closed = waiting.pop()
        if not open_ and not closed:
            found.append(group)
            if len(found) > MOST_GROUPS:
                return []
            continue
        pivot = max(_bits(open_ | closed), key=lambda number: (open_ & alike[number]).bit_count())
        for number in _bits(open_ & ~alike[pivot]):
            waiting.append((group | 1 << number, open_ & alike[number], closed & alike[number]))
            open_ &= ~(1 << number)
            closed |= 1 << number
    return [[names[number] for number in numbers] for numbers in sorted(list(_bits(group)) for group in found)]


def _not_told_apart(names: Sequence[str], better: Shown) -> list[int]:
    """For each name the others that were not shown to differ from it, as bits."""
    place = {name: number for number, name in enumerate(names)}
    alike = [((1 << len(names)) - 1) & ~(1 << number) for number in range(len(names))]
    for pair, domains in better.items():
        if domains and pair[0] in place and pair[1] in place:
            one, other = (place[name] for name in pair)
            alike[one] &= ~(1 << other)
            alike[other] &= ~(1 << one)
    return alike


def _bits(numbers: int) -> Iterator[int]:
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest


def letters(names: Sequence[str], groups: Sequence[Sequence[str]]) -> dict[str, str]:
    """Return for each name the letters of its groups: two names that share a letter were not told apart."""
    return {name: "".join(_letter(number) for number, group in enumerate(groups) if name in group) for name in names}


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"({number + 1})"
