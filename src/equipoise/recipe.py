"""The recipe: the YAML file that describes an experiment completely.

Strict and frozen: an unknown key is an error that names the nearest one. Every class here and in `recipe_parts.py`
(models), `recipe_sources.py`, `recipe_data.py` (mix, order), `recipe_lora.py` (adapters), `recipe_stage.py` and
`recipe_evaluation.py` is a part of the file; the text under a field is its documentation.
Reading the file is in `recipe_file.py`, so that these pages stay a list of what can be asked for.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from equipoise.recipe_data import Curriculum, Mix, Replay
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
from equipoise.recipe_lora import DomainLora, Lora
from equipoise.recipe_parts import ModelSpec, Name, Part, RewardSpec, Seed
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
from equipoise.recipe_stage import (
    HEALTH_FIGURES,
    AdaptiveBeta,
    BetaSchedule,
    Dpo,
    Gate,
    Optim,
    Retry,
    Scale,
    Shrink,
    Stage,
    Stop,
)

__all__ = [
    "CIRCUMSTANCES",
    "HEALTH_FIGURES",
    "AdaptiveBeta",
    "BetaSchedule",
    "Columns",
    "Curriculum",
    "DomainLora",
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
    "Replay",
    "Retry",
    "RewardSpec",
    "Sampling",
    "Scale",
    "Server",
    "Shrink",
    "Source",
    "SourceBase",
    "Stage",
    "Stop",
    "TableSource",
    "TaskSpec",
    "Tasks",
    "TatqaSpec",
]


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
