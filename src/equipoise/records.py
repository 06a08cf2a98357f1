"""The nouns that cross borders between the parts of equipoise.

Every record is frozen and made of plain JSON values, so that it can be hashed, written to a file and
read back without loss. Content ids are sha256 over canonical JSON: the same content has the same id in
every process, on every machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
Split = Literal["dev", "test"]


class InputError(ValueError):
    """The user's input is wrong: the command prints the message alone and exits with code 2.

    The message says what is wrong, where (file, line, field) and what to do.
    """


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`; raises TypeError for what has no stable JSON form."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def content_id(value: Any) -> str:
    """Return 32 hexadecimal digits that identify the JSON content of `value`."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


def chat(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    """Return messages in the form that chat templates take."""
    return [{"role": message.role, "content": message.content} for message in messages]


def user_turns(messages: Iterable[Message]) -> list[str]:
    """Return what the user says, turn by turn."""
    return [message.content for message in messages if message.role == "user"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: to `prompt`, `chosen` is a better answer than `rejected`.

    `group` names what the pair was made from (a post, a document): splits never divide a group. The gaps say how
    far apart the answers are, by the source's own scores and by a reward model, where there are such.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    domain: str
    source: str
    group: str
    score_gap: float | None = None
    reward_gap: float | None = None

    @property
    def id(self) -> str:
        """Content id: the same prompt and answers have the same id whatever source they came from."""
        return content_id([chat(self.prompt), self.chosen, self.rejected])


@dataclass(frozen=True, slots=True)
class Item:
    """One question of an evaluation.

    `prompt` is the first prompt; each of `follow_ups` is a later user turn, asked after the model's own
    answers. `gold` is whatever the task needs for scoring (JSON). `group` is what items share when they
    are not independent (a document, a conversation): standard errors are clustered by it.
    """

    id: str
    task: str
    prompt: tuple[Message, ...]
    group: str
    category: str = ""
    follow_ups: tuple[str, ...] = ()
    gold: Mapping[str, Any] = field(default_factory=dict)

    @property
    def question(self) -> str:
        """What the user says in the first prompt."""
        return " ".join(user_turns(self.prompt))

    @property
    def content(self) -> str:
        """Content id of all that decides the score; two runs are comparable only where it agrees."""
        return content_id([self.task, chat(self.prompt), list(self.follow_ups), dict(self.gold)])

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Item:
        """Read an item back from its JSON object; raises KeyError or TypeError on a foreign object."""
        prompt = tuple(Message(**message) for message in record["prompt"])
        return cls(**{**record, "prompt": prompt, "follow_ups": tuple(record["follow_ups"])})


@dataclass(frozen=True, slots=True)
class Health:
    """What can be said about an answer whatever its score is."""

    empty: bool
    cut_off: bool
    repeated: bool
    words: int
    switched: bool = False
    """Whether an answer is in another language than its question."""


@dataclass(frozen=True, slots=True)
class Score:
    """The result of one item: a value, or *unscored* with a reason. Unscored is never zero.

    `metrics` holds further figures of the item (F1, the 0-10 reward, an independent `correct`).
    """

    id: str
    task: str
    content: str
    group: str
    category: str
    split: Split
    answers: tuple[str, ...]
    health: Health
    value: float | None
    unscored: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.value is None) == (self.unscored is None):
            raise ValueError(f"score of {self.task}/{self.id}: give either a value or the reason why it is unscored")

    def record(self) -> dict[str, Any]:
        """Return the JSON object that stands in `scores/<point>/<task>.jsonl`."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Score:
        """Read a score back from its JSON object; raises KeyError or TypeError on a foreign object."""
        fields = dict(record)
        fields["answers"] = tuple(fields["answers"])
        fields["health"] = Health(**fields["health"])
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Before against after in one domain, on the same items.

    `difference` is after minus before, with its confidence interval `ci`; `p_holm` is corrected for the
    number of domains; `detectable` is the smallest effect seen with 80 % power at this n and spread.
    `health` maps a figure (empty, cut_off, repeated, switched, length) to its values before and after;
    `metrics` does the same for the further figures of the task (F1, correct, ...). `noise` is the difference that
    measuring an unchanged model again can make, where that was tried; `lost` counts items with a score before alone.
    """

    domain: str
    before: float
    after: float
    difference: float
    ci: tuple[float, float]
    p_value: float
    p_holm: float
    n: int
    unscored: int
    detectable: float
    margin: float | None
    verdict: Literal["improved", "held", "worse", "undecided"]
    health: Mapping[str, tuple[float, float]]
    metrics: Mapping[str, tuple[float, float]]
    noise: float | None = None
    lost: int = 0
    bootstrap: tuple[float, float] | None = None
    """Second opinion where it was asked for: the BCa bootstrap's interval."""
    permutation_p: float | None = None
    """Second opinion where it was asked for: p of the sign-flip permutation test."""
