"""Which comments of a post make a pair: the rule of the real gap, and the rule of the original program. Pure.

**gap.** The score of the better comment is at least `ratio` times the score of the worse one, where no score counts
less than the `floor` quantile of its subreddit; and its percentile rank in the subreddit is at least `percentile`
higher. A rank is the share of scores below plus half the share of equal ones. Scores are not negative (such rows are
malformed): a ratio to a negative number says nothing. There is no second choice where no two comments differ so much.

**balance.** Pairs whose chosen comment is longer and pairs whose rejected comment is longer are counted, in
characters. The larger side loses its pairs of the smallest gap until both sides are equal. Pairs of equal lengths
teach nothing about length and stay. Of equal gaps the pair whose chosen comment has the higher score stays, and of
equal scores the one whose texts come first in the order of characters.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import numpy as np

from equipoise.recipe_sources import MinGap, RedditSource

ALONE = "only comment left of its post"
NO_GAP = "no real score gap in the post"
LENGTHS = "lengths too different"
NO_MATCH = "no comment worse by the margin and of similar length"
COMPARED = 64
"""Of a post with more comments only the best and the worst half of so many are compared: their pairs are wide."""


class Comment(NamedTuple):
    """A comment that may stand in a pair; `row` is its place among the rows of the source, from 0."""

    row: int
    score: float
    body: str


@dataclass(slots=True)
class Post:
    """A post and what is left of its comments."""

    id: str
    group: str
    subreddit: str
    title: str
    text: str
    comments: list[Comment] = field(default_factory=list)


class Choice(NamedTuple):
    """A pair: under `post`, `better` is a better answer than `worse`, by `gap`."""

    post: Post
    better: Comment
    worse: Comment
    gap: float


class Standing:
    """Where a score stands among all scores of its subreddit."""

    def __init__(self, scores: Iterable[float], floor: float) -> None:
        self._scores = sorted(scores)
        self.floor = float(np.quantile(self._scores, floor))

    def gap(self, better: float, worse: float) -> float:
        """Difference of the percentile ranks (0-1) of two scores; whole numbers until the one division."""
        return (self._twice_rank(better) - self._twice_rank(worse)) / (2 * len(self._scores))

    def _twice_rank(self, score: float) -> int:
        return bisect_left(self._scores, score) + bisect_right(self._scores, score)


def by_gap(post: Post, standing: Standing, spec: RedditSource) -> list[Choice] | str:
    """The pairs of a post, the widest gap first, or the reason why there is none.

    There are never more pairs than comments.
    """
    if len(post.comments) < 2:
        return ALONE
    ranked = sorted(post.comments, key=lambda comment: (-comment.score, comment.body))
    if len(ranked) > COMPARED:
        ranked = ranked[: COMPARED // 2] + ranked[-COMPARED // 2 :]
    compared = (
        (better, worse, _real_gap(better, worse, standing, spec.min_gap)) for better, worse in combinations(ranked, 2)
    )
    real = [Choice(post, better, worse, gap) for better, worse, gap in compared if gap is not None]
    if not real:
        return NO_GAP
    alike = [choice for choice in real if _alike(choice, spec.length_ratio)]
    if not alike:
        return LENGTHS
    return sorted(alike, key=_widest_first)[: min(spec.max_pairs_per_post, len(post.comments))]


def by_original(post: Post, spec: RedditSource) -> list[Choice] | str:
    """The pairs of the original program: the top comment against the next ones that are worse by the margin.

    Their lengths differ by at most the tolerance. Comments of the same score keep the order of the file. With
    `fallback`, a post without such a comment gives the worst one. Returns the reason where there is no pair.
    """
    if len(post.comments) < 2:
        return ALONE
    top, *others = sorted(post.comments, key=lambda comment: -comment.score)
    found = [other for other in others if top.score - other.score >= spec.margin and _tolerated(top, other, spec)]
    if not found and spec.fallback:
        found = others[-1:]
    if not found:
        return NO_MATCH
    return [Choice(post, top, other, top.score - other.score) for other in found[: spec.max_pairs_per_post]]


def over_the_cap(choices: Sequence[Choice], most: int) -> set[int]:
    """Places of the pairs beyond `most` in their subreddit, where those with the widest gaps come first."""
    order = sorted(range(len(choices)), key=lambda place: _widest_first(choices[place]))
    seen: Counter[str] = Counter()
    over = set()
    for place in order:
        subreddit = choices[place].post.subreddit
        seen[subreddit] += 1
        if seen[subreddit] > most:
            over.add(place)
    return over


def out_of_balance(choices: Sequence[Choice]) -> set[int]:
    """Places of the pairs to drop so that the chosen comment is the longer one as often as the rejected one."""
    longer: list[int] = []
    shorter: list[int] = []
    for place, choice in enumerate(choices):
        difference = len(choice.better.body) - len(choice.worse.body)
        if difference:
            (longer if difference > 0 else shorter).append(place)
    larger, smaller = (longer, shorter) if len(longer) > len(shorter) else (shorter, longer)
    larger.sort(key=lambda place: _widest_first(choices[place]))
    return set(larger[len(smaller) :])


def _real_gap(better: Comment, worse: Comment, standing: Standing, least: MinGap) -> float | None:
    """The percentile gap of two comments, the better one first, or None where it is not real."""
    if better.score <= worse.score or better.score < least.ratio * max(worse.score, standing.floor):
        return None
    gap = standing.gap(better.score, worse.score)
    return gap if gap >= least.percentile else None


def _alike(choice: Choice, ratio: float) -> bool:
    one, other = len(choice.better.body), len(choice.worse.body)
    return max(one, other) <= ratio * min(one, other)


def _tolerated(one: Comment, other: Comment, spec: RedditSource) -> bool:
    lengths = len(one.body), len(other.body)
    return abs(lengths[0] - lengths[1]) <= spec.length_tolerance * max(lengths)


def _widest_first(choice: Choice) -> tuple[float, float, str, str, str]:
    return (-choice.gap, -choice.better.score, choice.better.body, choice.worse.body, choice.post.id)
