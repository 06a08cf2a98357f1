"""Pairs of answers as items: those of a source of their own, or those that a source of the recipe holds out."""

from __future__ import annotations

from collections.abc import Mapping

from equipoise.data.built import OVER_LIMIT
from equipoise.data.clean import clean
from equipoise.data.kept import held_out_groups
from equipoise.data.sources import build
from equipoise.evaluation.tasks.base import Built
from equipoise.recipe_evaluation import PreferenceSpec
from equipoise.recipe_sources import Source, generated
from equipoise.records import InputError, Item, Pair


def preference_items(name: str, spec: PreferenceSpec, sources: Mapping[str, Source]) -> Built:
    """One item for each clean pair, and why the other rows give none.

    Raises InputError where the source is not there, holds nothing out, or has no pairs before a model answers.
    """
    where = f"evaluation.tasks.{name}.source"
    source = sources.get(spec.source) if isinstance(spec.source, str) else spec.source
    if source is None:
        known = ", ".join(sources) or "none here; write the source itself"
        raise InputError(f"{where}: no source {spec.source!r} (known: {known})")
    if generated(source):
        raise InputError(
            f"{where}: a model answers its questions, so it has no pairs to ask about; name another source"
        )
    of_recipe = isinstance(spec.source, str)
    if of_recipe and not source.hold_out:
        raise InputError(f"{where}: all pairs of {spec.source!r} may be trained on; set its `hold_out` above 0")
    built = build(spec.source if isinstance(spec.source, str) else name, source)
    pairs, reasons = clean(built.pairs, evaluation_texts=())
    dropped = {
        reason: count for reason, count in {**built.dropped, **reasons}.items() if count and reason != OVER_LIMIT
    }
    if of_recipe:
        kept_out = held_out_groups(built.pairs, source.hold_out)
        pairs = [pair for pair in pairs if pair.group in kept_out]
    return Built([_item(pair, name) for pair in pairs], dropped)


def _item(pair: Pair, task: str) -> Item:
    return Item(
        id=pair.id,
        task=task,
        prompt=pair.prompt,
        group=pair.group,
        category=pair.domain,
        gold={"pair": [pair.chosen, pair.rejected]},
    )
