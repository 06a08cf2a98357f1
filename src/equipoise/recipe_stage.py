"""The parts of a recipe that make a stage: the loss, the optimiser, the adapter, the gate and its remedies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from equipoise.recipe_data import Curriculum, Mix, Replay
from equipoise.recipe_lora import Adapters, Lora
from equipoise.recipe_parts import Name, Part, Share

HEALTH_FIGURES = ("empty", "cut_off", "repeated", "switched", "length")
SCALES = (0.75, 0.5, 0.25, 0.1)
"""What `shrink: true` tries after the whole adapter."""

# Messages about a recipe leave out the parts of a location that begin with "constrained-": they are no keys of the
# file (see `recipe_file`).
_NUMBER = Tag("constrained-number")


def _threshold_form(value: Any) -> str:
    return "constrained-percent" if isinstance(value, str) and value.endswith("%") else "constrained-number"


_PERCENT = Tag("constrained-percent")
Gain = Annotated[
    Annotated[float, _NUMBER] | Annotated[str, Field(pattern=r"^[+-]?\d+(\.\d+)?%$"), _PERCENT],
    Discriminator(_threshold_form),
]
"""Points, or a percentage of the base model's mean as `2%`."""
Margin = Annotated[
    Annotated[NonNegativeFloat, _NUMBER] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$"), _PERCENT],
    Discriminator(_threshold_form),
]
"""The same, never negative."""


class BetaSchedule(Part):
    """A beta that goes from one value to another over the steps of a stage."""

    kind: Literal["constant", "linear", "cosine"]
    """How: not at all, along a line, or along half a cosine."""
    start: PositiveFloat
    """Beta of the first step."""
    end: PositiveFloat | None = None
    """Beta of the last step."""

    @model_validator(mode="after")
    def _has_an_end(self) -> BetaSchedule:
        if (self.kind == "constant") != (self.end is None):
            raise ValueError("`linear` and `cosine` go from `start` to `end`; `constant` has a `start` alone")
        return self


class AdaptiveBeta(Part):
    """A beta for each batch, by how far its margins are from what they were (beta-DPO, Wu et al. 2024)."""

    kind: Literal["adaptive"]
    """Marks this form."""
    beta: PositiveFloat
    """Beta of a batch whose mean margin is the running mean."""
    strength: NonNegativeFloat = 0.6
    """By how much beta grows for each unit of reward above the running mean: the paper's alpha."""
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    """Share of the running mean that stays when a batch is added to it."""


def _beta_form(value: Any) -> str:
    if isinstance(value, dict | Part):
        kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
        return "constrained-adaptive" if kind == "adaptive" else "constrained-schedule"
    return "constrained-number"


Beta = Annotated[
    Annotated[PositiveFloat, _NUMBER]
    | Annotated[BetaSchedule, Tag("constrained-schedule")]
    | Annotated[AdaptiveBeta, Tag("constrained-adaptive")],
    Discriminator(_beta_form),
]


class Dpo(Part):
    """The preference loss."""

    loss: Literal[
        "sigmoid", "ipo", "hinge", "robust", "sigmoid_norm", "simpo", "orpo", "apo_zero", "apo_down", "dpop"
    ] = "sigmoid"
    """Which loss; see docs/losses.md."""
    beta: Beta = 0.1
    """Strength of the pull towards the reference: a number, or a schedule with `kind` (see docs/stages.md)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.0
    """`robust`: share of pairs believed to be labelled the wrong way round."""
    margin: NonNegativeFloat = 0.5
    """`simpo`: target margin gamma."""
    penalty: NonNegativeFloat = 5.0
    """`dpop`: weight of the penalty for a falling chosen log-probability."""
    sft_weight: NonNegativeFloat = 0.0
    """Adds this times the mean negative log-likelihood of the chosen answer."""
    max_length: PositiveInt = 1024
    """Longest prompt plus answer in tokens; a pair whose answer does not fit is dropped and counted."""
    max_prompt_length: PositiveInt = 512
    """Longest prompt in tokens; longer ones lose their beginning, and are counted."""

    @model_validator(mode="after")
    def _adapts_to_a_reference(self) -> Dpo:
        if isinstance(self.beta, AdaptiveBeta) and self.loss in ("simpo", "orpo"):
            raise ValueError(f"beta: adaptive looks at margins against the reference, and {self.loss} has none")
        return self


class Stop(Part):
    """When a stage ends by itself: held-out pairs of its own sources get no better."""

    metric: Literal["dev_loss", "dev_accuracy"] = "dev_loss"
    """What is to get better: the mean loss falls, or the share of pairs with a margin above 0 rises."""
    every: PositiveInt = 10
    """Optimiser steps between two looks."""
    patience: PositiveInt = 3
    """The stage ends after so many looks in a row that were no better than the best before them."""
    share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the groups of drawn pairs that are set apart for this and never trained on."""


class Optim(Part):
    """The optimiser and its schedule."""

    learning_rate: PositiveFloat = 5e-6
    """Highest learning rate."""
    epochs: PositiveFloat = 1.0
    """Passes over the mix; fractions are allowed."""
    batch_size: PositiveInt = 64
    """Pairs per optimiser step, whatever the packing."""
    micro_batch_tokens: PositiveInt | None = None
    """Tokens per forward pass (default: 1024 on a CPU, 4096 on a GPU); the result depends on it by rounding only."""
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's weight decay."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """The others are of bitsandbytes (the `[quant]` extra): moments in 8 bits, `paged` may move to host memory."""
    checkpoint_every: PositiveInt = 50
    """Optimiser steps between checkpoints from which a killed run resumes."""
    stop: Stop | None = None
    """End the stage when pairs that it does not train on get no better."""

    @model_validator(mode="after")
    def _reaches_its_peak(self) -> Optim:
        if self.warmup == 1.0:
            raise ValueError("warmup: 1 would be warm-up from the first step to the last; give a share below 1")
        return self


class Scale(Part):
    """By what each further attempt multiplies the values of the one before."""

    learning_rate: PositiveFloat = 1.0
    """Factor of `optim.learning_rate`, and of the rates that domains have of their own."""
    beta: PositiveFloat = 1.0
    """Factor of `dpo.beta`; both ends of a schedule."""
    epochs: PositiveFloat = 1.0
    """Factor of `optim.epochs`."""
    replay: PositiveFloat = 1.0
    """Factor of `replay.share`."""


class Retry(Part):
    """How a stage is trained again when its gate fails."""

    max: Annotated[int, Field(ge=1, le=9)] = 2
    """Attempts after the first; when the last one fails as well, the stage is rolled back."""
    scale: Scale
    """What changes from one attempt to the next."""

    @model_validator(mode="after")
    def _changes_something(self) -> Retry:
        if all(factor == 1.0 for factor in self.scale.model_dump().values()):
            raise ValueError("scale: nothing changes, so every attempt would be the first one again; name a factor")
        return self


class Shrink(Part):
    """Which smaller adapters are tried."""

    steps: Annotated[int, Field(ge=1, le=20)]
    """So many scales between 1 and 0, evenly spaced: 3 tries 0.75, 0.5 and 0.25."""


def _shrink_form(value: Any) -> str:
    return "constrained-steps" if isinstance(value, dict | Part) else "constrained-number"


class Gate(Part):
    """The rule that decides whether a stage is kept.

    Keys are domains, or `domain.metric` for a further figure of a task (`mt_bench.correct`).
    """

    improve: dict[str, Gain] = {}
    """The gain must be above this: the interval lies above = pass, below = fail, else undecided. Points, or `2%` of
    the base model's mean."""
    hold: dict[str, Margin] = {}
    """The loss must stay within this: the interval lies above -margin = pass, below = fail. Points, or `2%` of the
    base model's mean."""
    health: dict[str, NonNegativeFloat] = {}
    """Upper limits of `domain.figure`: empty, cut_off, repeated, switched (shares), length (ratio to the base)."""
    against: Literal["base", "previous"] = "base"
    """What the stage is compared with: the base model, or the last kept stage."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of the intervals."""
    on_fail: Literal["stop", "rollback", "continue", "retry"] = "rollback"
    """A rule failed: end the run, go on from the last kept stage, keep the stage all the same, or train it again."""
    on_undecided: Literal["continue", "stop", "rollback"] = "continue"
    """No rule failed, and at least one is undecided: keep (flagged everywhere), end, or go back."""
    retry: Retry | None = None
    """`on_fail: retry`: how often, and with which other values."""
    shrink: Annotated[
        Annotated[bool, _NUMBER] | Annotated[Shrink, Tag("constrained-steps")], Discriminator(_shrink_form)
    ] = False
    """Before anything else is done about a stage that would not be kept: the largest scale of its adapter, from 1 to
    0, that passes on dev items."""

    @model_validator(mode="after")
    def _known_figures(self) -> Gate:
        for key in self.health:
            if key.partition(".")[2] not in HEALTH_FIGURES:
                raise ValueError(
                    f"health: {key!r} is not `domain.figure` with figure one of {', '.join(HEALTH_FIGURES)}"
                )
        return self

    @model_validator(mode="after")
    def _remedies(self) -> Gate:
        if self.on_fail == "retry" and self.retry is None:
            raise ValueError("on_fail: retry needs `retry`, such as {max: 2, scale: {learning_rate: 0.5}}")
        if self.on_fail != "retry" and self.retry is not None:
            raise ValueError(f"retry is given, and on_fail is {self.on_fail}; say on_fail: retry")
        if self.scales and not self.domains:
            raise ValueError("shrink: the gate has no rule that an adapter could fail; add improve, hold or health")
        return self

    @property
    def domains(self) -> dict[str, str]:
        """Maps each key of the gate to the domain that it looks at."""
        return {key: key.partition(".")[0] for key in [*self.improve, *self.hold, *self.health]}

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales that are tried after the whole adapter, from large to small; none without `shrink`."""
        if isinstance(self.shrink, bool):
            return SCALES if self.shrink else ()
        parts = self.shrink.steps + 1
        return tuple(round(place / parts, 6) for place in range(self.shrink.steps, 0, -1))


class Stage(Part):
    """One training on one mixture, starting from the last good adapter."""

    name: Name
    """Name of the stage; part of its folder's name."""
    mix: Mix
    """What it trains on."""
    replay: Replay | None = None
    """Pairs of earlier stages that come in addition to the mix."""
    flipped: Share = 0.0
    """A control: share of the drawn pairs whose answers change places, so that the worse one is taught."""
    order: Literal["shuffle"] | Curriculum = "shuffle"
    """Order of the pairs, new in every epoch: `shuffle`, `curriculum`, or a curriculum with its options."""
    dpo: Dpo = Dpo()
    """The loss."""
    optim: Optim = Optim()
    """The optimiser."""
    lora: Adapters = Lora()
    """The adapter, or a mapping of domains to adapters that are active together (see docs/stages.md)."""
    reference: Literal["previous", "base"] = "previous"
    """What DPO measures against: the stage's own start, or the base model."""
    gate: Gate = Gate()
    """The rule that decides whether the stage is kept."""

    @model_validator(mode="before")
    @classmethod
    def _curriculum_by_name(cls, value: Any) -> Any:
        """`order: curriculum` means a curriculum with its defaults."""
        named = isinstance(value, dict) and value.get("order") == "curriculum"
        return {**value, "order": {"kind": "curriculum"}} if named else value

    @model_validator(mode="after")
    def _replays_what_it_scales(self) -> Stage:
        retry = self.gate.retry
        if retry is None or retry.scale.replay == 1.0:
            return self
        if self.replay is None:
            raise ValueError("gate.retry.scale.replay: the stage has no `replay` that could be scaled")
        most = self.replay.share * retry.scale.replay**retry.max
        if most >= 1.0:
            raise ValueError(
                f"gate.retry.scale.replay: the last attempt would replay a share of {most:g}; it must stay below 1"
            )
        return self
