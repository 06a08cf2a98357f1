"""Text and numbers for a page. Whatever a model or a file says is shown as text, and shown safely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from equipoise.evaluation.stats_words import decimals

LONGEST = 1500
"""So many characters of an answer are shown; how many are left out is said."""

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys([*range(128, 160), *range(55296, 57344), 65534, 65535], 65533)
_NEWLINES = {0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
# These reorder or hide the text around them, so a reader sees their names instead.
_BIDI = {code: f"⟨U+{code:04X}⟩" for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}
_VISIBLE: dict[int, int | str] = {**_PICTURES, **_NEWLINES, **_BIDI}
_HOMES = re.compile(r"(?:/home|/Users)/[^/\s\"']+")
_TOKENS = re.compile(r"\b(?:hf_|sk-|ghp_)[A-Za-z0-9_-]{16,}")


def visible(text: str) -> str:
    """Return `text` with control and reordering characters made visible; line breaks and tabs stay."""
    return text.replace("\r\n", "\n").translate(_VISIBLE)


def shorten(text: str, longest: int = LONGEST) -> tuple[str, int]:
    """Return the beginning of `text`, and how many characters are left out."""
    return text[:longest], max(0, len(text) - longest)


def private(text: str) -> str:
    """Return `text` without home folders, user names in paths, and access tokens."""
    home = str(Path.home())
    text = text.replace(home, "~") if len(home) > 1 else text
    return _TOKENS.sub("(token hidden)", _HOMES.sub("~", text))


def short(value: float) -> str:
    """Return a number with four significant digits."""
    return f"{value:.4g}"


def signed(value: float, places: int) -> str:
    """Return a number with its sign; what rounds to zero has none."""
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text


def places_for(ci: tuple[float, float]) -> int:
    """Return how many decimals the figures of an interval get: as many as it can bear, at most 4."""
    return min(4, decimals(ci))


def p_value(value: float) -> str:
    """Return a p-value with four decimals; what would be zero with them is never said to be zero."""
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def percent(value: float) -> str:
    """Return a share in percent with one decimal."""
    return f"{value * 100:.1f}%"


def count(value: float) -> str:
    """Return a whole number with thousands separated; other numbers in short."""
    return f"{value:,.0f}" if float(value).is_integer() else short(value)


def listed(names: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def duration(seconds: float) -> str:
    """Return a time span as a person says it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
