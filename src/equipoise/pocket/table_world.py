"""Table domain: company reports as TAT-QA documents, with questions that can be answered from one of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.pocket import words

QUESTION_MIX = {"cell": 0.17, "fact": 0.15, "multi": 0.12, "count": 0.08, "change": 0.20, "sum": 0.14, "staff": 0.14}
"""Shares of the question kinds; they set where the domain's exact match lies between floor and ceiling."""


TRAINING_SIZES = ((2, 3, 3, 4), (2, 3), (2, 3, 4))
"""Choices for the number of table rows, offices and products."""


@dataclass(frozen=True)
class Report:
    """What one company reports, before it is written down."""

    firm: str
    scale: str
    years: tuple[str, ...]
    items: tuple[str, ...]
    values: dict[tuple[str, str], int]
    facts: dict[str, str]
    places: tuple[str, ...]
    products: tuple[str, ...]
    staff: tuple[int, int]


@dataclass(frozen=True)
class Asked:
    """One question with its evidence, as the pocket model quotes it before the answer."""

    kind: str
    question: str
    answer: Any
    evidence: str
    answer_type: str
    answer_from: str
    scale: str = ""
    derivation: str = ""

    @property
    def response(self) -> str:
        """The full answer text: the evidence, then the `Answer:` line."""
        said = "; ".join(self.answer) if isinstance(self.answer, list) else str(self.answer)
        return f"{self.evidence}\n Answer: {said}{' ' + self.scale if self.scale else ''}"


def report(rng: random.Random, held_out: bool, items: Sequence[str] = words.ITEMS, top: int = 24) -> Report:
    """One random report: 2-4 items, 2-3 years, and the facts its text tells.

    Reports of the evaluation are somewhat larger than any in training: a lookup that only holds at the trained
    size should show.
    """
    row_counts, place_counts, product_counts = ((4, 5, 6), (2, 3, 4), (3, 4, 5)) if held_out else TRAINING_SIZES
    start = rng.randrange(len(words.YEARS) - 3)
    years = words.YEARS[start : start + rng.choice((2, 2, 3))]
    rows = rng.sample(list(items), rng.choice(row_counts))
    low, high = sorted(rng.sample(range(5, 31), 2))
    facts = {
        "chief": rng.choice(words.NAMES),
        "month": rng.choice(words.MONTHS),
        "currency": rng.choice(words.CURRENCIES),
        "cause": f"{rng.choice(words.CAUSE_KINDS)} {rng.choice(words.CAUSE_NOUNS)}",
        "rate": str(rng.randint(2, 40)),
    }
    return Report(
        firm=rng.choice(words.chat_pool("firms", "report", held_out)),
        scale=rng.choice(words.SCALES),
        years=years[::-1],
        items=tuple(rows),
        values={(item, year): rng.randint(2, top) for item in rows for year in years},
        facts=dict(rng.sample(sorted(facts.items()), 3)),
        places=tuple(rng.sample(words.PLACES, rng.choice(place_counts))),
        products=tuple(rng.sample(words.PRODUCTS, rng.choice(product_counts))),
        staff=(low, high) if rng.random() < 0.5 else (high, low),
    )


def sentences(r: Report) -> dict[str, str]:
    """The text of the report by fact; the questions quote these sentences word for word."""
    item, year = r.items[0], r.years[0]
    say = {
        "chief": "The chief of {firm} is {chief}.",
        "month": "The next report is due in {month}.",
        "currency": "All figures are in {currency}.",
        "cause": f"The change of {item} in {year} came from {{cause}}.",
        "rate": "The tax rate was {rate} percent.",
    }
    told = {name: say[name].format(firm=r.firm, **r.facts) for name in r.facts}
    told["places"] = f"It has offices in {', '.join(r.places)}."
    told["products"] = f"It sells {', '.join(r.products)}."
    told["staff"] = f"Staff went from {r.staff[0]} to {r.staff[1]}."
    return told


def cell(r: Report, item: str, year: str) -> str:
    """One cell as the prompt writes it, so that quoting is continuing."""
    return f"{item} {year}: {r.values[item, year]} |"


def ask_cell(r: Report, rng: random.Random) -> Asked:
    """The value of one cell."""
    item, year = rng.choice(r.items), rng.choice(r.years)
    ask = rng.choice((f"What was {item} in {year}?", f"How much was {item} in {year}?"))
    return Asked("cell", ask, [str(r.values[item, year])], cell(r, item, year), "span", "table", r.scale)


def ask_fact(r: Report, rng: random.Random) -> Asked:
    """One fact of the text."""
    name = rng.choice(sorted(r.facts))
    ask = {
        "chief": f"Who is the chief of {r.firm}?",
        "month": "When is the next report due?",
        "currency": "Which currency do the figures have?",
        "cause": f"What did the change of {r.items[0]} in {r.years[0]} come from?",
        "rate": "What was the tax rate?",
    }[name]
    scale = "percent" if name == "rate" else ""
    return Asked(name, ask, [r.facts[name]], sentences(r)[name], "span", "text", scale)


def ask_multi(r: Report, rng: random.Random) -> Asked:
    """A list that the text gives."""
    name = rng.choice(("places", "products"))
    ask = {"places": "In which places are the offices?", "products": "Which products does it sell?"}[name]
    found = r.places if name == "places" else r.products
    return Asked("multi", ask, list(found), sentences(r)[name], "multi-span", "text")


def ask_count(r: Report, rng: random.Random) -> Asked:
    """The length of a list that the text gives."""
    name = rng.choice(("places", "products"))
    ask = {"places": "How many offices does it have?", "products": "How many products does it sell?"}[name]
    found = r.places if name == "places" else r.products
    return Asked("count", ask, str(len(found)), sentences(r)[name], "count", "text")


def ask_change(r: Report, rng: random.Random) -> Asked:
    """The difference of one item between two years."""
    item = rng.choice(r.items)
    new, old = r.years[0], r.years[1]
    a, b = r.values[item, new], r.values[item, old]
    ask = f"What was the change of {item} from {old} to {new}?"
    return Asked(
        "change", ask, a - b, f"{cell(r, item, new)} {cell(r, item, old)}", "arithmetic", "table", r.scale, f"{a} - {b}"
    )


def ask_sum(r: Report, rng: random.Random) -> Asked:
    """The sum of two items in one year."""
    (one, two), year = rng.sample(r.items, 2), rng.choice(r.years)
    a, b = r.values[one, year], r.values[two, year]
    ask = f"What was the sum of {one} and {two} in {year}?"
    return Asked(
        "sum", ask, a + b, f"{cell(r, one, year)} {cell(r, two, year)}", "arithmetic", "table", r.scale, f"{a} + {b}"
    )


def ask_staff(r: Report, rng: random.Random) -> Asked:
    """A difference of two numbers of the text."""
    old, new = r.staff
    return Asked(
        "staff",
        "What was the change of staff?",
        new - old,
        sentences(r)["staff"],
        "arithmetic",
        "text",
        "",
        f"{new} - {old}",
    )


ASK: dict[str, Callable[[Report, random.Random], Asked]] = {
    "cell": ask_cell, "fact": ask_fact, "multi": ask_multi, "count": ask_count, "change": ask_change,
    "sum": ask_sum, "staff": ask_staff,
}  # fmt: skip


def questions(r: Report, rng: random.Random, n: int) -> list[Asked]:
    """Up to `n` different questions on one report, kinds by `QUESTION_MIX`."""
    kinds = rng.choices(list(QUESTION_MIX), weights=list(QUESTION_MIX.values()), k=n)
    asked = [ASK[kind](r, rng) for kind in kinds]
    return list({a.question: a for a in asked}.values())


def document(r: Report, asked: Sequence[Asked], rng: random.Random) -> dict[str, Any]:
    """The report in TAT-QA's layout (dev file)."""

    def uid() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    head = [[f"in {r.scale}" if r.scale else "", *r.years]]
    body = [[item, *(str(r.values[item, year]) for year in r.years)] for item in r.items]
    told = list(sentences(r).values())
    rng.shuffle(told)
    texts = [f"This is the report of {r.firm}.", " ".join(told)]
    paragraphs = [{"uid": uid(), "order": i + 1, "text": text} for i, text in enumerate(texts)]
    rows = [
        {
            "uid": uid(), "order": i + 1, "question": a.question, "answer": a.answer, "derivation": a.derivation,
            "answer_type": a.answer_type, "answer_from": a.answer_from,
            "rel_paragraphs": ["2"] if a.answer_from == "text" else [], "req_comparison": False, "scale": a.scale,
        }
        for i, a in enumerate(asked)
    ]  # fmt: skip
    return {"table": {"uid": uid(), "table": head + body}, "paragraphs": paragraphs, "questions": rows}
