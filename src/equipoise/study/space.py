"""The space of a search: which keys of a recipe may take which values, checked before anything starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap

from equipoise.recipe_file import load_recipe
from equipoise.recipe_parts import Part
from equipoise.records import InputError
from equipoise.yaml_text import parse_yaml, plain

Number = int | float


class Choice(Part):
    """One of several values, which may be of any kind."""

    values: list[Any]
    """The values."""


class Range(Part):
    """A number between two ends; with whole ends (and step) a whole number."""

    low: Number
    """The lowest value."""
    high: Number
    """The highest value."""
    log: bool = False
    """Look at magnitudes: as many tries between 0.001 and 0.01 as between 0.01 and 0.1."""
    step: Number | None = None
    """Only low, low + step, low + 2 step, ..."""

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers only."""
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))


@dataclass(frozen=True)
class Dimension:
    """A key of the recipe and what it may be."""

    key: str
    values: Choice | Range

    def override(self, value: Any) -> str:
        """Return the override that sets the key to `value`, as `--set` takes it."""
        return f"{self.key}={json.dumps(value)}"


def read_space(path: Path, recipe: Path) -> list[Dimension]:
    """Read a space file and try the ends of every dimension (or all values of a choice) on the recipe.

    Raises InputError with file, line and key for a key that the recipe does not have, a value that it does not take,
    and a range that is none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the space: {error}") from None
    document = parse_yaml(text, str(path))
    space = document.get("space") if isinstance(document, CommentedMap) else None
    if not isinstance(space, CommentedMap) or not space or len(document) > 1:
        raise InputError(
            f"{path}: write `space:` and below it keys of the recipe, as `stages.finance.dpo.beta: {{values: [...]}}`"
        )
    load_recipe(recipe)  # a recipe that is wrong in itself says so in its own words
    return [_dimension(str(key), value, f"{path}:{space.lc.key(key)[0] + 1}", recipe) for key, value in space.items()]


def _dimension(key: str, record: Any, where: str, recipe: Path) -> Dimension:
    if not isinstance(record, Mapping):
        raise InputError(f"{where}: {key}: write {{values: [...]}} or {{low: ..., high: ...}}")
    kind = Choice if "values" in record else Range
    try:
        values = kind.model_validate(plain(record))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"][:1])
        raise InputError(f"{where}: {key}: {field}: {problem['msg'].lower()}") from None
    for value in _tried(values, f"{where}: {key}"):
        dimension = Dimension(key, values)
        try:
            load_recipe(recipe, [dimension.override(value)])
        except InputError as error:
            said = str(error).splitlines()[0].removeprefix(f"--set {dimension.override(value)}: ")
            raise InputError(f"{where}: {key} = {json.dumps(value)}: {said.removeprefix(f'{recipe}: ')}") from None
    return Dimension(key, values)


def _tried(values: Choice | Range, where: str) -> Sequence[Any]:
    if isinstance(values, Choice):
        if not values.values:
            raise InputError(f"{where}: values: name at least one")
        return values.values
    if values.low > values.high:
        raise InputError(f"{where}: low {values.low:g} is above high {values.high:g}")
    if values.log and (values.low <= 0 or values.step is not None):
        raise InputError(f"{where}: log needs a low above 0 and no step")
    if values.step is not None and values.step <= 0:
        raise InputError(f"{where}: step must be above 0")
    return [values.low, values.high]
