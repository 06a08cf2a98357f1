"""Writing recipes: a recipe as plain values becomes YAML that people read; the same values give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML

from equipoise.recipe import Recipe


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, without what it leaves to its defaults."""
    return recipe.model_dump(mode="json", exclude_unset=True)


def recipe_text(recipe: Mapping[str, Any], question: str, about: Sequence[str] = ()) -> str:
    """The text of a recipe file: the question that it asks, further lines of comment, and its keys in their order."""
    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = None  # the innermost mappings and lists on one line
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 116
    out = io.StringIO()
    yaml.dump(_in_order(recipe), out)
    return "".join(f"# {line}\n" for line in (question, *about)) + out.getvalue()


def question_of(text: str) -> str:
    """The question that a recipe asks: its first line, without the sign of a comment."""
    return text.partition("\n")[0].removeprefix("#").strip()


def _in_order(value: Any) -> Any:
    """The same with the keys of every part of a recipe in the order of its documentation, which `Recipe` has."""
    order = list(Recipe.model_fields)
    return {key: value[key] for key in sorted(value, key=lambda key: order.index(key) if key in order else len(order))}
