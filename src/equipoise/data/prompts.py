"""Prompts that training and evaluation write from the same columns: one place, so that they cannot differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.records import Message

REDDIT_INSTRUCTION = "Write a helpful reply to this post."
REDDIT_COLUMNS = ("subreddit", "title", "selftext")


def post_prompt(title: str, text: str) -> tuple[Message, ...]:
    """What is asked of somebody who replies to a post: its title and its text as one user turn."""
    return (Message("user", "\n\n".join(part for part in (title.strip(), text.strip()) if part)),)


def system_and_user(system: str, user: str) -> tuple[Message, ...]:
    """A system message (left out where it is blank) and one user turn."""
    turn = Message("user", user.strip())
    return (Message("system", system.strip()), turn) if system.strip() else (turn,)


def reddit_prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """Ask for a reply to the post of a row: subreddit, title, text and one line of instruction, one user turn.

    Reads the columns `REDDIT_COLUMNS` of winddude/reddit_finance_43_250k; what is blank is left out. Raises ValueError
    where title and text are both blank, or a column holds something else than text.
    """
    values = {name: row.get(name) for name in REDDIT_COLUMNS}
    wrong = [name for name, value in values.items() if value is not None and not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{wrong[0]} is not text")
    subreddit, title, text = ((values[name] or "").strip() for name in REDDIT_COLUMNS)
    if not title and not text:
        raise ValueError("no title and no text")
    named = [f"Subreddit: r/{subreddit.removeprefix('r/')}"] if subreddit else []
    titled = [f"Title: {title}"] if title else []
    head = "\n".join(named + titled)
    return (Message("user", "\n\n".join(part for part in (head, text, REDDIT_INSTRUCTION) if part)),)
