"""Pairs from generated answers: drafts are answered in chunks, and each draft makes a pair or the reason why not.

Drafts are asked in an order that the source's name alone decides, in chunks of a fixed size, until enough usable
pairs are there. How many pairs are wanted decides only after which chunk it ends. The generator keeps the answers to
a set of prompts in the store, so a build that was killed goes on where it was, and one that needs more pairs begins
with those that are there.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from equipoise.data.seeds import generator
from equipoise.data.workshop import Finished, Workshop
from equipoise.model.generate import Answer, Progress
from equipoise.model.reward import Reward
from equipoise.model.thinking import without_thinking
from equipoise.recipe import Sampling
from equipoise.records import InputError, Message, Pair

FIRST_REWARDS = 64
"""The spread of the rewards is taken from at least so many of them, where there are so many."""
CUT_OFF = "cut off"
TOO_LONG = "prompt too long for the model"
EMPTY = "empty answer"
BROKEN = "broken unicode"
ONE_ONLY = "one answer only"
EQUAL = "all samples equal"
TOO_CLOSE = "answers too close"
NO_REWARD = "no reward"
NOT_NEEDED = "not needed"
BEYOND = "beyond max_prompts"

Scored = list[tuple[float, str]] | str
"""Rewards and texts of the answers to one prompt, or the reason why they cannot be ranked."""
Made = Pair | str
"""What became of a draft: its pair, or the reason why it has none."""
Chunk = tuple[Sequence[Pair], Sequence[Sequence[Answer]]]
"""Drafts, and the answers to each of them."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best and the worst answer to a prompt, and by how much raw reward they differ."""

    better: str
    worse: str
    gap: float


def unfit(answer: Answer) -> str | None:
    """Why an answer may be no side of a pair: cut off (it would teach never to end), refused, empty, broken unicode."""
    text = without_thinking(answer).text.strip()
    if answer.refused is not None:
        return TOO_LONG
    if answer.cut_off:
        return CUT_OFF
    if not text:
        return EMPTY
    return BROKEN if "\ufffd" in text else None


def said(answer: Answer) -> str:
    """The text that may be one side of a pair, without thinking; empty where the answer is unfit for that."""
    return "" if unfit(answer) else without_thinking(answer).text.strip()


def _none_fit(answers: Sequence[Answer]) -> str:
    """What is wrong with most of a draft's unfit answers, the first of them where several reasons are as frequent."""
    return Counter(reason for reason in map(unfit, answers) if reason).most_common(1)[0][0]


class Judge:
    """Ranks several answers to one prompt by reward, and tells a real gap from noise.

    A gap counts where it is at least `min_gap` times the standard deviation (n - 1) of the rewards of the first
    answers. Which ones these are is settled with the first call of `rank`: all that were scored until then. Only
    prompts with two different answers are scored.

    Args:
        reward: what scores the answers.
        min_gap: smallest gap in standard deviations; a gap of 0 is never enough.
        progress: called with (done, all) while answers are scored.
        what: who asks; begins the error.
    """

    def __init__(
        self, reward: Reward, *, min_gap: float, progress: Progress | None = None, what: str = "reward"
    ) -> None:
        self._reward, self._min_gap, self._progress, self._what = reward, min_gap, progress, what
        self._first: list[float] = []
        self.spread: float | None = None

    def best_and_worst(
        self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[Answer]]
    ) -> list[Ranked | str]:
        """For each prompt its best and its worst answer, or the reason why there is no such pair.

        Raises InputError where the reward model does not tell the first answers apart.
        """
        return self.rank(self.score(prompts, answers))

    @property
    def ready(self) -> bool:
        """Whether enough answers were scored to know the spread of the rewards."""
        return self.spread is not None or len(self._first) >= FIRST_REWARDS

    def score(self, prompts: Sequence[Sequence[Message]], answers: Sequence[Sequence[Answer]]) -> list[Scored]:
        """Rewards of the different answers to each prompt, or the reason why they cannot be ranked."""
        fit = [[text for text in map(said, given) if text] for given in answers]
        distinct = [list(dict.fromkeys(texts)) for texts in fit]
        asked = [
            (prompt, text) for prompt, texts in zip(prompts, distinct, strict=True) if len(texts) > 1 for text in texts
        ]
        rewards = iter(self._reward.score(asked, self._progress) if asked else [])
        scored: list[Scored] = []
        for given_to_one, texts, different in zip(answers, fit, distinct, strict=True):
            if len(different) < 2:
                scored.append(EQUAL if len(texts) > 1 else ONE_ONLY if texts else _none_fit(given_to_one))
                continue
            given = [(next(rewards), text) for text in different]
            known = [(reward, text) for reward, text in given if not isinstance(reward, str)]
            scored.append(known if len(known) > 1 else NO_REWARD)
            if self.spread is None:
                self._first += [reward for reward, _ in known]
        return scored

    def rank(self, scored: Sequence[Scored]) -> list[Ranked | str]:
        """The best and the worst answer of each, or the reason why there is no such pair."""
        if self.spread is None and len(self._first) > 1:
            self.spread = statistics.stdev(self._first)
            if self.spread == 0:
                raise InputError(
                    f"{self._what}: the reward model gives {self._first[0]:g} to each of the first {len(self._first)} "
                    "answers, so it cannot rank them; name another `reward`"
                )
        return [one if isinstance(one, str) else self._ranked(one) for one in scored]

    def _ranked(self, known: list[tuple[float, str]]) -> Ranked | str:
        assert self.spread is not None  # these rewards are among the first, or came later
        (high, better), (low, worse) = max(known, key=lambda one: one[0]), min(known, key=lambda one: one[0])
        gap = high - low
        return Ranked(better, worse, gap) if gap > 0 and gap >= self._min_gap * self.spread else TOO_CLOSE


def ranked_pairs(name: str, spec: Sampling, drafts: Sequence[Pair], workshop: Workshop) -> Finished:
    """The best of `spec.samples` answers to each draft against the worst, where the reward gap is wide enough."""
    work = _Work(name, spec, drafts, workshop)
    judge = Judge(workshop.judge(), min_gap=spec.min_gap, progress=work.tell, what=f"source {name}")
    finished = work.finish(_ranked(work.chunks(spec.samples), judge))
    return replace(finished, spread=judge.spread)


def compared_pairs(
    name: str,
    spec: Sampling,
    drafts: Sequence[Pair],
    workshop: Workshop,
    compare: Callable[[Pair, Sequence[str]], Made],
    *,
    samples: int,
) -> Finished:
    """What `compare` makes of each draft and of its answers that are fit (`said`), of `samples` answers."""
    work = _Work(name, spec, drafts, workshop)
    chunks = work.chunks(samples)

    def made(draft: Pair, answers: Sequence[Answer]) -> Made:
        texts = [text for text in map(said, answers) if text]
        return compare(draft, texts) if texts else _none_fit(answers)

    return work.finish([made(*one) for one in zip(*chunk, strict=True)] for chunk in chunks)


def sample_seed(seed: int, sample: int) -> int:
    """Seed of one sample: those of one recipe seed share nothing with those of the next."""
    return int(generator("sample", seed, sample).integers(2**31))


def _ranked(chunks: Iterator[Chunk], judge: Judge) -> Iterator[list[Made]]:
    """Pairs of one chunk after the other; the first are held back until the spread is known."""
    held: list[tuple[Sequence[Pair], list[Scored]]] = []
    for drafts, answers in chunks:
        held.append((drafts, judge.score([draft.prompt for draft in drafts], answers)))
        if judge.ready:
            yield from _released(held, judge)
            held = []
    yield from _released(held, judge)


def _released(held: Iterable[tuple[Sequence[Pair], list[Scored]]], judge: Judge) -> Iterator[list[Made]]:
    for drafts, scored in held:
        ranked = judge.rank(scored)
        yield [one if isinstance(one, str) else _pair(draft, one) for draft, one in zip(drafts, ranked, strict=True)]


def _pair(draft: Pair, ranked: Ranked) -> Pair:
    return replace(draft, chosen=ranked.better, rejected=ranked.worse, reward_gap=ranked.gap)


class _Work:
    """One source being answered: who is asked, in which order, and when it is enough."""

    def __init__(self, name: str, spec: Sampling, drafts: Sequence[Pair], workshop: Workshop) -> None:
        self._name, self._spec, self._drafts, self._workshop = name, spec, drafts, workshop
        order = generator("prompts", name).permutation(len(drafts)).tolist()
        self._asked = [drafts[place] for place in order[: spec.max_prompts]]
        self._pairs: list[Pair] = []

    @property
    def _enough(self) -> bool:
        return len(self._pairs) >= self._workshop.wanted

    def tell(self, done: int = 0, total: int = 0) -> None:
        """Say how many pairs there are; called while a chunk is answered as well, to show that work goes on."""
        there, wanted = len(self._pairs), self._workshop.wanted
        self._workshop.progress(f"{self._name}: pairs", min(there, wanted), wanted)

    def chunks(self, samples: int) -> Iterator[Chunk]:
        """Answers to the drafts, one chunk when it is asked for."""
        spec, model = self._spec, self._workshop.generator(None)
        for start in range(0, len(self._asked), spec.batch_size):
            drafts = self._asked[start : start + spec.batch_size]
            answers = [
                model.generate(
                    [draft.prompt for draft in drafts],
                    max_new_tokens=spec.max_new_tokens,
                    temperature=spec.temperature,
                    seed=sample_seed(spec.seed, sample),
                    progress=self.tell,
                )
                for sample in range(samples)
            ]
            yield drafts, list(zip(*answers, strict=True))

    def finish(self, chunks: Iterable[list[Made]]) -> Finished:
        """Take chunks until there are enough usable pairs."""
        dropped: Counter[str] = Counter()
        left = iter(chunks)
        while not self._enough and (chunk := next(left, None)) is not None:
            for made in chunk:
                reason = made if isinstance(made, str) else self._workshop.usable(made)
                if reason is not None:
                    dropped[reason] += 1
                elif isinstance(made, Pair):
                    self._pairs.append(made)
            self.tell()
        never = len(self._drafts) - len(self._pairs) - dropped.total()
        if never:
            dropped[NOT_NEEDED if self._enough else BEYOND] += never
        return Finished(self._pairs, dict(sorted(dropped.items())))
