"""From a recipe to what its stages train on: items, pairs, the exact mix, token ids, the ledger.

`run`, `plan` and `data` share these steps, so that what is planned and shown is what is trained. A source that is
answered by a stage's own start (`on_policy`) waits until that start is known; without models (`plan`) every
source that generates is assumed: its questions are there, its answers are as long as they may be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from equipoise.data.kept import Pool
from equipoise.data.ledger import Ledger
from equipoise.data.mix import asked as asked_of
from equipoise.data.replay import is_replayed
from equipoise.data.sampling import NOT_NEEDED
from equipoise.draw import (
    Encoder,
    StageData,
    draw_replay,
    draw_stage,
    in_pieces,
    require_enough,
    short_sources,
    with_easiness,
)
from equipoise.evaluation.items import load_items, splits
from equipoise.model.chat import Tokenizer
from equipoise.models import Models, require_models
from equipoise.pools import Asked, Doubles, answered, gather_all, ranking_of, told_what_was_dropped, unanswered
from equipoise.progress import Display
from equipoise.recipe import Recipe, Stage
from equipoise.recipe_sources import Generated, OnPolicySource, generated
from equipoise.records import InputError, Item, Pair
from equipoise.store import Store


@dataclass(frozen=True)
class Prepared:
    """All that is known before a model is trained.

    `gathered` are the clean pairs of every source as they were read, drafts where a model answers. `pools` are the
    pairs that stages draw from, by the name of the source, or by `source@stage` where they were made for a stage. A
    stage of which nothing can be drawn yet, because its own start must answer, is None in `stages`.
    """

    items: dict[str, list[Item]]
    gathered: Mapping[str, Pool]
    pools: Mapping[str, Pool]
    stages: list[StageData | None]
    ledger: Ledger


class Preparation:
    """The steps from a recipe to the data of its stages.

    Args:
        recipe: what is asked for.
        tokenizer: the model's.
        display: who is told how far it is.
        store: where built sources are kept.
        models: who answers and ranks; None generates nothing: what models would write is assumed.
    """

    def __init__(
        self, recipe: Recipe, tokenizer: Tokenizer, display: Display, store: Store, models: Models | None = None
    ) -> None:
        self._recipe, self._tokenizer, self._display = recipe, tokenizer, display
        self._store, self._models = store, models
        self._items = load_all_items(recipe)
        require_two_groups(self._items, recipe.evaluation.dev_share)
        self._asked = Asked.by(self._items)
        self._encoders: dict[str, Encoder] = {}

    def check(self) -> None:
        """Raises InputError for all that can be known to be wrong before any model answers."""
        _ = self._gathered

    @cached_property
    def _gathered(self) -> tuple[dict[str, Pool], Doubles]:
        """The clean sources, and who has which pair."""
        recipe = self._recipe
        if recipe.stages[0].replay:
            raise InputError("stages.0.replay: the first stage has no earlier one to replay from; leave it out")
        sources = {name: recipe.sources[name] for name in used_sources(recipe)}
        require_models(recipe, sources, weights=self._models is not None)
        gathered, doubles = gather_all(sources, self._asked, self._store, self._display)
        there = {
            name: unanswered(spec, pool) if isinstance(spec, Generated) and generated(spec) else pool
            for (name, spec), pool in zip(sources.items(), gathered.values(), strict=True)
        }
        for stage in recipe.stages:  # what is short with drafts for pairs will be short with pairs
            require_enough(stage, {name: there[name] for name in stage.mix.sources}, sources, seed=recipe.seed)
        return gathered, doubles

    def begin(self) -> Prepared:
        """Items, clean sources, generated pairs, and the data of every stage that need not wait for its start.

        Raises InputError where a file, a column or enough pairs are missing: before any model answers.
        """
        gathered, doubles = self._gathered
        pools = {
            name: self._answered(name, pool, self._recipe.stages, [], doubles)
            for name, pool in gathered.items()
            if not isinstance(self._recipe.sources[name], OnPolicySource)
        }
        before: dict[str, Pool] = {}
        while pools != before:  # more answers for one stage are another draw for the next
            before = dict(pools)
            for stage in self._recipe.stages:
                if not self._own_answers(stage):
                    pools |= self._enough(
                        stage, {name: pools[name] for name in stage.mix.sources}, gathered, [], doubles
                    )
        ledger = Ledger({name: pool.line for name, pool in pools.items()})
        prepared = Prepared(self._items, gathered, pools, [None] * len(self._recipe.stages), ledger)
        for number, stage in enumerate(self._recipe.stages):
            waits = number > 0 and self._models is not None and self._own_answers(stage)
            prepared = self.with_stage(prepared, number, None if waits else [])
        own = [list(data.pairs) if data else [] for data in prepared.stages]
        for number, stage in enumerate(self._recipe.stages):
            if stage.replay and prepared.stages[number]:
                prepared = self.with_replay(prepared, number, stage, [*chain.from_iterable(own[:number])], planned=True)
        return prepared

    def with_stage(self, prepared: Prepared, number: int, start: Sequence[Path] | None) -> Prepared:
        """The same with the data of stage `number` (from 0), whose start has the adapters of `start`.

        Where the start is not known (None) the ledger gets a line with assumed answers, and the stage stays None.
        """
        stage = self._recipe.stages[number]
        own = {name: prepared.pools[name] for name in stage.mix.sources if name in prepared.pools}
        answering, doubles = self._own_answers(stage), Doubles()
        for name, pool in own.items():
            doubles.add(name, pool.pairs)
        for name in answering:
            own[name] = self._answered(name, prepared.gathered[name], [stage], start, doubles)
        if self._models and start is not None:
            own = self._enough(stage, own, prepared.gathered, start, doubles)
        made = {f"{name}@{stage.name}": own[name] for name in answering}
        assumed = {name: self._longest(name) for name, pool in own.items() if pool.line.assumed}
        pools = {name: own[name] for name in stage.mix.sources}
        with told_what_was_dropped({name: pool.line for name, pool in own.items()}, self._recipe.sources):
            data, line = draw_stage(stage, pools, self._encoder(stage, assumed), seed=self._recipe.seed)
        if start is not None:
            data = with_easiness(stage, data, self._models.judge if self._models else None)
        lines = {**prepared.ledger.sources, **{key: pool.line for key, pool in made.items()}}
        ledger = replace(prepared.ledger, sources=lines)
        stages = [*prepared.stages]
        stages[number] = None if start is None else data
        there = made if start is not None else {}
        return replace(
            prepared, pools={**prepared.pools, **there}, stages=stages, ledger=ledger.with_stage(stage.name, line)
        )

    def with_replay(
        self, prepared: Prepared, number: int, stage: Stage, earlier: Sequence[Pair], *, planned: bool = False
    ) -> Prepared:
        """The same with `earlier` pairs replayed in stage `number` (from 0), in place of what was replayed before.

        `stage` is that of the recipe, or one with values of another attempt; `planned`: all earlier stages are assumed
        to be kept. Raises InputError where a plan has too few pairs.
        """
        data = prepared.stages[number]
        assert data is not None  # its own pairs are drawn
        places = [place for place, pair in enumerate(data.pairs) if not is_replayed(pair.source)]
        own = StageData([data.pairs[place] for place in places], [data.encoded[place] for place in places])
        assumed = {} if self._models else {name: self._longest(name) for name in self._recipe.sources}
        unanswered = {name: tokens for name, tokens in assumed.items() if tokens}
        encoder = self._encoder(stage, unanswered)
        data, lines = draw_replay(stage, own, earlier, encoder, seed=self._recipe.seed, planned=planned)
        data = with_easiness(stage, data, self._models.judge if self._models else None)
        ledger = prepared.ledger.stages[stage.name]
        mine = {name: line for name, line in ledger.sources.items() if not is_replayed(name)}
        line = replace(ledger, epochs=stage.optim.epochs, sources={**mine, **lines.sources})
        stages = [*prepared.stages[:number], data, *prepared.stages[number + 1 :]]
        return replace(prepared, stages=stages, ledger=prepared.ledger.with_stage(stage.name, line))

    def _own_answers(self, stage: Stage) -> list[str]:
        """The sources of a stage that its own start answers."""
        return [name for name in stage.mix.sources if isinstance(self._recipe.sources[name], OnPolicySource)]

    def _enough(
        self,
        stage: Stage,
        pools: Mapping[str, Pool],
        gathered: Mapping[str, Pool],
        start: Sequence[Path],
        doubles: Doubles,
    ) -> dict[str, Pool]:
        """The pools of a stage, with more answers where its shares, not being of pairs, turn out to need them.

        What the stage's own start answers may grow where it has such sources; else every source that generates.
        """
        found = dict(pools)
        if stage.mix.by == "pairs" or any(pool.line.assumed for pool in found.values()):
            return found
        growing = self._own_answers(stage) or list(found)
        while True:
            short = short_sources(stage, found, self._encoder(stage, {}), seed=self._recipe.seed)
            more = [name for name in short if name in growing and found[name].line.unpaired.get(NOT_NEEDED)]
            if not more:
                return found
            for name in more:
                found[name] = self._answered(name, gathered[name], [stage], start, doubles, at_least=short[name])

    def _answered(
        self,
        name: str,
        pool: Pool,
        stages: Sequence[Stage],
        start: Sequence[Path] | None,
        doubles: Doubles,
        at_least: int = 0,
    ) -> Pool:
        """The pool with answers where its source generates; assumed where nobody can answer now."""
        spec = self._recipe.sources[name]
        if not isinstance(spec, Generated) or not generated(spec):
            return pool
        if self._models is None or start is None:
            return unanswered(spec, pool)
        users = [stage for stage in stages if name in stage.mix.sources]

        def usable(pair: Pair) -> str | None:
            found = (self._encoder(stage, {})(pair) for stage in users)
            return next((reason for reason in found if isinstance(reason, str)), doubles.reason(name, pair))

        finished = answered(
            name,
            spec,
            pool,
            wanted=max(at_least, *(self._needed(stage, name) for stage in users)),
            usable=usable,
            asked=self._asked,
            models=self._models,
            start=start,
            display=self._display,
        )
        doubles.add(name, finished.pairs)
        return finished

    def _needed(self, stage: Stage, name: str) -> int:
        """Pairs of a source that a stage is sure to need.

        Where shares are not of pairs, the lengths of all answers decide: a source gets as many as by pairs at first
        (`_enough` adds more), or as many as the whole stage has where others of its sources are answered later.
        """
        if stage.mix.by == "pairs":
            return asked_of(stage.mix)[name]
        later = self._own_answers(stage)
        pairs = stage.mix.pairs or 0
        return pairs if later and name not in later else math.ceil((stage.mix.shares or {})[name] * pairs)

    def _longest(self, name: str) -> int:
        spec = self._recipe.sources[name]
        return ranking_of(spec).max_new_tokens if isinstance(spec, Generated) else 0

    def _encoder(self, stage: Stage, assumed: Mapping[str, int]) -> Encoder:
        """The stage's encoder, which remembers; one that assumes answers is not kept."""
        if assumed or stage.name not in self._encoders:
            encoder = Encoder(self._tokenizer, stage, thinking=self._recipe.model.thinking, assumed=assumed)
            if assumed:
                return encoder
            self._encoders[stage.name] = encoder
        return self._encoders[stage.name]


def load_all_items(recipe: Recipe) -> dict[str, list[Item]]:
    """The items of every task of the recipe."""
    tasks = recipe.evaluation.tasks.chosen()
    return {name: load_items(name, spec, recipe.sources) for name, spec in tasks.items()}


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


def examples(recipe: Recipe, prepared: Prepared, tokenizer: Tokenizer, count: int) -> list[dict[str, Any]]:
    """The first `count` pairs of every stage as the model meets them.

    `prompt` is text that gives no gradient; `chosen` and `rejected` are the tokens that are trained on, end-of-turn
    token included: one string for each, or for those that only together make whole characters (`in_pieces`).
    """
    return [
        {
            "stage": stage.name,
            "id": row.id,
            "source": row.source,
            "domain": row.domain,
            "score_gap": pair.score_gap,
            "reward_gap": pair.reward_gap,
            "prompt": tokenizer.decode(list(row.prompt)).lstrip("\ufffd" if row.prompt_cut else ""),
            "prompt_tokens": len(row.prompt),
            "prompt_cut": row.prompt_cut,
            "chosen": in_pieces(tokenizer, row.chosen),
            "rejected": in_pieces(tokenizer, row.rejected),
        }
        for stage, data in zip(recipe.stages, prepared.stages, strict=True)
        if data is not None
        for pair, row in zip(data.pairs[:count], data.encoded[:count], strict=True)
    ]
