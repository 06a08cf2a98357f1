"""Prompts that training and evaluation write from the same columns: one place, so that they cannot differ."""

from __future__ import annotations

from equipoise.records import Message


def post_prompt(title: str, text: str) -> tuple[Message, ...]:
    """What is asked of somebody who replies to a post: its title and its text as one user turn."""
    return (Message("user", "\n\n".join(part for part in (title.strip(), text.strip()) if part)),)


def system_and_user(system: str, user: str) -> tuple[Message, ...]:
    """A system message (left out where it is blank) and one user turn."""
    turn = Message("user", user.strip())
    return (Message("system", system.strip()), turn) if system.strip() else (turn,)
