"""Tables of studies for pages of the documentation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SUFFIX = "-as-designed-pocket"
"""What the names of all twins end with; controls stand behind it."""


def long(name: str) -> str:
    """A recipe's name from its short one: controls stand behind the twin's name."""
    found = re.fullmatch(r"(.+?)(-ungated|-one-mixture|-reversed|-flipped)?", name)
    assert found
    return f"{found[1]}{SUFFIX}{found[2] or ''}"


def rounded(value: Any) -> Any:
    """The same with five decimals: what is committed does not hold more than it means."""
    if isinstance(value, Mapping):
        return {key: rounded(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(child) for child in value]
    return round(value, 5) if isinstance(value, float) else value


def cell(effect: Mapping[str, Any]) -> str:
    """A difference with its interval; bold where it is shown at 5%, corrected where there are several domains."""
    low, high = effect["ci"]
    text = f"{effect['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
    return f"**{text}**" if effect.get("p_holm", effect["p_value"]) < 0.05 else text


def table(heads: list[str], rows: list[list[Any]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(value) for value in line) + " |" for line in lines)


def filled(place: Path, found: Mapping[str, str]) -> str:
    """The page at `place` with its tables: each stands between `<!-- NAME -->` and `<!-- end -->`."""
    page = place.read_text()
    for name, text in found.items():
        page, places = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda mark, text=text: f"{mark[1]}\n{text}\n\n{mark[2]}",
            page,
            flags=re.S,
        )
        assert places == 1, f"{place}: no place for the table {name}"
    return page
