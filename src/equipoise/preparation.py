"""From a recipe to what its stages train on: items, pairs, the exact mix, token ids, the ledger.

`run`, `plan` and `data` share these steps, so that what is planned and shown is what is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from equipoise.data.clean import clean
from equipoise.data.ledger import Ledger, StageLedger, source_line, stage_ledger
from equipoise.data.mix import mix
from equipoise.data.sources import build
from equipoise.evaluation.evaluate import evaluation_texts, load_items
from equipoise.model.chat import EncodedPair, Tokenizer, encode_pair
from equipoise.progress import Display
from equipoise.recipe import Recipe, Stage
from equipoise.records import Item, Pair


@dataclass(frozen=True)
class StageData:
    """What one stage trains on: pairs and their token ids, in the same order."""

    pairs: list[Pair]
    encoded: list[EncodedPair]


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model runs."""

    items: dict[str, list[Item]]
    pools: dict[str, list[Pair]]
    stages: list[StageData]
    ledger: Ledger


def load_all_items(recipe: Recipe) -> dict[str, list[Item]]:
    """The items of every task of the recipe."""
    return {name: load_items(name, spec) for name, spec in recipe.evaluation.tasks.chosen().items()}


def prepare(recipe: Recipe, tokenizer: Tokenizer, display: Display) -> Prepared:
    """Build sources, clean them against the evaluation's texts, and draw the mix of every stage.

    Raises InputError where a file, a column or enough pairs are missing: before anything expensive.
    """
    items = load_all_items(recipe)
    texts = evaluation_texts([item for task in items.values() for item in task])
    pools: dict[str, list[Pair]] = {}
    ledger = Ledger()
    for name in used_sources(recipe):
        display.say(f"building source {name}")
        built = build(name, recipe.sources[name])
        pools[name], reasons = clean(built.pairs, evaluation_texts=texts)
        ledger = ledger.with_source(name, source_line(built, pools[name], reasons))
    stages = []
    for stage in recipe.stages:
        data, line = draw_stage(stage, pools, tokenizer, seed=recipe.seed, thinking=recipe.model.thinking)
        stages.append(data)
        ledger = ledger.with_stage(stage.name, line)
    return Prepared(items, pools, stages, ledger)


def used_sources(recipe: Recipe) -> list[str]:
    """The sources that some stage draws from, in the order of the recipe."""
    return [name for name in recipe.sources if any(name in stage.mix.sources for stage in recipe.stages)]


def draw_stage(
    stage: Stage, pools: Mapping[str, Sequence[Pair]], tokenizer: Tokenizer, *, seed: int, thinking: bool
) -> tuple[StageData, StageLedger]:
    """Draw a stage's mix from the pairs that can be encoded, so that what is drawn is what is trained on."""
    usable: dict[str, list[Pair]] = {}
    encoded: dict[str, EncodedPair] = {}
    unusable: dict[str, Counter[str]] = {}
    for name in stage.mix.sources:
        usable[name], unusable[name] = [], Counter()
        for pair in pools[name]:
            result = encode_pair(
                tokenizer,
                pair,
                max_length=stage.dpo.max_length,
                max_prompt_length=stage.dpo.max_prompt_length,
                thinking=thinking,
            )
            if isinstance(result, str):
                unusable[name][result] += 1
            else:
                usable[name].append(pair)
                encoded[result.id] = result
    mixture = mix(usable, stage.mix, seed=seed, stage=stage.name)
    line = stage_ledger(mixture, epochs=stage.optim.epochs)
    rows = [replace(encoded[pair.id], source=pair.source) for pair in mixture.pairs]
    lines = {
        name: replace(
            row,
            unusable=dict(unusable[name]),
            prompts_cut=sum(bool(pair.prompt_cut) for pair in rows if pair.source == name),
        )
        for name, row in line.sources.items()
    }
    return StageData(list(mixture.pairs), rows), replace(line, sources=lines)
