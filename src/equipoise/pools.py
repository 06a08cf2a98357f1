"""From sources to pools of clean pairs: read, clean, hold out, keep in the store; and answers for what was read.

A pool depends on the bytes that were read, on the options of its source, on what the recipe evaluates, and on the code
of `data/`: by these it is kept, and served a second time without reading the file again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import xxhash

from equipoise.data import ledger as ledgers
from equipoise.data.clean import clean
from equipoise.data.kept import Pool, held_out_groups, pack, unpack
from equipoise.data.ledger import SourceLine
from equipoise.data.overlap import Overlap
from equipoise.data.read import POCKET, content_of
from equipoise.data.sampling import BEYOND, NOT_NEEDED
from equipoise.data.sources import build, finish
from equipoise.data.sources.mt_bench_style import require_not_evaluated
from equipoise.data.words import words
from equipoise.data.workshop import Workshop
from equipoise.evaluation.items import evaluation_texts
from equipoise.models import Models
from equipoise.progress import Display, labelled
from equipoise.recipe import Ranking, Source
from equipoise.recipe_sources import Generated, MtBenchStyleSource, generated
from equipoise.records import InputError, Item, Pair, content_id
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


def gather_all(
    sources: Mapping[str, Source], asked: Asked, store: Store, display: Display
) -> tuple[dict[str, Pool], Doubles]:
    """The clean pairs (or drafts) of all sources, each without what another one holds out or an earlier one has.

    Raises InputError as `gather` does.
    """
    pools = {name: gather(name, spec, asked, store, display) for name, spec in sources.items()}
    held_out, doubles = HeldOut(), Doubles()
    for name, spec in sources.items():
        held_out.add(name, spec, pools[name].held_out)
    for name, spec in sources.items():
        pool = held_out.without(name, spec, pools[name])
        # Two sources may ask the same questions and get other answers: drafts are no doubles of each other.
        if not generated(spec):
            pool = pool.without([doubles.reason(name, pair) for pair in pool.pairs])
            doubles.add(name, pool.pairs)
        pools[name] = pool
    return pools, doubles


def unanswered(spec: Generated, drafts: Pool) -> Pool:
    """Drafts in the place of the pairs that they may become: no more than may be asked."""
    pairs = drafts.pairs[: ranking_of(spec).max_prompts]
    beyond = {BEYOND: len(drafts.pairs) - len(pairs)} if len(pairs) < len(drafts.pairs) else {}
    line = replace(drafts.line, available=len(pairs), unpaired=beyond, assumed=True, lengths=None)
    return replace(drafts, pairs=pairs, line=line, left_out=frozenset())


@contextmanager
def told_what_was_dropped(lines: Mapping[str, SourceLine], sources: Mapping[str, Source]) -> Iterator[None]:
    """Adds to an error about a source why its rows made no pairs: the ledger is not there yet to be looked at."""
    try:
        yield
    except InputError as error:
        said = [str(error)]
        for name, line in lines.items():
            drops = dict(Counter(line.malformed) + Counter(line.cleaned) + Counter(line.unpaired))
            drops |= {"held out": line.held_out} if line.held_out else {}
            if drops and f"source {name}:" in said[0]:
                reasons = ", ".join(f"{reason}: {count}" for reason, count in drops.items())
                said.append(f"source {name}: {line.rows} rows; {reasons}")
                if BEYOND in drops:
                    part = "ranking" if isinstance(sources[name], MtBenchStyleSource) else "sampling"
                    said[-1] += f"; raise sources.{name}.{part}.max_prompts, or leave it out"
        raise InputError("\n".join(said)) from None


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


class HeldOut:
    """What sources hold out of training, so that no other source brings it back under its own name."""

    def __init__(self) -> None:
        self._owners: dict[object, list[str]] = {}

    def add(self, name: str, spec: Source, pairs: Iterable[Pair]) -> None:
        """Remember what a source holds out."""
        for pair in pairs:
            for mark in self._marks(spec, pair):
                owners = self._owners.setdefault(mark, [])
                if name not in owners:
                    owners.append(name)

    def without(self, name: str, spec: Source, pool: Pool) -> Pool:
        """The pool of a source without what other sources hold out."""
        if not any(owner != name for owners in self._owners.values() for owner in owners):
            return pool
        return pool.without([self._reason(name, spec, pair) for pair in pool.pairs])

    def _reason(self, name: str, spec: Source, pair: Pair) -> str | None:
        owners = (owner for mark in self._marks(spec, pair) for owner in self._owners.get(mark, ()))
        owner = next((owner for owner in owners if owner != name), None)
        return None if owner is None else f"held out of source {owner}"

    def _marks(self, spec: Source, pair: Pair) -> Iterator[object]:
        """By what two pairs are known to ask the same: the words of their prompts, or their group.

        Groups mean the same in sources of one domain, of one data set, and of one kind whose groups are not a column
        that the recipe names.
        """
        said = [message.content for message in pair.prompt if message.role != "system"]
        yield "question", " ".join(word for text in said for word in words(text)) or "\n".join(said)
        yield "domain", spec.domain, pair.group
        if spec.kind not in ("pocket", "table", "on_policy"):
            yield "kind", spec.kind, pair.group
        data = POCKET if spec.kind == "pocket" else getattr(spec, "id", None)
        if data is not None:
            yield "data", data, pair.group


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
    with models.for_a_source(name):
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
            if found >= wanted or not finished.dropped.get(NOT_NEEDED):
                break
            more += wanted - found
    unpaired = dict(Counter(finished.dropped) + Counter(reasons))
    line = replace(drafts.line, unpaired=unpaired, spread=finished.spread, assumed=False)
    line = ledgers.with_pairs(line, pairs)
    return replace(drafts, pairs=pairs, line=line, left_out=frozenset(), in_order=True)
