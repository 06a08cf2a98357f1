"""What a source needs that makes its pairs with a model: it gets models as arguments, and never loads one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from equipoise.model.generate import Generator
from equipoise.model.reward import Reward
from equipoise.recipe import Policy
from equipoise.records import Pair


@dataclass(frozen=True)
class Workshop:
    """What the preparation of a stage lends to `finish` of a source.

    `wanted` is how many usable pairs the stages ask for; `usable` gives the reason why a pair could not be trained
    on (it has no room, it overlaps with the evaluation), or None. `generator` gives the model that answers: of a
    policy, or, for None, the model that the source's pairs are made for. `judge` gives the reward model. Both load at
    the first call. `progress` takes (what is being done, done, all).
    """

    wanted: int
    usable: Callable[[Pair], str | None]
    generator: Callable[[Policy | None], Generator]
    judge: Callable[[], Reward]
    progress: Callable[[str, int, int], None] = lambda label, done, total: None


@dataclass(frozen=True, slots=True)
class Finished:
    """The pairs that were made of drafts. Always: drafts = pairs + all that was dropped.

    `spread` is the standard deviation of rewards by which gaps were judged, where they were.
    """

    pairs: list[Pair]
    dropped: dict[str, int] = field(default_factory=dict)
    spread: float | None = None
