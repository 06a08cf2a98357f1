"""One way to clean a file of Reddit rows, in a process of its own: `python data_sides.py SIDE FOLDER SEED` prints JSON.

Timed is all from the path of a file to the result in memory; not imports. All sides read the same rows from FOLDER.

- `equipoise`: `pools.gather`: pairs with a real gap, cleaned, checked against the evaluation, put into the store.
- `store`: the same call once more, in another process: the pairs come from the store.
- `original`: the rule of the original program, without its fallback, in plain dictionaries: no cleaning.
- `datasets`: filters of Hugging Face datasets that drop the same unwanted texts, exact repetitions, and rows that share
  13 words with the evaluation. It leaves out: malformed rows (its file has none: one column of two types cannot be
  read), near duplicates, who is compared with whom (ranks, gaps, pairs, balance of lengths) and the reasons' counts.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reddit_rows import evaluated

ROWS, WELL_FORMED, CACHE = "rows.jsonl", "well_formed.jsonl", "cache"
KINDS = frozenset({"deleted", "bot", "edit_notice", "link_only"})
RUN = 13  # words
Measured = dict[str, Any]
Side = Callable[[], Measured]


def main() -> None:
    """Run one side and print what was measured."""
    name, folder, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    call = SIDES[name](folder, seed)
    before = _peak(resource.RUSAGE_SELF)
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    # Processes that this side started share some memory with it; counted in full, this is the most it can be.
    peak = _peak(resource.RUSAGE_SELF) + result.pop("processes", 0) * _peak(resource.RUSAGE_CHILDREN)
    print(json.dumps({"seconds": seconds, "peak_mb": peak, "above_start_mb": peak - before, **result}))


def _equipoise(folder: Path, seed: int) -> Side:
    from equipoise.data.prompts import reddit_prompt
    from equipoise.pools import Asked, gather
    from equipoise.progress import Silent
    from equipoise.recipe_sources import RedditSource
    from equipoise.records import Item
    from equipoise.store import Store

    class Said(Silent):
        def __init__(self) -> None:
            self.lines: list[str] = []

        def say(self, text: str) -> None:
            self.lines.append(text)

    spec = RedditSource(kind="reddit", id=str(folder / ROWS))

    items = [
        Item(
            id=post.id,
            task="reddit",
            prompt=reddit_prompt({"subreddit": post.subreddit, "title": post.title, "selftext": post.text}),
            group=post.id,
        )
        for post in evaluated(seed)
    ]

    def call() -> Measured:
        said = Said()
        pool = gather("reddit", spec, Asked.by({"reddit": items}), Store(folder / CACHE), said)
        found = {**pool.line.malformed, **pool.line.cleaned}
        return {"pairs": len(pool.pairs), "found": found, "kept": said.lines == ["source reddit: from the store"]}

    return call


def _original(folder: Path, seed: int) -> Side:
    def call() -> Measured:
        posts: dict[str, list[dict[str, Any]]] = {}
        with (folder / ROWS).open() as file:
            for line in file:
                row = json.loads(line)
                score = row["comment_normalized_score"]
                if isinstance(row["body"], str) and isinstance(row["selftext"], str) and isinstance(score, float):
                    posts.setdefault(row["id"], []).append(row)
        pairs = []
        for rows in posts.values():
            if not 120 <= len(rows[0]["selftext"]) <= 2000:
                continue
            rows = [row for row in rows if len(row["body"]) >= 40]
            rows.sort(key=lambda row: row["comment_normalized_score"], reverse=True)
            rejected = next((row for row in rows[1:] if _worse(rows[0], row)), None)
            if rejected:
                post = rows[0]
                prompt = f"Subreddit: r/{post['subreddit']}\nTitle: {post['title']}\n\n{post['selftext']}\n\nReply:"
                pairs.append({"prompt": prompt, "chosen": post["body"], "rejected": rejected["body"]})
        return {"pairs": len(pairs)}

    return call


def _worse(top: dict[str, Any], sibling: dict[str, Any]) -> bool:
    one, other = len(top["body"]), len(sibling["body"])
    gap = top["comment_normalized_score"] - sibling["comment_normalized_score"]
    return bool(gap >= 0.10 and abs(one - other) <= 0.6 * max(one, other))


def _datasets(folder: Path, seed: int) -> Side:
    import datasets

    from equipoise.data.sources.reddit_texts import unwanted_comment, unwanted_post

    datasets.disable_progress_bars()
    word = re.compile(r"\w+")
    known = {run for post in evaluated(seed) for run in _runs(word.findall(f"{post.title}\n{post.text}".lower()))}
    seen: set[tuple[str, str]] = set()
    processes = len(os.sched_getaffinity(0))

    def wanted(row: dict[str, Any]) -> bool:
        text, body = row["selftext"], row["body"]
        if not 120 <= len(text) <= 2000 or not 40 <= len(body) <= 4000:
            return False
        return unwanted_post(row["title"], text, KINDS) is None and unwanted_comment(body, KINDS) is None

    def first(row: dict[str, Any]) -> bool:
        key = (row["id"], row["body"])
        if key in seen:
            return False
        seen.add(key)
        return True

    def apart(row: dict[str, Any]) -> bool:
        texts = (f"{row['title']}\n{row['selftext']}", row["body"])
        return not any(run in known for text in texts for run in _runs(word.findall(text.lower())))

    def call() -> Measured:
        rows = datasets.load_dataset(
            "json", data_files=str(folder / WELL_FORMED), split="train", cache_dir=str(folder / "datasets")
        )
        rows = rows.filter(wanted, num_proc=processes).filter(first).filter(apart, num_proc=processes)
        return {"rows": len(rows), "processes": processes}

    return call


def _runs(words: list[str]) -> list[str]:
    return [" ".join(words[place : place + RUN]) for place in range(len(words) - RUN + 1)]


def _peak(whose: int) -> float:
    """MB of resident memory at most."""
    return resource.getrusage(whose).ru_maxrss / 1024


SIDES: dict[str, Callable[[Path, int], Side]] = {
    "equipoise": _equipoise,
    "store": _equipoise,
    "original": _original,
    "datasets": _datasets,
}

if __name__ == "__main__":
    main()
