"""What a source gives, and the one place where its rows are tried, counted and dropped."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from equipoise.data.read import SourceRows
from equipoise.data.seeds import generator
from equipoise.recipe import SourceBase
from equipoise.records import InputError, Message, Pair, Role, content_id

Unit = TypeVar("Unit")
EXAMPLES = 3
OVER_LIMIT = "over the limit"
TOO_LONG = "too long"
_CONTROLS = bytes({*range(32), 127} - {*b"\t\n\v\f\r"})
_BROKEN = re.compile("[\x80-\x9f\ufffd]")  # bytes of another encoding that were taken for letters


class Dropped(Exception):
    """This row makes no pair: a reason to count, and a detail that helps to find the fault.

    `malformed` reasons speak against the file; the others (a tie) are the data's good right. `place` is where the row
    stands, where that is known only to who read it.
    """

    place: str | None = None

    def __init__(self, reason: str, detail: str = "", *, malformed: bool = True) -> None:
        super().__init__(f"{reason} ({detail})" if detail else reason)
        self.reason = reason
        self.malformed = malformed


@dataclass(frozen=True, slots=True)
class Built:
    """The pairs of a source. Always: rows = pairs + all that was dropped."""

    pairs: list[Pair]
    rows: int
    dropped: dict[str, int]


def collect(name: str, spec: SourceBase, units: Iterable[Unit], convert: Callable[[Unit], Pair]) -> Built:
    """Make a pair of every unit (a row) that has one, count why the others have none, apply the limit.

    Raises InputError above `spec.max_malformed`, and where no pair is left.
    """
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    examples: list[str] = []
    rows = malformed = 0
    for rows, unit in enumerate(units, 1):
        try:
            pairs.append(convert(unit))
        except Dropped as drop:
            dropped[drop.reason] += 1
            malformed += drop.malformed
            if drop.malformed and len(examples) < EXAMPLES:
                place = units.place if isinstance(units, SourceRows) else f"row {rows}"
                examples.append(f"{drop.place or place}: {drop}")
    if malformed > spec.max_malformed * rows:
        raise InputError(
            f"source {name}: {malformed} of {rows} rows are malformed, more than max_malformed "
            f"({spec.max_malformed:g}): {'; '.join(examples)}; correct the file or the columns of the recipe"
        )
    if not pairs:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise InputError(
            f"source {name}: none of {rows} rows makes a pair ({reasons}); "
            "look at the file and at the columns that the recipe names"
        )
    kept = limited(pairs, spec.limit, name)
    if len(kept) < len(pairs):
        dropped[OVER_LIMIT] = len(pairs) - len(kept)
    return Built(kept, rows, dict(sorted(dropped.items())))


def limited(pairs: Sequence[Pair], limit: int | None, name: str) -> list[Pair]:
    """At most `limit` pairs in their order, drawn with the source's own seed: its name."""
    if limit is None or len(pairs) <= limit:
        return list(pairs)
    places = generator("limit", name).choice(len(pairs), size=limit, replace=False, shuffle=False)
    return [pairs[place] for place in sorted(places.tolist())]


def column(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column; raises Dropped where there is none (absent, null, not a number)."""
    value = row.get(name)
    if _missing(value):
        raise Dropped("missing value", name if name in row else f"no column {name!r}")
    return value


def text(value: Any, name: str) -> str:
    """The value as text without surrounding white space; raises Dropped where it is no sound text.

    White space goes on both sides of a pair: a space that only one side begins with teaches the space.
    """
    if not isinstance(value, str):
        raise Dropped("wrong type", f"{name}: {type(value).__name__} where text belongs")
    if not _sound(value):
        raise Dropped("broken unicode", name)
    return value.strip()


def optional_text(row: Mapping[str, Any], name: str) -> str:
    """As `text`, and empty where the column has no value."""
    return "" if _missing(row.get(name)) else text(row[name], name)


def pair(
    prompt: tuple[Message, ...], chosen: str, rejected: str, *, spec: SourceBase, name: str, group: str | None = None
) -> Pair:
    """A checked pair; raises Dropped where it is too long, a side is empty, both are the same, or nothing is asked.

    `group` defaults to a hash of the prompt without its system message.
    """
    made = _asked(prompt, chosen, rejected, spec, name, group)
    if not chosen or not rejected:
        raise Dropped("empty answer", "rejected" if chosen else "chosen")
    if chosen == rejected:
        raise Dropped("identical sides")
    return made


def draft(
    prompt: tuple[Message, ...], reference: str, *, spec: SourceBase, name: str, group: str | None = None
) -> Pair:
    """A pair whose answers are still to be written: `rejected` is empty, `chosen` is the reference answer or empty.

    Raises Dropped where it is too long or nothing is asked.
    """
    return _asked(prompt, reference, "", spec, name, group)


def _asked(
    prompt: tuple[Message, ...], chosen: str, rejected: str, spec: SourceBase, name: str, group: str | None
) -> Pair:
    length = sum(len(message.content) for message in prompt) + len(chosen) + len(rejected)
    if length > spec.max_chars:
        raise Dropped(TOO_LONG, f"{length} characters", malformed=False)
    if not prompt or prompt[-1].role != "user":
        raise Dropped("prompt does not end with a user turn")
    if any(not message.content for message in prompt):
        raise Dropped("empty prompt", "a turn without text")
    if group and not _sound(group):
        raise Dropped("broken unicode", "group")
    group = group or content_id([[m.role, m.content] for m in prompt if m.role != "system"])
    return Pair(prompt, chosen, rejected, domain=spec.domain, source=name, group=group)


def turns(messages: Iterable[tuple[Role, str]]) -> tuple[Message, ...]:
    """Messages that alternate, as chat templates want them: neighbours of one role become one turn.

    Raises Dropped where a system message is not the first.
    """
    result: list[Message] = []
    for role, content in messages:
        if result and role == result[-1].role:
            joined = "\n\n".join(part for part in (result[-1].content, content) if part)
            result[-1] = Message(role, joined)
        elif role == "system" and result:
            raise Dropped("turns out of order", "a system message after the first turn")
        elif role != "system" or content:
            result.append(Message(role, content))
    if next((message.role for message in result if message.role != "system"), "user") != "user":
        raise Dropped("turns out of order", "the assistant speaks first")
    return tuple(result)


def _missing(value: Any) -> bool:
    """Parquet files that pandas wrote have "not a number" where a text is missing."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _sound(value: str) -> bool:
    """Whether all of it can be encoded and none of it is a control character that no text has, such as NUL."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        return False
    # Several times as fast as a search for the same characters, and every text passes here.
    if len(data.translate(None, _CONTROLS)) < len(data):
        return False
    return value.isascii() or not _BROKEN.search(value)
