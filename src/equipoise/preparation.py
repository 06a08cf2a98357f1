"""From a recipe to what its stages train on: items, pairs, the exact mix, token ids, the ledger.

`run`, `plan` and `data` share these steps, so that what is planned and shown is what is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equipoise.data import ledger as ledgers
from equipoise.data.clean import clean
from equipoise.data.ledger import Ledger, StageLedger
from equipoise.data.mix import mix
from equipoise.data.sources import build
from equipoise.evaluation.evaluate import evaluation_texts, load_items, splits
from equipoise.model.chat import EncodedPair, Tokenizer, encode_pair
from equipoise.progress import Display
from equipoise.recipe import Recipe, Stage
from equipoise.records import InputError, Item, Pair


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
    require_two_groups(items, recipe.evaluation.dev_share)
    texts = evaluation_texts([item for task in items.values() for item in task])
    pools: dict[str, list[Pair]] = {}
    taken: dict[str, str] = {}  # pair id -> the first source that has it
    ledger = Ledger()
    for name in used_sources(recipe):
        display.say(f"building source {name}")
        built = build(name, recipe.sources[name])
        cleaned, reasons = clean(built.pairs, evaluation_texts=texts)
        pools[name] = [pair for pair in cleaned if taken.setdefault(pair.id, name) == name]
        twice = Counter(taken[pair.id] for pair in cleaned if taken[pair.id] != name)
        reasons |= {f"in source {other} as well": count for other, count in twice.items()}
        ledger = ledger.with_source(name, ledgers.source_line(built, pools[name], reasons))
    stages = []
    for stage in recipe.stages:
        data, line = draw_stage(stage, pools, tokenizer, seed=recipe.seed, thinking=recipe.model.thinking)
        stages.append(data)
        ledger = ledger.with_stage(stage.name, line)
    return Prepared(items, pools, stages, ledger)


def require_two_groups(items: Mapping[str, Sequence[Item]], dev_share: float) -> None:
    """Raises InputError where a task has too few independent items for a gate or a verdict to say anything."""
    for name, task in items.items():
        sides = list(splits((item.group for item in task), dev_share).values())
        if min(sides.count("dev"), sides.count("test")) < 2:
            raise InputError(
                f"evaluation.tasks.{name}: {sides.count('dev')} independent items (groups) for gates and "
                f"{sides.count('test')} for the verdict; each needs 2 at the very least: raise its limit"
            )


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
    rows = [replace(encoded[pair.id], source=pair.source) for pair in mixture.pairs]
    cut = Counter(row.source for row in rows if row.prompt_cut)
    line = ledgers.encoded(ledgers.stage_ledger(mixture, epochs=stage.optim.epochs), unusable, cut)
    return StageData(list(mixture.pairs), rows), line


def examples(recipe: Recipe, prepared: Prepared, tokenizer: Tokenizer, count: int) -> list[dict[str, Any]]:
    """The first `count` pairs of every stage as the model meets them.

    `prompt` is text that gives no gradient; `chosen` and `rejected` are the tokens that are trained on, one
    string each, end-of-turn token included.
    """
    return [
        {
            "stage": stage.name,
            "id": pair.id,
            "source": pair.source,
            "domain": pair.domain,
            "prompt": tokenizer.decode(list(pair.prompt)),
            "prompt_tokens": len(pair.prompt),
            "prompt_cut": pair.prompt_cut,
            "chosen": [tokenizer.decode([token]) for token in pair.chosen],
            "rejected": [tokenizer.decode([token]) for token in pair.rejected],
        }
        for stage, data in zip(recipe.stages, prepared.stages, strict=True)
        for pair in data.encoded[:count]
    ]
