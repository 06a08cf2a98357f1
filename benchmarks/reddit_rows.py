"""Rows in the layout of winddude/reddit_finance_43_250k from a seed: `python reddit_rows.py ROWS FILE` writes some.

The texts are made-up words, as frequent as words are (Zipf), in lengths as on Reddit: about 2.5 KB a row, with a long
tail. Every fault is planted on purpose, where nothing else is wrong with the row or its post, and counted under the
reason that it should be found under. So what a reader of the file finds can be held against what is there.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SUBREDDITS = tuple(f"money{number}" for number in range(43))
POSTS = 500
"""Posts of a block; the rows of a block are shuffled, and what is repeated is repeated in the next block."""
EVALUATED = 100
"""Posts that the evaluation asks about, made of another seed; each is planted at most once in each way."""
VOCABULARY = 30_000
DRAWN = 200_000  # words at a time
LONGEST_POST, LONGEST_COMMENT = 7000, 1800  # words; Reddit allows 40,000 and 10,000 characters
SHARES = {
    "deleted post": 0.010,
    "post that is only a link": 0.010,
    "near duplicate of an earlier post": 0.012,
    "near duplicate of an earlier comment": 0.035,
    "deleted comment": 0.020,
    "comment of a bot": 0.020,
    "bare edit notice": 0.010,
    "comment that is only a link": 0.015,
    "group of the evaluation": 0.001,
    "prompt of the evaluation": 0.001,
    "13 words of the evaluation": 0.002,
    "plain": 0.100,
}
"""Of the posts: what is planted in them. Near duplicates are copied from `plain` ones; the rest is ordinary."""
REPEATED, MALFORMED = 0.03, 0.01
"""Of the rows."""
BOTS = (
    "\n\n*I am a bot, and this action was performed automatically. Please contact the moderators of this subreddit.*",
    "\n\n^(beep boop, I'm a bot that links to earlier threads)",
)
NOTICES = ("Edit: spelling of the second line, sorry about that", "**EDIT 2:** thank you all, I did not expect this")
LINKS = (
    "https://www.example.org/forms/{n}/instructions-for-filing",
    "[Source](https://example.com/a/very/long/path/{n})",
)
MALFORMED_COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("missing value", "body", None),
    ("missing value", "comment_normalized_score", None),
    ("wrong type", "selftext", {"text": "nested"}),
    ("wrong type", "title", 17),
    ("not a number", "comment_normalized_score", "high"),
    ("broken unicode", "body", "This was cut in the middle of a letter \ufffd and then stored, so it cannot be read."),
)
Row = dict[str, Any]
Labelled = tuple[str, Row]
"""A row and what is wrong with it; "" where nothing is."""


@dataclass(frozen=True)
class Evaluated:
    """A post that is evaluated: what training must not touch."""

    id: str
    subreddit: str
    title: str
    text: str


def rows(count: int, seed: int = 0) -> Iterator[Labelled]:
    """Exactly `count` rows, block by block; the memory that this takes does not grow."""
    maker = _Maker(seed)
    repeated: list[Labelled] = []
    left = count
    while left >= 5 * POSTS:  # more than any block has
        block, repeated = maker.block(repeated)
        left -= len(block)
        yield from block
    for number in range(left):
        yield "", maker.ordinary(1, f"last{number}")[0]


def evaluated(seed: int = 0) -> list[Evaluated]:
    """The evaluated posts: about 120 words each."""
    texts = _Texts(seed + 1)
    return [
        Evaluated(f"evaluated{number}", SUBREDDITS[number % len(SUBREDDITS)], texts.words(8), texts.words(120))
        for number in range(EVALUATED)
    ]


def write(path: Path, count: int, seed: int = 0, well_formed: Path | None = None) -> dict[str, int]:
    """Write JSON lines; returns how often each fault was planted.

    `well_formed` gets the same rows without malformed ones, for readers that need one type in a column.
    """
    planted: Counter[str] = Counter()
    malformed = {reason for reason, _, _ in MALFORMED_COLUMNS}
    with path.open("w") as file, (well_formed or Path("/dev/null")).open("w") as other:
        for label, row in rows(count, seed):
            line = json.dumps(row, ensure_ascii=False) + "\n"
            file.write(line)
            if label not in malformed:
                other.write(line)
            planted[label] += 1
    del planted[""]
    return dict(sorted(planted.items()))


class _Texts:
    """Texts of made-up words; word number k is used as often as 1/k."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 17])
        self._tokens = _tokens()
        self._drawn: list[int] = []

    def numbers(self, count: int) -> list[int]:
        if len(self._drawn) < count:
            drawn = self.rng.random((2, DRAWN))
            ranks = (VOCABULARY ** drawn[0]).astype(np.int32) - 1
            ends = np.searchsorted([0.87, 0.92, 0.99], drawn[1]).astype(np.int32)
            self._drawn = (4 * ranks + ends).tolist()
        taken = self._drawn[-count:]
        del self._drawn[-count:]
        return taken

    def spell(self, numbers: list[int]) -> str:
        return " ".join(map(self._tokens.__getitem__, numbers)).strip()

    def words(self, count: int) -> str:
        return self.spell(self.numbers(count))

    def edited(self, numbers: list[int]) -> list[int]:
        """A near duplicate: another word in the middle, of those that are no one else's."""
        return [
            *numbers[: len(numbers) // 2],
            4 * int(self.rng.integers(1000, VOCABULARY)),
            *numbers[len(numbers) // 2 + 1 :],
        ]


def _tokens() -> list[str]:
    """Each word plain, with a comma, with a full stop, and at the end of a paragraph; rare ones are longer."""
    rng = np.random.default_rng(3)
    syllables = [a + b for a in "bdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "en")]
    found: dict[str, None] = {}
    while len(found) < VOCABULARY:
        length = 1 + int(math.log(len(found) + 3, 20)) + int(rng.random() < 0.2)
        word = "".join(syllables[k] for k in rng.integers(0, len(syllables), length))
        found[word + "’s" if len(found) % 400 == 399 else word] = None
    return [word + end for word in found for end in ("", ",", ".", ".\n\n")]


class _Maker:
    """Makes blocks of posts with their comments."""

    def __init__(self, seed: int) -> None:
        self.texts = _Texts(seed)
        self.rng = self.texts.rng
        self.evaluated = evaluated(seed)
        self._unused = {kind: list(self.evaluated) for kind in SHARES if kind.startswith(("group", "prompt"))}
        self._plain: list[tuple[list[int], list[int]]] = []
        """Words of the text and of the middle comment of plain posts, each to be copied once."""
        self._posts = 0

    def block(self, repeated: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
        """The rows of some posts with what the last block left to repeat, shuffled; and what is to be repeated."""
        kinds = self.rng.choice([*SHARES, ""], size=POSTS, p=[*SHARES.values(), 1 - sum(SHARES.values())])
        made: list[Labelled] = []
        for kind in kinds.tolist():
            made += self._post(kind)
        sound = [row for label, row in made if not label]
        again = [sound[k] for k in self.rng.choice(len(sound), size=round(REPEATED * len(made)), replace=False)]
        block = made + repeated
        order = self.rng.permutation(len(block)).tolist()
        return [block[place] for place in order], [("repeated comment", row) for row in again]

    def ordinary(self, comments: int, id: str) -> list[Row]:
        """A post as they come, good or not, with its comments, the best one first."""
        lengths = np.exp(self.rng.normal([math.log(190)] + [math.log(45)] * comments, [1.0] + [0.9] * comments))
        text = self.texts.words(min(5 + int(lengths[0]), LONGEST_POST))
        scores = np.sort(np.minimum(0.008 + 0.004 * np.exp(1.7 * self.rng.normal(size=comments)), 1.0))[::-1]
        bodies = [self.texts.words(min(3 + int(length), LONGEST_COMMENT)) for length in lengths[1:]]
        return self._rows(id, text, bodies, scores.tolist())

    def _post(self, kind: str) -> list[Labelled]:
        self._posts += 1
        id = f"t3_{self._posts:07d}"
        if kind:
            return self._planted(kind, id)
        made = self.ordinary(int(self.rng.choice([1, 2, 3], p=[0.35, 0.25, 0.40])), id)
        labelled = [("", row) for row in made]
        if self.rng.random() < MALFORMED * 2.1:  # a post has so many rows
            reason, column, value = MALFORMED_COLUMNS[int(self.rng.integers(len(MALFORMED_COLUMNS)))]
            labelled.append((reason, {**made[-1], "body": self.texts.words(40), column: value}))
        return labelled

    def _planted(self, kind: str, id: str) -> list[Labelled]:
        """A post of good length with three comments whose gaps are real, and one fault."""
        text = self.texts.numbers(int(self.rng.integers(70, 240)))
        comments = [self.texts.numbers(int(self.rng.integers(60, 90))) for _ in range(3)]
        if kind == "plain":
            self._plain.append((text, comments[1]))
        copied = self._plain.pop(0) if kind.startswith("near") and self._plain else None
        if kind.endswith("post") and copied:
            text = self.texts.edited(copied[0])
        if kind.endswith("earlier comment") and copied:
            comments[1] = self.texts.edited(copied[1])
        scores = [0.5 + 0.5 * self.rng.random(), 0.009, 0.0085]
        made = self._rows(id, self.texts.spell(text), [self.texts.spell(comment) for comment in comments], scores)
        if kind == "plain" or (kind.startswith("near") and not copied):
            return [("", row) for row in made]
        return self._with_fault(kind, made)

    def _with_fault(self, kind: str, made: list[Row]) -> list[Labelled]:
        """Labels for the rows of a post after one fault was put into it; a fault of the pair is counted once."""
        number = self._posts
        whole_post = {"deleted post": "[removed]", "post that is only a link": LINKS[number % 2].format(n=number)}
        comment = {
            "deleted comment": ("[deleted]", "[removed]")[number % 2],
            "comment of a bot": made[1]["body"] + BOTS[number % 2],
            "bare edit notice": NOTICES[number % 2],
            "comment that is only a link": LINKS[number % 2].format(n=number),
            "near duplicate of an earlier comment": made[1]["body"],
        }
        if kind in comment:
            made[1]["body"] = comment[kind]
            return [("", made[0]), (kind, made[1]), ("", made[2])]
        if kind.endswith("of the evaluation"):
            change = self._evaluated(kind, made[0])
            return [(kind if change and place == 0 else "", {**row, **change}) for place, row in enumerate(made)]
        if kind in whole_post:
            made = [{**row, "selftext": whole_post[kind]} for row in made]
        return [(kind, row) for row in made]

    def _evaluated(self, kind: str, row: Row) -> Row:
        """Columns of a post that touches the evaluation; none where every evaluated post was planted that way."""
        unused = self._unused.get(kind)
        if unused is None:
            run = " ".join(self.evaluated[self._posts % EVALUATED].text.split()[20:36])
            return {"selftext": f"{row['selftext']} {run} {self.texts.words(5)}"}
        if not unused:
            return {}
        post = unused.pop()
        if kind.startswith("group"):
            return {"id": post.id}
        return {"subreddit": post.subreddit, "title": post.title, "selftext": post.text}

    def _rows(self, id: str, text: str, bodies: list[str], scores: list[float]) -> list[Row]:
        subreddit = SUBREDDITS[int(len(SUBREDDITS) ** self.rng.random()) - 1]
        liked = float(min(0.02 * math.exp(1.5 * self.rng.normal()), 1.0))
        post = {
            "id": id,
            "title": self.texts.words(int(self.rng.integers(5, 16))),
            "selftext": text,
            "z_score": math.log(liked / 0.02),
            "normalized_score": liked,
            "subreddit": subreddit,
        }
        return [
            {**post, "body": body, "comment_normalized_score": score, "combined_score": liked + score}
            for body, score in zip(bodies, scores, strict=True)
        ]


if __name__ == "__main__":
    print(json.dumps(write(Path(sys.argv[2]), int(sys.argv[1])), indent=1))
