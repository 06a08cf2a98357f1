"""From sources to pools of clean pairs: read, clean, hold out, keep in the store; and answers for what was read.

A pool depends on the bytes that were read, on the options of its source, on what the recipe evaluates, and on the code
of `data/`: by these it is kept, and served a second time without reading the file again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import xxhash

from equipoise.data import ledger as ledgers
from equipoise.data.clean import clean
from equipoise.data.kept import Pool, held_out_groups, pack, unpack
from equipoise.data.overlap import Overlap
from equipoise.data.read import content_of
from equipoise.data.sources import build, finish
from equipoise.data.sources.mt_bench_style import require_not_evaluated
from equipoise.data.workshop import Workshop
from equipoise.evaluation.items import evaluation_texts
from equipoise.models import Models
from equipoise.progress import Display, labelled
from equipoise.recipe import Ranking, Source
from equipoise.recipe_sources import Generated, MtBenchStyleSource
from equipoise.records import Item, Pair, content_id
from equipoise.store import Store

KIND = "sources"
"""Under which pools are kept in the store."""


@dataclass(frozen=True)
class Asked:
    """What the evaluation asks, which no pair may give away."""

    texts: tuple[str, ...]
    groups: Mapping[str, frozenset[str]]

    @classmethod
    def by(cls, items: Mapping[str, Sequence[Item]]) -> Asked:
        """What the items of all tasks ask."""
        texts = evaluation_texts(item for task in items.values() for item in task)
        return cls(tuple(texts), {name: frozenset(item.group for item in task) for name, task in items.items()})

    def groups_of(self, spec: Source) -> frozenset[str]:
        """Groups (posts, documents) of the task that asks about the same data as a source."""
        return frozenset().union(*(self.groups.get(name, frozenset()) for name in {spec.kind, spec.domain}))

    @cached_property
    def overlap(self) -> Overlap:
        """Finds what touches the evaluation."""
        return Overlap(self.texts)

    @cached_property
    def identity(self) -> str:
        """Of everything above."""
        return content_id([list(self.texts), {name: sorted(groups) for name, groups in self.groups.items()}])


def gather(name: str, spec: Source, asked: Asked, store: Store, display: Display) -> Pool:
    """The clean pairs (or drafts) of a source, from the store where they are kept there.

    Raises InputError where the source cannot be read, or is malformed beyond its `max_malformed`.
    """
    identity = _identity(name, spec, asked)
    kept = store.get_file(KIND, identity)
    if kept is not None:
        display.say(f"source {name}: from the store")
        return unpack(kept, source=name, domain=spec.domain)
    display.say(f"building source {name}")
    built = build(name, spec)
    if isinstance(spec, MtBenchStyleSource):
        require_not_evaluated(built.pairs, asked.texts, name)
    pairs, reasons = clean(
        built.pairs, evaluation_texts=(), overlap=asked.overlap, evaluated_groups=asked.groups_of(spec)
    )
    held_out = held_out_groups(built.pairs, spec.hold_out)
    own = [pair for pair in pairs if pair.group not in held_out]
    line = replace(ledgers.source_line(built, own, reasons), held_out=len(pairs) - len(own))
    pool = Pool(own, [pair for pair in pairs if pair.group in held_out], line)
    store.put_file(KIND, identity, pack(pool))
    return pool


def _identity(name: str, spec: Source, asked: Asked) -> str:
    what = f"source {name}"
    id = getattr(spec, "id", "pocket")  # the kinds that read no file are made of the world, or of the code of `data/`
    split, revision = getattr(spec, "split", "train"), getattr(spec, "revision", None)
    content = content_of(id, revision=revision, split=split, what=what) if id else ""
    return content_id([code_identity(), name, spec.model_dump(mode="json"), content, asked.identity])


def code_identity() -> str:
    """Hash of the code (and the built-in questions) that sources are built with: another version gives other pairs."""
    folder = Path(ledgers.__file__).parent
    hashed = xxhash.xxh3_128()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".toml", ".txt")):
        hashed.update(path.read_bytes())
    return hashed.hexdigest()


class Doubles:
    """Which source has which pair, so that no pair is in two of them."""

    def __init__(self) -> None:
        self._owners: dict[object, str] = {}

    def reason(self, name: str, pair: Pair) -> str | None:
        """Why a pair of source `name` is left out: an earlier source has it. None where none has."""
        owner = self._owners.get((pair.prompt, pair.chosen, pair.rejected), name)
        return None if owner == name else f"in source {owner} as well"

    def add(self, name: str, pairs: Iterable[Pair]) -> None:
        """Remember the pairs of a source; what an earlier one has stays its own."""
        for pair in pairs:
            self._owners.setdefault((pair.prompt, pair.chosen, pair.rejected), name)

    def without(self, name: str, pool: Pool) -> Pool:
        """The pool of a source without what earlier sources have."""
        reasons = [self.reason(name, pair) for pair in pool.pairs]
        twice = Counter(reason for reason in reasons if reason)
        if not twice:
            return pool
        pairs = [pair for pair, reason in zip(pool.pairs, reasons, strict=True) if reason is None]
        line = ledgers.with_pairs(replace(pool.line, cleaned={**pool.line.cleaned, **twice}), pairs)
        return replace(pool, pairs=pairs, line=line)


def ranking_of(spec: Generated) -> Ranking:
    """How the answers of a source are made and ranked."""
    return spec.ranking if isinstance(spec, MtBenchStyleSource) else spec.sampling


def answered(
    name: str,
    spec: Generated,
    drafts: Pool,
    *,
    wanted: int,
    usable: Callable[[Pair], str | None],
    asked: Asked,
    models: Models,
    start: Sequence[Path],
    display: Display,
) -> Pool:
    """The pool of a source that generates: drafts answered by models, ranked, and cleaned once more.

    Answers and rewards are kept by content, so a build that was killed goes on where it was, and asking for more
    pairs continues after those that are there.
    """
    ranking = ranking_of(spec)
    more = wanted
    with models.for_a_source():
        while True:
            workshop = Workshop(
                wanted=more,
                usable=lambda pair: usable(pair) or asked.overlap.reason(pair),
                generator=lambda policy: models.generator(policy, start, ranking.batch_size),
                judge=lambda: models.judge(spec.reward),
                progress=labelled(display),
            )
            finished = finish(name, spec, drafts.pairs, workshop)
            pairs, reasons = clean(finished.pairs, evaluation_texts=(), overlap=asked.overlap)
            found = sum(usable(pair) is None for pair in pairs)
            if found >= wanted or not finished.dropped.get("not needed"):
                break
            more += wanted - found
    unpaired = dict(Counter(finished.dropped) + Counter(reasons))
    line = replace(drafts.line, unpaired=unpaired, spread=finished.spread, assumed=False)
    return replace(drafts, pairs=pairs, line=ledgers.with_pairs(line, pairs))
