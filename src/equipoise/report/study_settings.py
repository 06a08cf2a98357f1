"""Which settings differ between the recipes of a study, and how recipes with each value stand. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.recipe import CIRCUMSTANCES, Recipe

FEW = 8
"""Up to so many values have a place each; more numbers stand on an axis."""
SPAN = 20
"""Positive numbers that span such a factor are shown on a logarithmic axis."""
MISSING = "not there"


@dataclass(frozen=True)
class Setting:
    """A key that differs between recipes, with the value of each recipe as text.

    `numbers` are the values where all are numbers and too many for a place each. `also` are keys that divide the
    recipes in the same way, so that nobody can tell whose effect is seen. `only` are groups of recipes that
    differ in this key (and `also`) alone.
    """

    key: str
    values: tuple[str, ...]
    places: tuple[str, ...]
    numbers: tuple[float, ...] | None
    logarithmic: bool
    also: tuple[str, ...]
    only: tuple[tuple[int, ...], ...]


def settings(recipes: Sequence[Recipe]) -> list[Setting]:
    """Return the keys that differ between recipes, those first that alone make a difference somewhere."""
    tables = [dict(_leaves(_plain(recipe))) for recipe in recipes]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    columns = {key: [table.get(key, MISSING) for table in tables] for key in keys}
    divided: dict[tuple[int, ...], list[str]] = {}
    for key, column in columns.items():
        texts = [_text(value) for value in column]
        kinds = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        if len(kinds) > 1:
            divided.setdefault(tuple(kinds[text] for text in texts), []).append(key)
    differing = [key for together in divided.values() for key in together]
    found = [_setting(together, columns, differing) for together in divided.values()]
    return sorted(found, key=lambda one: (not one.only, MISSING in one.values))


def _setting(together: Sequence[str], columns: Mapping[str, Sequence[Any]], differing: Sequence[str]) -> Setting:
    key = together[0]
    column = columns[key]
    texts = tuple(_text(value) for value in column)
    numeric = all(type(value) in (int, float) for value in column)
    places = dict.fromkeys(sorted(column) if numeric else sorted(texts))
    spread = numeric and len(places) > FEW
    rest: dict[str, list[int]] = {}
    for row in range(len(column)):
        others = [_text(columns[other][row]) for other in differing if other not in together]
        rest.setdefault(json.dumps(others), []).append(row)
    only = [rows for rows in rest.values() if len({texts[row] for row in rows}) > 1]
    return Setting(
        key=key,
        values=texts,
        places=() if spread else tuple(_text(value) for value in places),
        numbers=tuple(float(value) for value in column) if spread else None,
        logarithmic=spread and min(column) > 0 and max(column) / min(column) >= SPAN,
        also=tuple(together[1:]),
        only=tuple(tuple(sorted(rows, key=lambda row: _order(column[row], numeric))) for rows in only),
    )


def _order(value: Any, numeric: bool) -> tuple[float, str]:
    return (float(value), "") if numeric else (0.0, _text(value))


def _plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe without its name and seed; stages by their names, so that adding one moves no other."""
    record = recipe.model_dump(mode="json", exclude={*CIRCUMSTANCES, "seed"})
    record["stages"] = {stage["name"]: stage for stage in record["stages"]}
    return record


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
