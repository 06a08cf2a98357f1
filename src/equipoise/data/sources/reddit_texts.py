"""Texts of Reddit that nobody should learn to write: deleted ones, bots, bare edit notices, bare links. Pure.

Every rule looks for texts that are nothing else: a real comment with an "Edit:" at its end, a link as its source or a
word about bots stays.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from equipoise.recipe_sources import Unwanted

EDIT_CHARS = 300
"""A longer text that begins with "Edit:" says something."""
LINK_WORDS = 3
"""So many words beside its links leave a text a bare link: `Source: https://...`."""

_MARKUP = str.maketrans("", "", "^*_~`\\#>")
_DELETED = re.compile(
    r"\[\s*(?:deleted|removed)(?: by (?:the )?\w+)?\s*\]|(?:comment|post) (?:deleted|removed) by (?:the )?\w+\.?", re.I
)
_DELETED_CHARS = 60
# Every repetition is bounded, so that no text makes the search take the square of its length.
_BOT = re.compile(
    r"(?:^|[.!?:;|()\[\]\n]|\b(?:hi|hello|hey|boop)\b)\W{0,9}"
    r"(?:i am|i['’]?m|this is) (?:just |only )?an? (?:\w{1,20} )?bot\b"
    r"(?=\s{0,9}(?:$|[.!,;:|()\[\]\n]|and (?:this|i)\b|that\b|made\b|created\b|written\b|by\b))"
    r"|\bbeep\W{1,9}boop\b"
    r"|\bthis (?:action|comment|reply|post|message) was (?:performed|posted|made|written|generated) "
    r"(?:automatically|by a bot)\b"
    r"|\bcontact the moderators of this subreddit\b"
    r"|^\W{0,9}(?:remind ?me!|remind ?me \d)"
    r"|^\W{0,9}(?:good|bad) bot\W{0,9}$",
    re.I,
)
_SIGNS_OF_A_BOT = ("boop", "automatically", "moderators of this", "remindme", "remind me")
_NAMED = re.compile(r"bot\b")
_EDIT = re.compile(r"[\W_]*edit(?:ed)?(?: to add)?[\s_*]*#?\d*[\s_*]*[:;.,\-–—]", re.I)
_LINK = re.compile(r"!?\[[^\[\]\n]*\]\([^()\s]*\)|(?:https?://|www\.)\S+", re.I)
_WORD = re.compile(r"\w+")


def unwanted_comment(body: str, kinds: Collection[Unwanted]) -> str | None:
    """The reason why a comment is dropped, by the first of `kinds` that it is, or None."""
    if "deleted" in kinds and deleted(body):
        return "deleted comment"
    if "bot" in kinds and by_bot(body):
        return "comment of a bot"
    if "edit_notice" in kinds and edit_notice(body):
        return "bare edit notice"
    if "link_only" in kinds and link_only(body):
        return "comment that is only a link"
    return None


def unwanted_post(title: str, text: str, kinds: Collection[Unwanted]) -> str | None:
    """The reason why a post is dropped, by the first of `kinds` that it is, or None."""
    if "deleted" in kinds and (deleted(text) or deleted(title)):
        return "deleted post"
    if "link_only" in kinds and link_only(text):
        return "post that is only a link"
    return None


def deleted(value: str) -> bool:
    """Whether the text is what Reddit shows in place of a deleted one."""
    return len(value) <= _DELETED_CHARS and _DELETED.fullmatch(value.strip()) is not None


def by_bot(value: str) -> bool:
    """Whether a program says that it wrote the text, or the text speaks to a program (`RemindMe! 2 years`)."""
    lower = value.lower()
    # Far cheaper than the expression, and nearly every text ends here.
    suspect = ("bot" in lower and _NAMED.search(lower)) or any(sign in lower for sign in _SIGNS_OF_A_BOT)
    return bool(suspect) and _BOT.search(value.translate(_MARKUP)) is not None


def edit_notice(value: str) -> bool:
    """Whether each line of a short text says what was edited, and there is nothing else."""
    if len(value) > EDIT_CHARS or _EDIT.match(value) is None:
        return False
    return all(_EDIT.match(line) for line in value.splitlines() if line.strip())


def link_only(value: str) -> bool:
    """Whether a text has links, and hardly a word beside them; the words of `[words](address)` are the link's."""
    if "](" not in value and "://" not in value and "www." not in value.lower():
        return False
    rest, links = _LINK.subn(" ", value)
    return links > 0 and len(_WORD.findall(rest)) <= LINK_WORDS
