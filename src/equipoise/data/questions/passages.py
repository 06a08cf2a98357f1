"""Short made-up passages that hold the facts which a question asks to extract.

The questions stand in `extraction.toml`; each maker returns the passage and what its follow-ups name.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from equipoise.data.questions.draw import NAMES, SURNAMES, listed, person, pick, some, whole

Rng = np.random.Generator
Values = dict[str, Any]
_STARTS = re.compile(r"(?:^|[.!?] )[a-z]", re.MULTILINE)


MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


@cache
def _sentences() -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("passages.toml").read_text(encoding="utf-8"))


def said(name: str) -> Any:
    """One of the lists in `passages.toml`."""
    return _sentences()[name]


def companies(rng: Rng) -> Values:
    """Companies with their heads and figures, each told in another way."""
    places = some(rng, said("towns"), 5)
    lines = []
    for place, name, way in zip(places, _firms(rng, 5), some(rng, said("figures"), 5), strict=False):
        revenue = whole(rng, 20, 900)
        profit = max(1, revenue * whole(rng, 2, 18) // 100)
        lines.append(way.format(firm=name, place=place, head=person(rng), revenue=revenue, profit=profit))
    kept = whole(rng, 3, 5)
    return {"passage": _prose(" ".join(lines[:kept])), "place": places[0]}


def event(rng: Rng) -> Values:
    """An announcement with a title, a day, an hour, a place and prices."""
    values = {
        "title": pick(rng, said("events")), "day": _written(_day(rng)), "hour": _clock(whole(rng, 600, 1170, 15)),
        "place": pick(rng, said("venues")), "town": pick(rng, said("towns")), "host": pick(rng, said("hosts")),
        "adult": whole(rng, 6, 24), "child": whole(rng, 2, 5), "age": whole(rng, 12, 14), "phone": _phone(rng),
        "extra": pick(rng, said("extras")),
    }  # fmt: skip
    return {"passage": _prose(pick(rng, said("announcements")).format(**values))}


def reviews(rng: Rng) -> Values:
    """Reviews of one product: clear praise, clear blame, and something between."""
    kinds = [*some(rng, said("praise"), 2), *some(rng, said("blame"), 2), *some(rng, said("mixed"), whole(rng, 1, 2))]
    thing = pick(rng, said("products"))
    lines = [one.format(thing=thing, n=whole(rng, 2, 9)) for one in some(rng, kinds, len(kinds))]
    return {"passage": _numbered(lines)}


def minutes(rng: Rng) -> Values:
    """Minutes of a meeting: tasks with and without a person, and decisions."""
    people = some(rng, NAMES, 4)
    start = _day(rng)
    dues = [_written(start + timedelta(days=whole(rng, 3, 30))) for _ in range(4)]
    ways = some(rng, said("tasks"), 4)
    jobs = some(rng, said("jobs"), 4)
    tasks = [way.format(who=who, job=job, due=due) for way, who, job, due in zip(ways, people, jobs, dues, strict=True)]
    body = some(rng, [*tasks, *some(rng, said("decisions"), 2)], 6)
    head = f"Minutes of {_written(start)}, {pick(rng, said('bodies'))}. Present: {listed(people)}."
    return {"passage": f"{head}\n{_prose(' '.join(body))}", "who": people[0]}


def logs(rng: Rng) -> Values:
    """Lines of a log in order of time."""
    services = some(rng, said("services"), 3)
    seconds = sorted(whole(rng, 8 * 3600, 13 * 3600) for _ in range(whole(rng, 8, 10)))
    day = _day(rng)
    lines = []
    for number in range(len(seconds)):
        level = ("ERROR", "WARNING")[number] if number < 2 else pick(rng, ("INFO", "INFO", "INFO", "WARNING", "ERROR"))
        text = pick(rng, said("messages")[level]).format(n=whole(rng, 2, 90))
        lines.append((level, pick(rng, services), text))
    mixed = some(rng, lines, len(lines))
    stamped = [
        f"{day} {second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d} {level} {service}: {text}"
        for second, (level, service, text) in zip(seconds, mixed, strict=True)
    ]
    return {"passage": "\n".join(stamped), "service": mixed[0][1]}


def flats(rng: Rng) -> Values:
    """Flat advertisements in the usual short style."""
    lines, rents = [], []
    for district, way in zip(some(rng, said("districts"), 4), some(rng, said("flats"), 4), strict=True):
        rooms = whole(rng, 1, 5)
        size = rooms * whole(rng, 17, 26) + whole(rng, 5, 12)
        rents.append(size * whole(rng, 9, 16) // 5 * 5)
        many = f"{rooms} rooms" if rooms > 1 else "1 room"
        pets = pick(rng, ("Pets welcome.", "No pets.", "Cats only.", "", "Dogs on request.", ""))
        lines.append(
            way.format(
                district=district, rooms=rooms, many=many, size=size, rent=rents[-1], pets=pets, phone=_phone(rng)
            )
        )
    return {"passage": _lettered(lines), "budget": sorted(rents)[2]}


def entities(rng: Rng) -> Values:
    """A news item with persons, organisations, places and a date."""
    a, b, c = (person(rng) for _ in range(3))
    places, firms = some(rng, said("towns"), 3), _firms(rng, 2)
    named = {"a": a, "b": b, "c": c, "x": places[0], "y": places[1], "z": places[2], "f": firms[0], "g": firms[1]}
    return {"passage": _prose(pick(rng, said("news")).format(day=_written(_day(rng)), n=whole(rng, 20, 400), **named))}


def orders(rng: Rng) -> Values:
    """An order by mail with three or four items."""
    goods = some(rng, said("goods"), whole(rng, 3, 4))
    items = [way.format(n=whole(rng, 2, 40), thing=thing, price=f"{price + whole(rng, 0, 95, 5) / 100:.2f}")
             for (thing, price), way in zip(goods, some(rng, said("items"), len(goods)), strict=True)]  # fmt: skip
    values = {
        "items": "; ".join(items), "who": person(rng), "street": f"{whole(rng, 1, 120)} {pick(rng, said('streets'))}",
        "town": pick(rng, said("towns")), "day": _written(_day(rng)), "host": pick(rng, said("hosts")),
    }  # fmt: skip
    return {"passage": _prose(pick(rng, said("orders")).format(**values))}


def study(rng: Rng) -> Values:
    """A short abstract with a question, numbers and a result."""
    topic, measure = pick(rng, said("studies"))
    first = whole(rng, 30, 400, 2)
    before = whole(rng, 24, 70)
    values = {
        "topic": topic, "measure": measure, "n": first, "half": first // 2, "weeks": whole(rng, 4, 52),
        "town": pick(rng, said("towns")), "a": before, "b": before - whole(rng, 3, 18), "lost": whole(rng, 3, 20),
        "low": whole(rng, 18, 30), "high": whole(rng, 55, 80), "who": pick(rng, SURNAMES),
        "year": whole(rng, 2009, 2023),
    }  # fmt: skip
    return {"passage": _prose(pick(rng, said("abstracts")).format(**values))}


def itinerary(rng: Rng) -> Values:
    """A message about a journey with three legs."""
    stops = some(rng, said("towns"), 4)
    clock = whole(rng, 5 * 60, 11 * 60, 5)
    values: Values = {"name": pick(rng, NAMES), "day": _written(_day(rng))}
    for leg, (start, end) in enumerate(pairwise(stops), 1):
        leave, clock = clock, clock + whole(rng, 40, 190, 5)
        values |= {f"from{leg}": start, f"to{leg}": end, f"leave{leg}": _clock(leave), f"reach{leg}": _clock(clock)}
        values[f"by{leg}"] = pick(rng, ("regional train", "coach", "night bus", "express train", "ferry", "tram"))
        clock += whole(rng, 10, 60, 5)
    return {"passage": _prose(pick(rng, said("journeys")).format(**values))}


def measurements(rng: Rng) -> Values:
    """A table of two stations over six days."""
    quantity, unit, low, high = pick(rng, said("quantities"))
    start, stations = _day(rng), some(rng, said("towns"), 2)
    lines = [f"date,station,{quantity.replace(' ', '_')}_{unit}"]
    for day in range(whole(rng, 5, 6)):
        for station in stations:
            lines.append(f"{start + timedelta(days=day)},{station},{whole(rng, low * 10, high * 10) / 10:.1f}")
    return {"passage": "\n".join(lines), "quantity": quantity}


def tickets(rng: Rng) -> Values:
    """Messages to a help desk, with numbers."""
    first = whole(rng, 1000, 9000)
    lines = [text.format(name=person(rng), n=whole(rng, 2, 30), thing=pick(rng, said("products")))
             for text in some(rng, said("tickets"), 5)]  # fmt: skip
    numbers = [first + 7 * place for place in range(5)]
    passage = "\n".join(f"#{number} {_prose(line)}" for number, line in zip(numbers, lines, strict=True))
    return {"passage": passage, "number": f"#{numbers[whole(rng, 0, 4)]}"}


def books(rng: Rng) -> Values:
    """Notes about invented books."""
    years = [whole(rng, 1888, 2021) for _ in range(4)]
    lines = [
        way.format(title=title, author=person(rng), hero=pick(rng, NAMES), year=year, house=house, theme=theme)
        for title, year, house, theme, way in zip(
            some(rng, said("titles"), 4), years, some(rng, said("houses"), 4), some(rng, said("themes"), 4),
            some(rng, said("books"), 4), strict=True,
        )
    ]  # fmt: skip
    return {"passage": _lettered(lines), "year": sorted(years)[1]}


def recipe(rng: Rng) -> Values:
    """A dish told as a story, with amounts."""
    dish, ingredients, warm = pick(rng, said("dishes"))
    amounts = [f"{whole(rng, low, high, step)}{unit} {thing}" for thing, unit, low, high, step in ingredients]
    values = {
        "dish": dish, "amounts": listed(amounts), "rest": whole(rng, 15, 90, 15), "time": whole(rng, 20, 70, 5),
        "heat": whole(rng, 160, 220, 10) if warm else 0, "people": whole(rng, 4, 12, 2), "who": pick(rng, NAMES),
    }  # fmt: skip
    return {"passage": _prose(pick(rng, said("baked") if warm else said("cooked")).format(**values))}


def contract(rng: Rng) -> Values:
    """A clause with parties, amounts, dates and a period of notice."""
    thing, tenant = pick(rng, said("leases"))
    values = {
        "thing": thing, "owner": person(rng), "user": person(rng), "start": _written(_day(rng).replace(day=1)),
        "amount": whole(rng, 120, 1900, 10), "deposit": whole(rng, 300, 3000, 50), "due": whole(rng, 2, 10),
        "notice": pick(rng, ("six weeks", "three months", "two months", "four weeks")), "fee": whole(rng, 15, 80, 5),
        "town": pick(rng, said("towns")), "percent": whole(rng, 2, 5), "tenant": tenant,
    }  # fmt: skip
    return {"passage": _prose(pick(rng, said("clauses")).format(**values)), "tenant": tenant}


def _firms(rng: Rng, count: int) -> list[str]:
    """Names of companies that do not exist."""
    ends = some(rng, said("firms"), count)
    return [f"{start} {end}" for start, end in zip(some(rng, SURNAMES, count), ends, strict=True)]


def _day(rng: Rng) -> date:
    return date(2024, 1, 1) + timedelta(days=whole(rng, 0, 720))


def _written(day: date) -> str:
    return f"{day.day} {MONTHS[day.month - 1]} {day.year}"  # strftime would follow the locale


def _phone(rng: Rng) -> str:
    return f"0{whole(rng, 200, 990)} {whole(rng, 10, 99)} {whole(rng, 10, 99)} {whole(rng, 10, 99)}"


def _clock(minute: int) -> str:
    return f"{minute // 60 % 24}:{minute % 60:02d}"


def _prose(text: str) -> str:
    """The text with a capital at the beginning of each sentence."""
    return _STARTS.sub(lambda found: found[0][:-1] + found[0][-1].upper(), " ".join(text.split()))


def _numbered(lines: list[str]) -> str:
    return "\n".join(f"{number}. {_prose(line)}" for number, line in enumerate(lines, 1))


def _lettered(lines: list[str]) -> str:
    return "\n".join(f"{letter}) {_prose(line)}" for letter, line in zip("abcdefgh", lines, strict=False))


MAKERS: Mapping[str, Callable[[Rng], Values]] = {
    maker.__name__: maker
    for maker in (
        companies, event, reviews, minutes, logs, flats, entities, orders, study, itinerary, measurements, tickets,
        books, recipe, contract,
    )
}  # fmt: skip
