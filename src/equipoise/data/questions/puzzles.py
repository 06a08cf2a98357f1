"""Puzzles with exactly one solution: a secret is drawn, and clues are added until nothing else fits them.

The stories around them stand in `reasoning.toml`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import reduce
from itertools import combinations, permutations, product
from operator import and_
from typing import Any

import numpy as np

from equipoise.data.questions.draw import NAMES, listed, pick, some, whole

Rng = np.random.Generator
Values = dict[str, Any]
Order = tuple[str, ...]
Clue = tuple[str, Callable[[Any], bool]]
"""What is said, and whether a solution fits it."""

DIRECTIONS = ("north", "east", "south", "west")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
GROUPS = {
    "things that float": ("cork", "iceberg", "driftwood", "buoy"),
    "parts of a ship": ("keel", "mast", "rudder", "anchor"),
    "musical instruments": ("oboe", "harp", "cello", "trumpet"),
    "birds": ("heron", "wren", "magpie", "swift"),
    "units of measurement": ("litre", "knot", "volt", "acre"),
    "parts of a tree": ("bark", "crown", "root", "twig"),
    "tools": ("chisel", "mallet", "pliers", "spanner"),
    "kinds of bread": ("rye", "pitta", "baguette", "pumpernickel"),
    "things with teeth": ("comb", "zip", "gear", "shark"),
    "rivers": ("Danube", "Nile", "Mekong", "Volga"),
    "currencies": ("yen", "rupee", "krona", "peso"),
    "chess pieces": ("rook", "bishop", "queen", "pawn"),
    "fabrics": ("linen", "velvet", "denim", "silk"),
    "kinds of poem": ("ode", "sonnet", "haiku", "limerick"),
    "things in an office": ("stapler", "toner", "swivel chair", "hole punch"),
    "games of cards": ("bridge", "poker", "patience", "rummy"),
    "spices": ("saffron", "cumin", "nutmeg", "clove"),
    "kinds of weather": ("sleet", "drizzle", "gale", "fog"),
    "dances": ("tango", "waltz", "polka", "samba"),
    "vehicles": ("tram", "sledge", "moped", "scooter"),
    "knots": ("bowline", "reef knot", "clove hitch", "sheepshank"),
    "parts of a shoe": ("tongue", "eyelet", "heel", "sole"),
    "landforms": ("plateau", "gorge", "dune", "isthmus"),
    "precious stones": ("ruby", "opal", "garnet", "topaz"),
}
"""Four words each; in its first sense no word fits a second group."""
WORDS = (
    "GARDEN", "MARBLE", "PLANET", "BRIDGE", "CANDLE", "SILVER", "WINTER", "JACKET", "FOREST", "MIRROR", "POCKET",
    "VIOLIN", "ORANGE", "HARBOR", "TICKET", "SADDLE", "MEADOW", "COPPER", "LADDER", "WINDOW", "BASKET", "THUNDER",
)  # fmt: skip


def ordering(rng: Rng) -> Values:
    """Five people in an order that the clues settle."""
    people = some(rng, NAMES, 5)
    secret = tuple(some(rng, people, 5))
    clues = _enough(rng, _order_clues(secret), permutations(people), secret)
    return {"people": listed(people), "clues": " ".join(clues), "middle": secret[2]}


def grid(rng: Rng) -> Values:
    """Four people, each with one thing and one day, that the clues settle."""
    people = some(rng, NAMES, 4)
    things = some(
        rng, ("a violin", "a bicycle", "a parrot", "a telescope", "a canoe", "a typewriter", "an accordion"), 4
    )
    days = some(rng, DAYS, 4)
    secret = (tuple(some(rng, things, 4)), tuple(some(rng, days, 4)))
    solutions = product(permutations(things), permutations(days))
    clues = _enough(rng, _grid_clues(people, *secret), solutions, secret)
    described = {"people": listed(people), "things": listed(things), "days": listed(sorted(days, key=DAYS.index))}
    return {**described, "clues": " ".join(clues), "one": people[0], "thing": things[1]}


def liars(rng: Rng) -> Values:
    """Three people, each of whom always lies or always tells the truth, with statements that settle who does which."""
    people = some(rng, NAMES, 3)
    kinds = list(product((True, False), repeat=3))
    while True:
        said = [pick(rng, _claims(people, place)) for place in range(3)]
        fitting = [kind for kind in kinds if all(claim(kind) == kind[place] for place, (_, claim) in enumerate(said))]
        if len(fitting) == 1:
            words = [f'{name} says: "{text}"' for name, (text, _) in zip(people, said, strict=True)]
            return {"people": listed(people), "statements": " ".join(words), "one": people[2]}


def walk(rng: Rng) -> Values:
    """A walk with turns that ends a whole number of kilometres away from its start."""
    while True:
        facing, x, y, parts = whole(rng, 0, 3), 0, 0, []
        first = DIRECTIONS[facing]
        for leg in range(whole(rng, 3, 4)):
            if leg:
                turn = pick(rng, (1, -1, 2))
                facing = (facing + turn) % 4
                parts.append({1: "turns right", -1: "turns left", 2: "turns round"}[turn])
            length = whole(rng, 2, 12)
            x += length * (0, 1, 0, -1)[facing]
            y += length * (1, 0, -1, 0)[facing]
            parts.append(f"goes {length} km")
        if (x or y) and math.isqrt(x * x + y * y) ** 2 == x * x + y * y:
            return {"facing": first, "legs": ", ".join(parts[:-1]) + " and " + parts[-1], "stray": whole(rng, 2, 6)}


def meeting(rng: Rng) -> Values:
    """Four people with free hours of which exactly one is common to all."""
    people = some(rng, NAMES, 4)
    hours = list(range(9, 18))
    common = pick(rng, hours[1:-1])
    while True:
        free = [sorted({common, *some(rng, hours, whole(rng, 3, 5))}) for _ in people]
        if set.intersection(*map(set, free)) == {common}:
            lines = [f"{name} is free at {listed([str(h) for h in f])}." for name, f in zip(people, free, strict=True)]
            return {"people": listed(people), "free": " ".join(lines), "one": people[1]}


def code(rng: Rng) -> Values:
    """A word in a simple code, and another word in the same code."""
    shown, hidden, asked = some(rng, WORDS, 3)
    shift = whole(rng, 1, 6)
    rules: tuple[Callable[[str], str], ...] = (
        lambda word: _shifted(word, shift),
        lambda word: _shifted(word[::-1], shift),
        lambda word: _shifted(word, -shift),
        lambda word: "".join(_shifted(sign, place + 1) for place, sign in enumerate(word)),
        lambda word: "".join(word[place + 1 : place + 2] + word[place] for place in range(0, len(word), 2)),
        lambda word: "-".join(str(ord(sign) - ord("A") + shift) for sign in word),
        lambda word: "".join(_shifted(sign, shift if place % 2 else -shift) for place, sign in enumerate(word)),
    )
    rule = pick(rng, rules)
    return {"shown": shown, "coded": rule(shown), "secret": rule(hidden), "asked": asked}


def jugs(rng: Rng) -> Values:
    """Two jugs with which an amount can be measured."""
    while True:
        small, large = whole(rng, 3, 9), whole(rng, 5, 13)
        amount = whole(rng, 1, large - 1)
        if small < large and amount != small and amount % math.gcd(small, large) == 0 and large % small:
            return {"small": small, "large": large, "amount": amount}


def sorting(rng: Rng) -> Values:
    """Twelve words that belong to three groups, mixed."""
    names = some(rng, list(GROUPS), 3)
    words = some(rng, [word for name in names for word in GROUPS[name]], 12)
    return {"words": ", ".join(words), "one": words[0], "two": words[5]}


def journey(rng: Rng) -> Values:
    """Two ways to travel, of which one arrives earlier."""
    hour, quarter = whole(rng, 7, 15), whole(rng, 0, 45, 15)
    until = whole(rng, 130, 190, 5)
    bus, change, train = whole(rng, 25, 60, 5), whole(rng, 10, 35, 5), whole(rng, 35, 80, 5)
    walk, taxi = whole(rng, 10, 25, 5), whole(rng, 70, 140, 5)
    end = hour * 60 + quarter + until
    return {
        "now": f"{hour}:{quarter:02d}", "end": f"{end // 60}:{end % 60:02d}", "bus": bus, "change": change,
        "train": train, "walk": walk, "taxi": taxi, "delay": whole(rng, 10, 30, 5), "fare": whole(rng, 25, 60, 5),
    }  # fmt: skip


def _enough(rng: Rng, clues: Sequence[Clue], solutions: Iterable[Any], secret: Any) -> list[str]:
    """As many clues as settle the secret, none of which could be left out."""
    every = list(solutions)
    chosen = some(rng, [(text, _mask(fits, every)) for text, fits in clues], len(clues))
    alone = 1 << every.index(secret)
    for clue in list(chosen):
        fewer = [one for one in chosen if one is not clue]
        if reduce(and_, (mask for _, mask in fewer)) == alone:
            chosen = fewer
    return [text for text, _ in chosen]


def _mask(fits: Callable[[Any], bool], every: Sequence[Any]) -> int:
    """The solutions that fit, as bits: comparing sets of solutions is then one operation."""
    return sum(1 << place for place, one in enumerate(every) if fits(one))


def _order_clues(secret: Order) -> list[Clue]:
    """True statements about an order of people; the first stands in front."""
    clues: list[Clue] = []
    for a, b in combinations(secret, 2):
        apart = secret.index(b) - secret.index(a)
        clues.append((f"{a} comes before {b}.", _ahead(a, b, range(1, 5))))
        if apart == 1:
            clues.append((f"{a} comes directly before {b}.", _ahead(a, b, (1,))))
        else:
            clues.append((f"Exactly {_number(apart - 1)} between {a} and {b}.", _ahead(a, b, (apart, -apart))))
    for place, word in ((0, "first"), (2, "third"), (4, "last")):
        other = secret[(place + 1) % 5]
        clues.append((f"{other} is not {word}.", _elsewhere(other, place)))
    return clues


def _ahead(a: str, b: str, steps: Container[int]) -> Callable[[Order], bool]:
    return lambda order: order.index(b) - order.index(a) in steps


def _elsewhere(one: str, place: int) -> Callable[[Order], bool]:
    return lambda order: order[place] != one


def _number(people: int) -> str:
    return "one person is" if people == 1 else f"{('two', 'three')[people - 2]} people are"


def _grid_clues(people: Sequence[str], things: Order, days: Order) -> list[Clue]:
    """True statements about who has what, and when; a solution is (things, days) in the order of people."""
    clues: list[Clue] = []
    for one, name in enumerate(people):
        for other in range(len(people)):
            if other != one:
                clues.append((f"{name} does not have {things[other]}.", _lacks(0, one, things[other])))
                clues.append((f"{name} does not come on {days[other]}.", _lacks(1, one, days[other])))
        clues.append((f"Whoever has {things[one]} comes on {days[one]}.", _goes_with(things[one], days[one])))
    for pair in combinations(range(len(people)), 2):
        early, late = sorted(pair, key=lambda place: DAYS.index(days[place]))
        text = f"{people[early]} comes earlier in the week than the person with {things[late]}."
        clues.append((text, _earlier(early, things[late])))
    return clues


def _lacks(part: int, person: int, what: str) -> Callable[[tuple[Order, Order]], bool]:
    return lambda solution: solution[part][person] != what


def _goes_with(thing: str, day: str) -> Callable[[tuple[Order, Order]], bool]:
    return lambda solution: solution[1][solution[0].index(thing)] == day


def _earlier(person: int, thing: str) -> Callable[[tuple[Order, Order]], bool]:
    def fits(solution: tuple[Order, Order]) -> bool:
        things, days = solution
        return DAYS.index(days[person]) < DAYS.index(days[things.index(thing)])

    return fits


def _claims(people: Sequence[str], speaker: int) -> list[Clue]:
    """What one of three people may say; a solution tells of each whether they are truthful."""
    a, b = (place for place in range(3) if place != speaker)
    return [
        (f"{people[a]} is a liar.", lambda k: not k[a]),
        (f"{people[b]} always tells the truth.", lambda k: bool(k[b])),
        (f"{people[a]} and {people[b]} are of the same kind.", lambda k: k[a] == k[b]),
        (f"At least one of {people[a]} and {people[b]} is a liar.", lambda k: not (k[a] and k[b])),
        ("Exactly one of us three is a liar.", lambda k: sum(k) == 2),
        ("Exactly two of us are liars.", lambda k: sum(k) == 1),
        (f"I am of the same kind as {people[b]}.", lambda k: k[speaker] == k[b]),
        (f"If {people[a]} tells the truth, so does {people[b]}.", lambda k: not k[a] or bool(k[b])),
    ]


def _shifted(word: str, by: int) -> str:
    return "".join(chr((ord(sign) - ord("A") + by) % 26 + ord("A")) for sign in word)


MAKERS: Mapping[str, Callable[[Rng], Values]] = {
    maker.__name__: maker for maker in (ordering, grid, liars, walk, meeting, code, jugs, sorting, journey)
}
