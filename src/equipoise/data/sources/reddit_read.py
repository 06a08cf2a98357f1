"""Rows in the layout of Reddit to posts with their comments: each row is looked at by itself, and few texts are kept.

A post's text is kept once, whatever its number of rows; of what is dropped only the score and a digest stay.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from typing import Any

import xxhash

from equipoise.data.built import Dropped, column, optional_text, text
from equipoise.data.read import POCKET
from equipoise.data.sources.reddit_rules import Comment, Post
from equipoise.data.sources.reddit_texts import unwanted_comment, unwanted_post
from equipoise.recipe_sources import RedditSource

Row = Mapping[str, Any]
REPEATED = "repeated comment"
PENDING = "not decided"


class Reader:
    """Looks at each row by itself, and keeps what may become a pair.

    `scores` holds the scores of all sound rows by subreddit, whatever texts they have: so the rank of a comment
    does not depend on which texts are wanted.
    """

    def __init__(self, spec: RedditSource) -> None:
        self.scores: dict[str, array[float]] = {}
        self._spec = spec
        self._kinds = frozenset(spec.drop if spec.rule == "gap" else ())
        self._known: dict[str, tuple[bytes, Post | str]] = {}
        self._seen: set[bytes] = set()

    def posts(self) -> list[Post]:
        """The wanted posts that have a wanted comment, in the order of their first rows."""
        return [post for _, post in self._known.values() if isinstance(post, Post) and post.comments]

    def outcome(self, place: int, row: Row) -> Dropped | str:
        """The reason why a row is dropped, or `PENDING` where its comment may stand in a pair."""
        try:
            return self._look(place, row)
        except Dropped as drop:
            return drop.with_traceback(None)  # which would keep the row

    def _look(self, place: int, row: Row) -> str:
        id = _id(row)
        subreddit = text(column(row, "subreddit"), "subreddit")
        title, said = optional_text(row, "title"), optional_text(row, "selftext")
        body = text(column(row, "body"), "body")
        score = _score(row, self._spec)
        if not body:
            raise Dropped("empty answer", "body")
        if not title and not said:
            raise Dropped("empty prompt", "title and selftext")
        mark, post = self._post(id, subreddit, title, said, row)
        if mark != _digest(subreddit, title, said):
            raise Dropped("differs from an earlier row of its post", id)
        key = _digest(id, body)
        if key in self._seen:
            return REPEATED
        self._seen.add(key)
        self.scores.setdefault(subreddit, array("d")).append(score)
        if isinstance(post, str):
            return post
        reason = self._unwanted_comment(body)
        if reason is None:
            post.comments.append(Comment(place, score, body))
        return reason or PENDING

    def _post(self, id: str, subreddit: str, title: str, said: str, row: Row) -> tuple[bytes, Post | str]:
        """The mark of the post's texts, and the post, or the reason why it is dropped: its texts are not kept."""
        known = self._known.get(id)
        if known is None:
            group = str(row["group"]) if self._spec.id == POCKET else id
            post = self._unwanted_post(title, said) or Post(id, group, subreddit, title, said)
            known = self._known[id] = (_digest(subreddit, title, said), post)
        return known

    def _unwanted_post(self, title: str, said: str) -> str | None:
        if len(said) > self._spec.max_post_chars:
            return "post too long"
        unwanted = unwanted_post(title, said, self._kinds)
        return unwanted or ("post too short" if len(said) < self._spec.min_post_chars else None)

    def _unwanted_comment(self, body: str) -> str | None:
        if self._spec.rule == "gap" and len(body) > self._spec.max_comment_chars:
            return "comment too long"
        unwanted = unwanted_comment(body, self._kinds)
        return unwanted or ("comment too short" if len(body) < self._spec.min_comment_chars else None)


def _id(row: Row) -> str:
    value = column(row, "id")
    id = str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value, "id")
    if not id:
        raise Dropped("missing value", "id")
    return id


def _score(row: Row, spec: RedditSource) -> float:
    """A finite number; CSV gives numbers as text."""
    value = column(row, spec.score)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Dropped("wrong type", f"{spec.score}: {type(value).__name__} where a number belongs")
    score = _number(value)
    if not math.isfinite(score):
        raise Dropped("not a number", spec.score)
    if score < 0 and spec.rule == "gap":
        raise Dropped("negative score", f"{spec.score}: rule gap compares by ratio")
    return score


def _number(value: int | float | str) -> float:
    """The value as a float, and "not a number" where it is none."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _digest(*values: str) -> bytes:
    """Stands for texts that need not be kept."""
    return xxhash.xxh3_128_digest("\0".join(values).encode())
