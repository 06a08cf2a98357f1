"""The checks of a written recipe: it is read back, and what `equipoise plan` would find is looked for where that is
cheap: the pairs, the mix and the items of local files, not models and data that would have to be fetched first."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.data.ledger import problems
from equipoise.init.answers import POCKET
from equipoise.model.load import policy_tokenizer
from equipoise.models import require_reward
from equipoise.preparation import Preparation, Prepared
from equipoise.progress import Silent
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import PREFERENCE, kind_of
from equipoise.recipe_file import parse_recipe
from equipoise.recipe_sources import generated
from equipoise.records import InputError
from equipoise.store import Store
from equipoise.yaml_text import parse_yaml, plain


@dataclass
class Checked:
    """What was checked, what was left to `equipoise plan`, what one should know, and what would stop a run.

    `drawn` of the `asked` pairs are drawn by the stage, where that was tried.
    """

    done: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    asked: int = 0
    drawn: int | None = None


def read_back(text: str, meant: dict[str, Any], where: str) -> Recipe:
    """The recipe that the text holds; raises InputError where it does not load or says something else than meant."""
    recipe = parse_recipe(text, where=where)
    if plain(parse_yaml(text, where)) != meant:
        raise InputError(f"{where}: the text would not be read as it was meant; give the files plainer names")
    return recipe


def check(recipe: Recipe, *, model_is_here: bool, whole: bool) -> Checked:
    """Look for what would stop a run; `whole`: every source was read to its end when it was looked at."""
    found = Checked(done=["the recipe loads"])
    fetched = [name for name, spec in recipe.evaluation.tasks.chosen().items() if not _is_local(name, spec.id)]
    answers = any(generated(spec) for spec in recipe.sources.values())
    if fetched:
        found.left.append(f"the items of {', '.join(fetched)} (fetched from the hub)")
    if not model_is_here:
        found.left.append(f"the model {recipe.model.id} (fetched from the hub)")
    try:
        if recipe.reward is not None and (recipe.reward.id == POCKET or Path(recipe.reward.id).expanduser().is_dir()):
            require_reward(recipe.reward, "--reward", weights=True)
            found.done.append("the reward model is one")
        elif recipe.reward is not None:
            found.left.append(f"the reward model {recipe.reward.id} (fetched from the hub)")
        if not whole or (answers and not model_is_here):
            found.left.append(f"the mix ({'a large file' if not whole else 'the model answers first'})")
            return found
        with redirect_stderr(io.StringIO()) as warned:  # as notes: sources have said theirs already
            preparation = _preparation(recipe, fetched, model_is_here)
        found.notes += [line for line in warned.getvalue().splitlines() if PREFERENCE not in line]
        if model_is_here:
            prepared = preparation.begin()
            found.done += _told(recipe, prepared)
            found.notes += problems(prepared.ledger)
            lines = [line for stage in prepared.ledger.stages.values() for line in stage.sources.values()]
            found.asked, found.drawn = sum(line.asked for line in lines), sum(line.drawn for line in lines)
        else:
            preparation.check()
            found.done.append("the sources have enough clean pairs")
            found.left.append("lengths in tokens")
    except InputError as error:
        found.wrong.append(str(error))
    return found


def _is_local(name: str, id: str | None) -> bool:
    if kind_of(name) == PREFERENCE or id == POCKET:
        return True
    return id is not None and Path(id).expanduser().exists()


def _preparation(recipe: Recipe, fetched: list[str], model_is_here: bool) -> Preparation:
    """The steps to the data of every stage, without the tasks that would have to be fetched."""
    tasks = recipe.evaluation.tasks.model_copy(update=dict.fromkeys(fetched))
    asked = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"tasks": tasks})})
    tokenizer = policy_tokenizer(recipe.model) if model_is_here else None  # not needed where nothing is encoded
    return Preparation(asked, tokenizer, Silent(), Store())


def _told(recipe: Recipe, prepared: Prepared) -> list[str]:
    drawn = [
        f"stage {stage.name} draws {len(data.pairs)} pairs"
        for stage, data in zip(recipe.stages, prepared.stages, strict=True)
        if data
    ]
    items = [f"{len(items)} items of {name}" for name, items in prepared.items.items()]
    return [*drawn, *items]
