"""The recipe: the YAML file that describes an experiment completely.

Strict and frozen: an unknown key is an error that names the nearest one. Every class here and in `recipe_parts.py`
(models), `recipe_sources.py`, `recipe_data.py` (mix, order) and `recipe_evaluation.py` is a part of the file; the text
under a field is its documentation.
Reading the file is in `recipe_file.py`, so that these pages stay a list of what can be asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from equipoise.recipe_data import Curriculum, Mix
from equipoise.recipe_evaluation import (
    Evaluation,
    Generation,
    HarnessSpec,
    JudgeSpec,
    MtBenchSpec,
    PreferenceSpec,
    Server,
    Tasks,
    TaskSpec,
    TatqaSpec,
)
from equipoise.recipe_parts import ModelSpec, Name, Part, RewardSpec, Seed, Share
from equipoise.recipe_sources import (
    Columns,
    FinanceInstructSource,
    HhSource,
    MinGap,
    MtBenchStyleSource,
    OnPolicySource,
    OrcaSource,
    PocketSource,
    Policy,
    PromptColumns,
    Ranking,
    RedditSource,
    Sampling,
    Source,
    SourceBase,
    TableSource,
)

__all__ = [
    "CIRCUMSTANCES",
    "Columns",
    "Curriculum",
    "Dpo",
    "Evaluation",
    "FinanceInstructSource",
    "Gate",
    "Generation",
    "HarnessSpec",
    "HhSource",
    "JudgeSpec",
    "Lora",
    "MinGap",
    "Mix",
    "ModelSpec",
    "MtBenchSpec",
    "MtBenchStyleSource",
    "OnPolicySource",
    "Optim",
    "OrcaSource",
    "PocketSource",
    "Policy",
    "PreferenceSpec",
    "PromptColumns",
    "Ranking",
    "Recipe",
    "RedditSource",
    "RewardSpec",
    "Sampling",
    "Server",
    "Source",
    "SourceBase",
    "Stage",
    "TableSource",
    "TaskSpec",
    "Tasks",
    "TatqaSpec",
]

HEALTH_FIGURES = ("empty", "cut_off", "repeated", "switched", "length")


class Dpo(Part):
    """The preference loss."""

    loss: Literal[
        "sigmoid", "ipo", "hinge", "robust", "sigmoid_norm", "simpo", "orpo", "apo_zero", "apo_down", "dpop"
    ] = "sigmoid"
    """Which loss; see docs/losses.md."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the reference."""
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


class Lora(Part):
    """The adapter that a stage trains."""

    rank: PositiveInt = 8
    """Rank r of the adapter."""
    alpha: PositiveFloat = 16.0
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which linear layers are adapted."""


class Gate(Part):
    """The rule that decides whether a stage is kept.

    Keys are domains, or `domain.metric` for a further figure of a task (`mt_bench.correct`).
    """

    improve: dict[str, float] = {}
    """The gain must be above this: the interval lies above = pass, below = fail, else undecided."""
    hold: dict[str, NonNegativeFloat] = {}
    """The loss must stay within this: the interval lies above -margin = pass, below = fail."""
    health: dict[str, NonNegativeFloat] = {}
    """Upper limits of `domain.figure`: empty, cut_off, repeated, switched (shares), length (ratio to the base)."""
    against: Literal["base", "previous"] = "base"
    """What the stage is compared with: the base model, or the last kept stage."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of the intervals."""
    on_fail: Literal["stop", "rollback", "continue"] = "rollback"
    """A rule failed: end the run, go on from the last kept stage, or keep the stage all the same."""
    on_undecided: Literal["continue", "stop", "rollback"] = "continue"
    """No rule failed, and at least one is undecided: keep (flagged everywhere), end, or go back."""

    @model_validator(mode="after")
    def _known_figures(self) -> Gate:
        for key in self.health:
            if key.partition(".")[2] not in HEALTH_FIGURES:
                raise ValueError(
                    f"health: {key!r} is not `domain.figure` with figure one of {', '.join(HEALTH_FIGURES)}"
                )
        return self

    @property
    def domains(self) -> dict[str, str]:
        """Maps each key of the gate to the domain that it looks at."""
        return {key: key.partition(".")[0] for key in [*self.improve, *self.hold, *self.health]}


class Stage(Part):
    """One training on one mixture, starting from the last good adapter."""

    name: Name
    """Name of the stage; part of its folder's name."""
    mix: Mix
    """What it trains on."""
    order: Literal["shuffle"] | Curriculum = "shuffle"
    """Order of the pairs, new in every epoch: `shuffle`, `curriculum`, or a curriculum with its options."""
    dpo: Dpo = Dpo()
    """The loss."""
    optim: Optim = Optim()
    """The optimiser."""
    lora: Lora = Lora()
    """The adapter."""
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


class Recipe(Part):
    """An experiment, completely described."""

    name: Name
    """Name of the experiment and of its run folder."""
    seed: Seed = 0
    """Seed of every random choice."""
    model: ModelSpec
    """The model to be trained."""
    reward: RewardSpec | None = None
    """The reward model; needed by tasks that a reward model scores."""
    sources: dict[Name, Source]
    """Where pairs come from."""
    stages: Annotated[list[Stage], Field(min_length=1)]
    """The stages, in order."""
    evaluation: Evaluation
    """What is measured."""
    trackers: list[Literal["tensorboard", "trackio", "wandb", "mlflow"]] = []
    """Where the figures of every training step also go (the `[track]` extra); no part of the experiment's identity."""


CIRCUMSTANCES = frozenset({"name", "trackers"})
"""Fields of a recipe that change no result: a run goes on with others."""
