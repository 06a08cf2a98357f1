"""Kind `mt_bench_style`: questions of two turns in MT-Bench's eight categories, answered by several policies.

The questions are the built-in ones (`data/questions/`) or those of a file. None may be one of MT-Bench's own, whether
the recipe evaluates on MT-Bench or not: what a model was trained on measures nothing any more. `mt_bench_style.txt`
beside this page holds their fingerprints.

The answers of all policies are ranked by reward. The second turn is asked after the better first answer, so a second
turn has a pair only where the first one has.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any

from equipoise.data.built import OVER_LIMIT, Built, Dropped, collect, column, draft, limited, text
from equipoise.data.mix import allocate
from equipoise.data.questions import MOST, bank
from equipoise.data.read import SourceRows, source_rows
from equipoise.data.sampling import BEYOND, NOT_NEEDED, Judge, Ranked, Scored, sample_seed
from equipoise.data.seeds import generator
from equipoise.data.words import words
from equipoise.data.workshop import Finished, Workshop
from equipoise.model.generate import Answer, Generator
from equipoise.recipe_sources import MtBenchStyleSource
from equipoise.records import InputError, Message, Pair, content_id

Row = Mapping[str, Any]
NO_FIRST = "no pair of its first turn"
SHOWN = 60
"""Characters of a question that an error shows."""


def build(name: str, spec: MtBenchStyleSource) -> Built:
    """One draft for each turn that is asked; rows are turns.

    In the draft of a second turn the first answer is empty: `finish` fills it in. Raises InputError where a file
    holds a question of MT-Bench, and where there are fewer built-in questions than asked.
    """
    known: set[str] = set()
    rows = source_rows(name, spec, ("category", "turns"), pocket="mt_bench") if spec.id else _built_in(name, spec)
    whole = spec.model_copy(update={"limit": None})  # the limit may not divide a question as it likes
    found = collect(name, whole, rows, lambda row: _dialogue(row, rows, name, spec, known))
    every = spec.turns * len(found.pairs)
    asked = limited(found.pairs, -(-spec.limit // spec.turns) if spec.limit else None, name)
    drafts = [replace(one, prompt=one.prompt[:end]) for one in asked for end in (1, 3)[: spec.turns]][: spec.limit]
    dropped = {reason: spec.turns * count for reason, count in found.dropped.items()}
    if len(drafts) < every:
        dropped[OVER_LIMIT] = every - len(drafts)
    return Built(drafts, spec.turns * found.rows, dict(sorted(dropped.items())))


def finish(name: str, spec: MtBenchStyleSource, drafts: Sequence[Pair], workshop: Workshop) -> Finished:
    """The best answer of all policies against the worst, for each turn, where the reward gap is wide enough."""
    return _Work(name, spec, drafts, workshop).finished()


def require_not_evaluated(drafts: Iterable[Pair], evaluation_texts: Iterable[str], name: str) -> None:
    """Raises InputError where the first turn of a draft is, word for word, a turn of the evaluation.

    Second turns are often short and said everywhere ("Can you make it shorter?"); cleaning drops those that agree.
    """
    evaluated = {" ".join(words(one)) for one in evaluation_texts} - {""}
    for one in drafts:
        question = one.prompt[0].content
        if " ".join(words(question)) in evaluated:
            raise InputError(
                f"source {name}: the recipe evaluates on the question {_short(question)!r}; "
                "take it out of the source's file, or evaluate on other questions"
            )


def fingerprint(turn: str) -> str:
    """16 hexadecimal digits that identify the words of a turn, whatever its case and punctuation."""
    return hashlib.sha256(" ".join(words(turn)).encode()).hexdigest()[:16]


@cache
def official() -> frozenset[str]:
    """Fingerprints of the 160 turns of MT-Bench's 80 questions."""
    page = files(__package__).joinpath("mt_bench_style.txt").read_text(encoding="ascii")
    return frozenset(page.split())


def _built_in(name: str, spec: MtBenchStyleSource) -> Iterator[Row]:
    categories = list(dict.fromkeys(spec.categories))
    counts = allocate(dict.fromkeys(categories, 1 / len(categories)), spec.questions)
    if max(counts.values()) > MOST:
        raise InputError(
            f"sources.{name}.questions: {spec.questions}: there are {MOST} built-in questions of each category, "
            f"{MOST * len(categories)} in all; lower it, name more `categories`, or give your own questions with `id`"
        )
    for category in categories:
        for question in bank(category, counts[category]):
            yield {"category": category, "turns": question.turns}


def _dialogue(row: Row, rows: Iterable[Row], name: str, spec: MtBenchStyleSource, known: set[str]) -> Pair:
    """The draft of the last turn of a row; raises Dropped where there is none.

    `rows` is where it comes from; `known` holds the first turns so far.
    """
    turns = column(row, "turns")
    if not isinstance(turns, list | tuple):
        raise Dropped("wrong type", f"turns: {type(turns).__name__} where a list of texts belongs")
    said = [text(turn, "turns") for turn in turns]
    for turn in said:
        if isinstance(rows, SourceRows) and fingerprint(turn) in official():
            raise InputError(
                f"source {name}: {rows.place}: {_short(turn)!r} belongs to MT-Bench's own questions, on "
                "which models are evaluated; take the row out of the file"
            )
    if column(row, "category") not in spec.categories:
        raise Dropped("category not asked", malformed=False)
    if len(said) < spec.turns:
        raise Dropped("too few turns", f"{len(said)} of {spec.turns}")
    asked = tuple(Message("user", turn) for turn in said[: spec.turns])
    one = draft(asked, "", spec=spec, name=name, group=content_id(said[0]))
    if said[0] in known:
        raise Dropped("duplicate question", malformed=False)
    known.add(said[0])
    return replace(one, prompt=(asked[0], Message("assistant", ""), asked[1])) if spec.turns == 2 else one


def _short(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


class _Work:
    """One source being answered, in chunks of questions, until there are enough usable pairs."""

    def __init__(self, name: str, spec: MtBenchStyleSource, drafts: Sequence[Pair], workshop: Workshop) -> None:
        self._name, self._spec, self._drafts, self._workshop = name, spec, drafts, workshop
        self._pairs: list[Pair] = []
        self._dropped: Counter[str] = Counter()
        what = f"source {name}"
        self._judge = Judge(workshop.judge(), min_gap=spec.ranking.min_gap, progress=self._tell, what=what)
        firsts = {one.prompt[0]: one for one in drafts if len(one.prompt) == 1}
        seconds = {one.prompt[0]: one for one in drafts if len(one.prompt) > 1}
        self._dropped[NO_FIRST] = sum(question not in firsts for question in seconds)
        questions = list(firsts)
        shuffled = [questions[place] for place in generator("prompts", name).permutation(len(questions)).tolist()]
        turns = [turn[question] for question in shuffled for turn in (firsts, seconds) if question in turn]
        asked = turns[: spec.ranking.max_prompts]
        self._firsts = [one for one in asked if len(one.prompt) == 1]
        self._seconds = {one.prompt[0]: one for one in asked if len(one.prompt) > 1}

    @cached_property
    def _policies(self) -> list[Generator]:
        return [self._workshop.generator(policy) for policy in self._spec.policies]

    @property
    def _enough(self) -> bool:
        return len(self._pairs) >= self._workshop.wanted

    def finished(self) -> Finished:
        """Answer chunks until it is enough; always drafts = pairs + dropped."""
        held: list[tuple[Sequence[Pair], list[Scored]]] = []
        size = self._spec.ranking.batch_size
        for start in range(0, len(self._firsts), size):
            if self._enough:
                break
            chunk = self._firsts[start : start + size]
            held.append((chunk, self._scored(chunk)))
            if self._judge.ready or start + size >= len(self._firsts):  # until then the spread is not known
                for asked, scored in held:
                    self._take(asked, scored)
                held = []
        if self._enough and self._workshop.wanted:
            self._show(self._workshop.wanted)
        left = len(self._drafts) - len(self._pairs) - self._dropped.total()
        self._dropped[NOT_NEEDED if self._enough else BEYOND] += left
        dropped = {reason: count for reason, count in sorted(self._dropped.items()) if count}
        return Finished(self._pairs, dropped, self._judge.spread)

    def _take(self, firsts: Sequence[Pair], scored: Sequence[Scored]) -> None:
        """Make the pairs of a chunk of questions: those of the first turns, then those of the second turns."""
        if self._enough:
            return
        before = len(self._pairs)
        made = self._kept(firsts, scored)
        better = {pair.prompt[0]: Message("assistant", pair.chosen) for pair in made}
        there = [self._seconds[one.prompt[0]] for one in firsts if one.prompt[0] in self._seconds]
        seconds = [
            replace(one, prompt=(one.prompt[0], better[one.prompt[0]], *one.prompt[2:]))
            for one in there
            if one.prompt[0] in better
        ]
        self._dropped[NO_FIRST] += len(there) - len(seconds)
        self._kept(seconds, self._scored(seconds))
        place = {one.prompt[0]: place for place, one in enumerate(firsts)}
        # Question by question: a stage that draws a few of these pairs draws both kinds of turns.
        self._pairs[before:] = sorted(self._pairs[before:], key=lambda pair: place[pair.prompt[0]])

    def _kept(self, drafts: Sequence[Pair], scored: Sequence[Scored]) -> list[Pair]:
        """The usable pairs of some drafts; the others are counted."""
        kept: list[Pair] = []
        for one, ranked in zip(drafts, self._judge.rank(scored), strict=True):
            made = _pair(one, ranked) if isinstance(ranked, Ranked) else None
            reason = self._workshop.usable(made) if made else str(ranked)
            if made and reason is None:
                kept.append(made)
            else:
                self._dropped[str(reason)] += 1
        self._pairs += kept
        self._tell()
        return kept

    def _scored(self, drafts: Sequence[Pair]) -> list[Scored]:
        """Rewards of the answers of all policies to some drafts."""
        prompts = [one.prompt for one in drafts]
        ranking = self._spec.ranking
        answers: list[list[Answer]] = [
            policy.generate(
                prompts,
                max_new_tokens=ranking.max_new_tokens,
                temperature=spec.temperature,
                seed=sample_seed(ranking.seed, place),
                progress=self._tell,
            )
            for place, (spec, policy) in enumerate(zip(self._spec.policies, self._policies, strict=True))
        ]
        return self._judge.score(prompts, list(zip(*answers, strict=True)))

    def _tell(self, done: int = 0, total: int = 0) -> None:
        """Say how many pairs there are; called while a chunk is answered as well, to show that work goes on.

        That all are there is said once, by `finished`: second turns may still be asked when first ones are enough.
        """
        self._show(min(len(self._pairs), self._workshop.wanted - 1))

    def _show(self, pairs: int) -> None:
        self._workshop.progress(f"{self._name}: pairs", pairs, self._workshop.wanted)


def _pair(one: Pair, ranked: Ranked) -> Pair:
    return replace(one, chosen=ranked.better, rejected=ranked.worse, reward_gap=ranked.gap)
