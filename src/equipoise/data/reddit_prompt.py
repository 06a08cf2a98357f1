"""The prompt of a Reddit post: written here once, so that training and evaluation cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.records import Message

INSTRUCTION = "Write a helpful reply to this post."
COLUMNS = ("subreddit", "title", "selftext")


def reddit_prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Ask for a reply to the post of a row: subreddit, title, text and one line of instruction, one user turn.

    Reads the columns `COLUMNS` of winddude/reddit_finance_43_250k; what is blank is left out. Raises ValueError
    where title and text are both blank, or a column holds something else than text.
    """
    values = {name: row.get(name) for name in COLUMNS}
    wrong = [name for name, value in values.items() if value is not None and not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is not text")
    subreddit, title, text = ((values[name] or "").strip() for name in COLUMNS)
    if not title and not text:
        raise ValueError("no title and no text")
    named = [f"Subreddit: r/{subreddit.removeprefix('r/')}"] if subreddit else []
    titled = [f"Title: {title}"] if title else []
    head = "\n".join(named + titled)
    return (Message("user", "\n\n".join(part for part in (head, text, INSTRUCTION) if part)),)
