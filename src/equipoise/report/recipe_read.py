"""The recipe of a run folder; where recipe.json is gone or damaged, what else tells its stages and domains.

A folder without its recipe may still hold hours of scores, so it gets a page that says what is not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equipoise.recipe_file import parse_recipe, resolved
from equipoise.records import InputError
from equipoise.report import shape
from equipoise.report.reader import BAD, Reader
from equipoise.run_folder import Run, read_json

BEGUN = ("events.jsonl", "scores", "stages", "comparison.json", "verdict.json")
"""What a folder without its recipe still has to show."""
_MOST_STAGES = 99


def left_by_a_run(folder: Path) -> bool:
    """Whether the folder holds anything that only a run writes."""
    return any((folder / name).exists() for name in BEGUN)


def read_recipe(reader: Reader) -> dict[str, Any]:
    """Return the resolved recipe, or what stands in for it, which the notes say.

    Raises InputError where there is neither a recipe that can be read nor anything else that a run writes.
    """
    folder = reader.run.folder
    path, written = folder / "recipe.json", folder / "recipe.yaml"
    if not left_by_a_run(folder):
        Run.open(folder)
        try:
            return shape.recipe(read_json(path))
        except (*BAD, OSError) as error:
            raise InputError(f"{path}: not the recipe of a run: {error}") from None
    nothing: dict[str, Any] = {}
    recipe = reader.tried(path, lambda: shape.recipe(read_json(path)), nothing)
    if recipe:
        return recipe
    found = "" if path.exists() else "recipe.json is missing: "
    recipe = reader.tried(written, lambda: shape.recipe(resolved(parse_recipe(written.read_text("utf-8")))), nothing)
    if recipe:
        reader.missing.append(f"{found}the settings are those of recipe.yaml, without changes by the command line")
        return recipe
    reader.missing.append(
        f"{found}stages and domains are those whose files are here; their settings are not known, a seed of 0 and 95% "
        "intervals are assumed"
    )
    return _seen(folder)


def _seen(folder: Path) -> dict[str, Any]:
    """The stages and domains that have files."""
    names: dict[int, str] = {}
    for path in folder.glob("stages/*"):
        number, _, name = path.name.partition("-")
        if name and number.isdecimal() and 0 < int(number) <= _MOST_STAGES:
            names[int(number)] = name
    stages = [{"name": names.get(number, "?")} for number in range(1, max(names, default=0) + 1)]
    tasks = sorted({path.stem for path in folder.glob("scores/*/*.jsonl")})
    return {"stages": stages, "evaluation": {"tasks": {task: {} for task in tasks}}}
