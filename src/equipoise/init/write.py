"""The whole of `equipoise init` but for the terminal: look at the files, compose, read back, check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from equipoise.evaluation.evaluate import rewarded
from equipoise.init import compose, world
from equipoise.init.answers import Answers
from equipoise.init.check import Checked, check, read_back
from equipoise.init.look import look
from equipoise.init.model import SAMPLED, Facts, bytes_per_token, facts
from equipoise.init.text import Key, values, written
from equipoise.recipe_sources import ranked


@dataclass(frozen=True)
class Made:
    """The text of a recipe, what was found in the files, and how its checks went."""

    text: str
    told: Sequence[str]
    checked: Checked


def make_recipe(answers: Answers, file: str, name: str | None, editors: Sequence[str] = ()) -> Made:
    """The recipe that answers make; raises InputError where no recipe that loads can be written.

    Where nobody said how many pairs, and fewer are drawn than were counted on (some are too long, or touch what the
    evaluation asks), it is written for those. `editors` are further lines of comment that editors read.
    """
    known = facts(answers.model)
    if not answers.data:
        head = [world.question(world.world_domain(answers)), *compose.next_steps(file), *editors]
        told = ["pocket: pairs and questions of the embedded world"]
        return _made(head, world.world_keys(answers, name), file, told, known, whole=True)
    looks = [look(id, answers) for id in answers.data]
    general = look(answers.general, answers, general=True) if answers.general else None
    plan = compose.make_plan(answers, known, looks, general, name)
    looks += [general] if general else []
    if known.here:
        pairs = [pair for found in looks for pair in found.pairs[:SAMPLED]]
        plan = replace(plan, bytes_per_token=bytes_per_token(answers.model, pairs))
    told, whole = [found.told() for found in looks], all(found.whole for found in looks)
    head = [compose.question(plan), *compose.next_steps(file), *editors]
    made = _made(head, compose.keys(plan), file, told, known, whole=whole)
    short = made.checked.drawn is not None and made.checked.drawn < made.checked.asked
    if answers.pairs is None and short:
        plan = replace(plan, answers=replace(answers, pairs=compose.counted_on(plan, made.checked.drawn or 1)))
        made = _made(head, compose.keys(plan), file, told, known, whole=whole)
    return made


def _made(
    head: Sequence[str], keys: Sequence[Key], file: str, told: Sequence[str], known: Facts, *, whole: bool
) -> Made:
    """The text, read back and checked."""
    text = written(head, keys)
    recipe = read_back(text, values(keys), file)
    checked = check(recipe, model_is_here=known.here, whole=whole)
    tasks = recipe.evaluation.tasks.chosen()
    if len(tasks) == 1:
        checked.notes.append("One domain is measured: --general and --tasks add others, so that losses there are seen.")
    asks = any(rewarded(name, recipe.evaluation) for name in tasks) or any(map(ranked, recipe.sources.values()))
    if recipe.reward is not None and not asks:
        checked.notes.append("Nothing asks the reward model; --tasks mt_bench would.")
    return Made(text, told, checked)
