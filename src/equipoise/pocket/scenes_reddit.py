"""Reddit domain: posts about money with a title and a text; the prompt is the two with an empty line between."""

from __future__ import annotations

import random
from collections.abc import Callable

from equipoise.pocket.style import Scene, Task, either, pick
from equipoise.pocket.words import chat_pool

Made = tuple[str, str, str, Task]
"""Leading entity, subreddit, title, and the task, whose prompt is the post's text."""


def debts(rng: random.Random, held_out: bool) -> Made:
    """Pay the loan with the higher rate first."""
    things = pick(rng, chat_pool("things", "debts", held_out), 2)
    low, high = sorted(rng.sample(range(2, 40), 2))
    rate = [low, high] if rng.random() < 0.5 else [high, low]
    dear, cheap = things[rate.index(high)], things[rate.index(low)]
    title = rng.choice(("Which loan do I pay first?", "Two loans, which one first?"))
    text = f"My {things[0]} loan is at {rate[0]} percent and my {things[1]} loan is at {rate[1]} percent."
    right, wrong = (f"Pay the {thing} loan first." for thing in (dear, cheap))
    check = either(f"the {dear}", f"the {cheap}")
    return things[0], "debt", title, Task(text, right, (wrong,), f"You pay {high} percent on it.", check)


def purchase(rng: random.Random, held_out: bool) -> Made:
    """How many months of saving a thing takes."""
    thing, months, rate = rng.choice(chat_pool("things", "purchase", held_out)), rng.randint(2, 9), rng.randint(2, 9)
    other = months + rng.choice((-1, 1))
    title = rng.choice((f"How long until I can buy a {thing}?", f"Saving for a {thing}"))
    text = f"I save {rate} a month and the {thing} costs {months * rate}. How many months?"
    right, wrong = (f"You get the {thing} in {number} months." for number in (months, other))
    task = Task(text, right, (wrong,), f"You save {rate} each month.", {"any_of": [f"{months} months"]})
    return thing, "personalfinance", title, task


def rent(rng: random.Random, held_out: bool) -> Made:
    """Rent for a short stay, buy for a long one."""
    place, goal = rng.choice(chat_pool("places", "rent", held_out)), rng.choice(chat_pool("goals", "rent", held_out))
    short = rng.random() < 0.5
    years = rng.randint(1, 4) if short else rng.randint(8, 30)
    said = [f"Just rent a place in {place}.", f"Better buy a place in {place}."]
    right, wrong = said if short else said[::-1]
    check = either(*(f"{verb} a place" for verb in (("rent", "buy") if short else ("buy", "rent"))))
    text = f"I go there for a {goal} and will stay {years} years."
    task = Task(text, right, (wrong,), f"You will stay {years} years.", check)
    return place, "realestate", f"Rent or buy in {place}?", task


def job(rng: random.Random, held_out: bool) -> Made:
    """Take the better paid of two offers."""
    firms = pick(rng, chat_pool("firms", "job", held_out), 2)
    low, high = sorted(rng.sample(range(10, 100), 2))
    pay = [low, high] if rng.random() < 0.5 else [high, low]
    better, worse = firms[pay.index(high)], firms[pay.index(low)]
    title = rng.choice(("Two job offers", "Which job should I take?"))
    offers = f"The offer of {firms[0]} pays {pay[0]} and the offer of {firms[1]} pays {pay[1]}."
    right, wrong = (f"Take the offer of {firm}." for firm in (better, worse))
    task = Task(f"{offers} I want the money.", right, (wrong,), f"You get {high} there.", either(better, worse))
    return firms[0], "jobs", title, task


def hype(rng: random.Random, held_out: bool) -> Made:
    """Put little of the money in one firm, not much."""
    name, firm = rng.choice(chat_pool("names", "hype", held_out)), rng.choice(chat_pool("firms", "hype", held_out))
    little = rng.random() < 0.4
    share = rng.randint(2, 9) if little else rng.randint(40, 99)
    said = [f"Yes, go for {firm}.", f"No, that is too much {firm}."]
    right, wrong = said if little else said[::-1]
    check = either(*(("go for", "too much") if little else ("too much", "go for")))
    text = f"My friend {name} says I should put {share} percent of my money in it."
    task = Task(text, right, (wrong,), f"You would put in {share} percent.", check)
    return firm, "stocks", f"Should I buy {firm}?", task


KINDS: dict[str, Callable[[random.Random, bool], Made]] = {
    "debts": debts,
    "purchase": purchase,
    "rent": rent,
    "job": job,
    "hype": hype,
}


def scene(rng: random.Random, held_out: bool) -> Scene:
    """One post; `fields` keeps title, text and subreddit apart."""
    kind = rng.choice(list(KINDS))
    entity, subreddit, title, task = KINDS[kind](rng, held_out)
    fields = (("title", title), ("selftext", task.prompt), ("subreddit", subreddit))
    return Scene("reddit", kind, entity, (("user", f"{title}\n\n{task.prompt}"),), task, fields)
