"""Finance domain: questions of a client adviser over facts given in the prompt."""

from __future__ import annotations

import random
from collections.abc import Callable

from equipoise.pocket.style import Check, Scene, Task, either, pick
from equipoise.pocket.words import chat_pool

SYSTEMS = ("You are a careful finance adviser.", "You answer questions about money for a bank.")
KINDS_OF_ASSET = ("shares", "bonds", "land", "metals", "loans")
Made = tuple[str, Task]
"""Leading entity and task."""


def holdings(rng: random.Random, held_out: bool) -> Made:
    """What a fund holds, by three notes."""
    firms, places = (
        pick(rng, chat_pool("firms", "holdings", held_out), 3),
        pick(rng, chat_pool("places", "holdings", held_out), 3),
    )
    what = [f"{asset} in {place}" for asset, place in zip(pick(rng, KINDS_OF_ASSET, 3), places, strict=True)]
    facts = " ".join(f"Note: fund {firm} holds {held}." for firm, held in zip(firms, what, strict=True))
    i, j = rng.sample(range(3), 2)
    ask = rng.choice((f"What does fund {firms[i]} hold?", f"A client asks what fund {firms[i]} holds."))
    right, wrong = (f"The fund {firms[i]} holds {what[k]}." for k in (i, j))
    check: Check = {"any_of": [what[i]], "none_of": [what[k] for k in range(3) if k != i]}
    return firms[i], Task(f"{facts} {ask}", right, (wrong,), "That is in the notes of the fund.", check)


def fees(rng: random.Random, held_out: bool) -> Made:
    """The cheaper of two funds."""
    firms = pick(rng, chat_pool("firms", "fees", held_out), 2)
    low, high = sorted(rng.sample(range(10, 100), 2))
    cost = [low, high] if rng.random() < 0.5 else [high, low]
    cheap, dear = firms[cost.index(low)], firms[cost.index(high)]
    ask = rng.choice(("Which fund has the lower fee?", "Which fund is cheaper for a client?"))
    prompt = f"Fund {firms[0]} has a fee of {cost[0]} and fund {firms[1]} has a fee of {cost[1]}. {ask}"
    right, wrong = (f"The cheaper fund is {firm}." for firm in (cheap, dear))
    return firms[0], Task(prompt, right, (wrong,), f"A fee of {low} is less than {high}.", either(cheap, dear))


def horizon(rng: random.Random, held_out: bool) -> Made:
    """Savings for a goal within five years, shares for one that is ten or more years away."""
    goal, place = (
        rng.choice(chat_pool("goals", "horizon", held_out)),
        rng.choice(chat_pool("places", "horizon", held_out)),
    )
    short = rng.random() < 0.5
    years = rng.randint(2, 5) if short else rng.randint(10, 30)
    ask = rng.choice(("Is a savings account or a share fund the better place?", "Would you take savings or shares?"))
    said = ("savings account", "share fund") if short else ("share fund", "savings account")
    right, wrong = (f"A {product} fits this goal." for product in said)
    prompt = f"A client in {place} needs money for a {goal} in {years} years. {ask}"
    return goal, Task(prompt, right, (wrong,), f"The money is needed in {years} years.", either(*said))


def plan(rng: random.Random, held_out: bool) -> Made:
    """The sum of equal monthly payments."""
    firm, goal = rng.choice(chat_pool("firms", "plan", held_out)), rng.choice(chat_pool("goals", "plan", held_out))
    months, rate = rng.randint(2, 9), rng.randint(2, 9)
    total = months * rate
    other = total + rng.choice((-1, 1)) * rate
    prompt = f"A client puts {rate} a month into fund {firm} for a {goal}. How much is it after {months} months?"
    right, wrong = (f"That makes {number} in fund {firm}." for number in (total, other))
    return firm, Task(prompt, right, (wrong,), f"It is {rate} times {months}.", {"any_of": [f"makes {total}"]})


def safety(rng: random.Random, held_out: bool) -> Made:
    """The firm with little debt is the safer one."""
    firms = pick(rng, chat_pool("firms", "safety", held_out), 2)
    i = rng.randrange(2)
    state = ["much debt", "much debt"]
    state[i] = "little debt"
    ask = rng.choice(("Which firm is safer?", "Which of the two is the safer firm?"))
    place = rng.choice(chat_pool("places", "safety", held_out))
    prompt = f"In {place}, {firms[0]} has {state[0]} and {firms[1]} has {state[1]}. {ask}"
    right, wrong = (f"The safer firm is {firm}." for firm in (firms[i], firms[1 - i]))
    return firms[0], Task(prompt, right, (wrong,), "A firm with little debt is safer.", either(firms[i], firms[1 - i]))


KINDS: dict[str, Callable[[random.Random, bool], Made]] = {
    "holdings": holdings,
    "fees": fees,
    "horizon": horizon,
    "plan": plan,
    "safety": safety,
}


def scene(rng: random.Random, held_out: bool) -> Scene:
    """One prompt with a system message."""
    kind = rng.choice(list(KINDS))
    entity, task = KINDS[kind](rng, held_out)
    return Scene("finance", kind, entity, (("system", rng.choice(SYSTEMS)), ("user", task.prompt)), task)
