"""Kind `reddit`: posts with up to three scored comments each, as in winddude/reddit_finance_43_250k, one row a comment.

A row either carries a pair or is dropped for one reason, so rows = pairs + all that was dropped. Of the two rows of a
pair one carries it, and the other is counted as the "other comment of a pair".

The comments of a post may stand anywhere in the file. Where rows say the same, are near duplicates, or tell different
posts under one id, the first one stays. Nothing else depends on the order of the rows, but for comments of equal score
in `rule: original`. Near duplicates are looked for where a pair may come of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equipoise.data.built import Built, Dropped, collect, pair
from equipoise.data.near import near_duplicates
from equipoise.data.prompts import REDDIT_COLUMNS, post_prompt, reddit_prompt
from equipoise.data.read import POCKET, source_rows
from equipoise.data.sources.reddit_read import Reader
from equipoise.data.sources.reddit_rules import (
    Choice,
    Post,
    Standing,
    by_gap,
    by_original,
    out_of_balance,
    over_the_cap,
)
from equipoise.recipe import RedditSource
from equipoise.records import Pair

Outcome = Choice | Dropped | str
"""What becomes of a row: it carries a pair, it is malformed, or it is dropped for a reason."""
NEAR_POST = "near duplicate of an earlier post"
NEAR_COMMENT = "near duplicate of an earlier comment"
OTHER = "other comment of a pair"
FURTHER = "further comment of the post"
CAP = "over max_pairs_per_subreddit"
BALANCE = "dropped to balance lengths"


def build(name: str, spec: RedditSource) -> Built:
    """The pairs of all posts, in the order of the rows that carry them; the pairs of a post are one group.

    Raises InputError as `collect` does.
    """
    required = ("id", *REDDIT_COLUMNS, "body", spec.score)
    reader = Reader(spec)
    rows = source_rows(name, spec, required, pocket="reddit")
    outcomes: list[Outcome] = []
    for place, row in enumerate(rows):
        outcomes.append(reader.outcome(place, row))
        if isinstance(outcomes[-1], Dropped):
            outcomes[-1].place = rows.place
    if spec.rule == "original":
        found = _choices(reader.posts(), lambda post: by_original(post, spec), outcomes)
        _carry(found, {}, outcomes)
    else:
        _choose_by_gap(reader, spec, outcomes)
    del reader  # the texts of what was dropped
    return collect(name, spec, outcomes, lambda outcome: _pair(outcome, name, spec))


def preferences(rows: Iterable[Mapping[str, Any]], spec: RedditSource) -> dict[str, tuple[str, str]]:
    """The better and the worse comment of each post (by group) that has two with a real gap, among rows in memory.

    The first pair of each post by the rule of the gap; lengths are not balanced, since that would leave posts out.
    """
    reader = Reader(spec)
    outcomes: list[Outcome] = [reader.outcome(place, row) for place, row in enumerate(rows)]
    _choose_by_gap(reader, spec.model_copy(update={"balance_length": False}), outcomes)
    found: dict[str, tuple[str, str]] = {}
    for outcome in outcomes:
        if isinstance(outcome, Choice):
            found.setdefault(outcome.post.group, (outcome.better.body, outcome.worse.body))
    return found


def _choose_by_gap(reader: Reader, spec: RedditSource, outcomes: list[Outcome]) -> None:
    """Write into `outcomes` what becomes of the comments that are still to be decided."""
    standings = {name: Standing(scores, spec.min_gap.floor) for name, scores in reader.scores.items()}

    def choose(post: Post) -> list[Choice] | str:
        return by_gap(post, standings[post.subreddit], spec)

    found = _choices(reader.posts(), choose, outcomes)
    if "near_duplicate" in spec.drop:
        posts = _distinct_posts([choices[0].post for choices in found], outcomes)
        _leave_distinct_comments(posts, outcomes)
        found = _choices(posts, choose, outcomes)
    choices = [choice for of_post in found for choice in of_post]
    dropped: dict[int, str] = {}
    if spec.max_pairs_per_subreddit is not None:
        dropped = dict.fromkeys(over_the_cap(choices, spec.max_pairs_per_subreddit), CAP)
    if spec.balance_length:
        left = [place for place in range(len(choices)) if place not in dropped]
        dropped |= {left[place]: BALANCE for place in out_of_balance([choices[place] for place in left])}
    _carry(found, dropped, outcomes)


def _choices(
    posts: Iterable[Post], choose: Callable[[Post], list[Choice] | str], outcomes: list[Outcome]
) -> list[list[Choice]]:
    """The pairs of each post that has some; the comments of the others are dropped for the reason given."""
    found = []
    for post in posts:
        choices = choose(post)
        if isinstance(choices, str):
            _drop(post, choices, outcomes)
        else:
            found.append(choices)
    return found


def _distinct_posts(posts: Sequence[Post], outcomes: list[Outcome]) -> list[Post]:
    """The posts without near duplicates of an earlier one: by their texts, since reposts change the title."""
    distinct = []
    for post, earlier in zip(posts, near_duplicates([(post.text or post.title,) for post in posts]), strict=True):
        if earlier is None:
            distinct.append(post)
        else:
            _drop(post, NEAR_POST, outcomes)
    return distinct


def _leave_distinct_comments(posts: Sequence[Post], outcomes: list[Outcome]) -> None:
    """Take the comments that are near duplicates of an earlier one, of whatever post, out of their posts."""
    comments = sorted(comment for post in posts for comment in post.comments)  # by row
    near = {
        comment.row
        for comment, earlier in zip(comments, near_duplicates([(comment.body,) for comment in comments]), strict=True)
        if earlier is not None
    }
    for row in near:
        outcomes[row] = NEAR_COMMENT
    for post in posts:
        post.comments = [comment for comment in post.comments if comment.row not in near]


def _drop(post: Post, reason: str, outcomes: list[Outcome]) -> None:
    for comment in post.comments:
        outcomes[comment.row] = reason


def _carry(found: Iterable[Sequence[Choice]], dropped: Mapping[int, str], outcomes: list[Outcome]) -> None:
    """Give each pair a row of its post; a dropped one (by its place among all pairs) leaves its reason there."""
    place = 0
    for choices in found:
        better, worse = [choice.better.row for choice in choices], [choice.worse.row for choice in choices]
        rows = list(dict.fromkeys(better + worse))
        _drop(choices[0].post, FURTHER, outcomes)
        for row in rows:
            outcomes[row] = OTHER
        rows += [comment.row for comment in choices[0].post.comments if comment.row not in rows]
        for choice, row in zip(choices, rows, strict=False):
            outcomes[row] = dropped.get(place, choice)
            place += 1


def _pair(outcome: Outcome, name: str, spec: RedditSource) -> Pair:
    if isinstance(outcome, str):
        raise Dropped(outcome, malformed=False)
    if isinstance(outcome, Dropped):
        raise outcome
    post = outcome.post
    if spec.id == POCKET:
        prompt = post_prompt(post.title, post.text)
    else:
        prompt = reddit_prompt({"subreddit": post.subreddit, "title": post.title, "selftext": post.text})
    made = pair(prompt, outcome.better.body, outcome.worse.body, spec=spec, name=name, group=post.group)
    return replace(made, score_gap=outcome.gap)
