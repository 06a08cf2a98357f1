"""What a study consists of: one run for every recipe and seed, checked before the first one starts."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.recipe import Recipe
from equipoise.recipe_file import changed_fields, fingerprint, load_recipe, stored_recipe
from equipoise.recipe_parts import NAME
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json


@dataclass(frozen=True, slots=True)
class Entry:
    """One run of a study: a recipe file with `--set` overrides, and the folder where it runs."""

    recipe: Path
    title: str
    seed: int
    folder: Path
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run: its folder's."""
        return self.folder.name


def plan_study(recipes: Sequence[Path], seeds: Sequence[int], out: Path) -> list[Entry]:
    """Return the runs in the order in which they start: all recipes under one seed, then the next seed.

    Raises InputError for a recipe that does not load, two runs of one name, and a folder in `out` that holds
    something else.
    """
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {','.join(map(str, seeds))}: a seed stands there twice; name each one once")
    entries: dict[str, Entry] = {}
    for seed in seeds:
        for path in recipes:
            overrides = (f"seed={seed}",)
            recipe = load_recipe(path, overrides)
            name = f"{recipe.name}-seed{seed}"
            if name in entries:
                raise InputError(
                    f"{path}: two runs would be called {name} (the other one is of {entries[name].recipe}); "
                    "give each recipe a `name` of its own"
                )
            if not re.fullmatch(NAME, name):
                raise InputError(f"{path}: name: {name!r} is longer than 80 characters; shorten the recipe's name")
            entries[name] = Entry(path, recipe.name, seed, out / name, overrides)
            require_own_folder(out / name, recipe)
    return list(entries.values())


def require_own_folder(folder: Path, recipe: Recipe) -> None:
    """Raises InputError where `folder` holds other files, or a run of another recipe."""
    if not Run(folder).begun:
        return
    if not (folder / "recipe.json").is_file():
        raise InputError(f"{folder}: this folder holds other files and no run; choose another --out")
    stored = read_json(folder / "recipe.json")
    if stored["fingerprint"] != fingerprint(recipe):
        changes = changed_fields(stored_recipe(stored), recipe)
        more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
        raise InputError(
            f"{folder}: was begun with another recipe ({changes[0]}{more}); choose another --out, or delete this run"
        )


def locked(folder: Path) -> bool:
    """Whether a process is working on this run now."""
    path = folder / ".lock"
    if not path.is_file():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
