"""What a recipe asks of the evaluation: the tasks, how answers are generated and graded."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from equipoise.recipe_parts import Name, Part
from equipoise.recipe_sources import Source

METRICS = {
    "tatqa": ("f1", "format"),
    "mt_bench": ("ten", "turn_1", "turn_2", "correct"),
    "finance_instruct": ("ten", "success", "win", "correct"),
    "reddit": ("ten", "correct", "prefers", "learned"),
    "ifeval": ("loose", "instructions", "instructions_loose"),
    "preference_accuracy": ("prefers", "margin"),
}
"""Further figures of each task, as gates may name them (`domain.metric`); a test compares them with the tasks."""


REWARDED = ("mt_bench", "finance_instruct", "reddit")
"""The tasks whose answers a reward model scores."""


class TaskSpec(Part):
    """What every task has."""

    id: str | None = None
    """Where the items come from: hub id, local folder or file, or `pocket`; default: the task's own."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    split: str | None = None
    """Split of a hub data set or folder; default: the task's own."""
    limit: PositiveInt | None = None
    """Evaluate this many items; a larger limit contains the items of a smaller one."""
    pick: Literal["spread", "first"] = "spread"
    """Which ones: spread over the file by a fixed hash of their ids, or the first in the file's order."""
    margin: NonNegativeFloat | None = None
    """Non-inferiority margin of the verdict `held`; default: that of the last gate that holds this domain."""


class TatqaSpec(TaskSpec):
    """Questions about tables (TAT-QA)."""

    layout: Literal["markdown", "cells"] = "markdown"
    """How the table is written: Markdown, or one `| row column: value |` per cell for very small models."""


class MtBenchSpec(TaskSpec):
    """General instructions with a second turn."""

    scored_by: Literal["reward", "judge"] = "reward"
    """`judge` asks the model under `evaluation.judge` for a grade of 1 to 10 for each turn."""
    references: str | None = None
    """File of reference answers for the judge (`question_id`, `choices`, as FastChat's reference_answer/*.jsonl),
    instead of those in the column `reference` of the questions. A judge sees those of math, reasoning and coding."""


class PreferenceSpec(TaskSpec):
    """Pairs of answers: which one does the model find likelier than its reference does?"""

    source: Source | Name
    """Where the pairs come from: a source as under `sources`, or the name of one of the recipe's, whose held-out
    pairs (`hold_out`) are taken."""
    max_length: PositiveInt = 4096
    """Longest prompt and answer in tokens; the oldest text of a longer prompt is cut, never an answer."""


class HarnessSpec(TaskSpec):
    """A task of lm-evaluation-harness (the `[lm-eval]` extra); `id`, `revision` and `split` are the task's own."""

    include_path: str | None = None
    """Folder with task definitions of your own."""
    metric: str | None = None
    """Which of the task's figures is the value; default: its first. The others are further metrics."""
    num_fewshot: NonNegativeInt | None = None
    """Worked examples before each question; default: the task's own."""


HARNESS = "lm_eval:"
HARNESS_NAME = r"^lm_eval:[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
PREFERENCE = "preference_accuracy"
PREFERENCE_NAME = r"^preference_accuracy:[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"


NAMED_TASKS = ("harness", "preferences")
"""Fields of `Tasks` that no recipe names: they hold the tasks whose own name follows a colon."""


class Tasks(Part):
    """The domains that are evaluated.

    Beside the fields there may be any number of `lm_eval:<task>` and `preference_accuracy:<name>`.
    """

    tatqa: TatqaSpec | None = None
    """Table questions, exact match."""
    mt_bench: MtBenchSpec | None = None
    """General instructions with a second turn, reward or judge."""
    finance_instruct: TaskSpec | None = None
    """Finance instructions, reward."""
    reddit: TaskSpec | None = None
    """Replies to finance posts, reward."""
    ifeval: TaskSpec | None = None
    """Instructions whose following a program can check."""
    preference_accuracy: PreferenceSpec | None = None
    """Pairs of answers; nothing is generated."""

    harness: dict[Annotated[str, Field(pattern=HARNESS_NAME)], HarnessSpec] = {}
    """The `lm_eval:<task>` entries."""
    preferences: dict[Annotated[str, Field(pattern=PREFERENCE_NAME)], PreferenceSpec] = {}
    """The `preference_accuracy:<name>` entries."""

    @model_validator(mode="before")
    @classmethod
    def _by_their_names(cls, value: Any) -> Any:
        """`tatqa:` with nothing after it means the task with its defaults; named tasks go where they belong."""
        if not isinstance(value, dict):
            return value
        filled = {key: {} if spec is None else spec for key, spec in value.items()}
        for field, mark in (("harness", HARNESS), ("preferences", f"{PREFERENCE}:")):
            own = {key: filled.pop(key) for key in list(filled) if str(key).startswith(mark)}
            filled |= {field: own} if own else {}
        return filled

    @model_serializer(mode="wrap")
    def _only_chosen(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A task that is not evaluated does not stand in the resolved recipe."""
        dumped = dump(self)
        named = {**dumped.pop("harness", {}), **dumped.pop("preferences", {})}
        return {key: spec for key, spec in {**dumped, **named}.items() if spec is not None}

    def chosen(self) -> dict[str, TaskSpec]:
        """The tasks that the recipe names, in a fixed order."""
        plain = [name for name in Tasks.model_fields if name not in NAMED_TASKS]
        pairs = {name: getattr(self, name) for name in plain} | self.preferences | self.harness
        return {name: spec for name, spec in pairs.items() if spec is not None}


def kind_of(task: str) -> str:
    """The kind of a task by its name in a recipe: `lm_eval:arc_easy` is an `lm_eval`."""
    return task.partition(":")[0]


class Server(Part):
    """A server that speaks OpenAI's chat protocol, local or not."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$")]
    """Its base address, as `http://127.0.0.1:8000/v1`."""
    model: Annotated[str, Field(min_length=1)]
    """The name by which it knows the model."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the key, where the server wants one; the key itself stands nowhere."""
    timeout: PositiveFloat = 120.0
    """Seconds until a request is given up, and tried again."""
    retries: NonNegativeInt = 4
    """Further tries after a request that failed, with growing pauses."""
    concurrency: PositiveInt = 4
    """Requests at a time."""


class JudgeSpec(Server):
    """A model on a server that grades answers."""

    max_tokens: PositiveInt = 1024
    """Longest judgement in tokens."""


class Generation(Part):
    """How answers are generated."""

    backend: Literal["transformers", "vllm", "openai"] = "transformers"
    """What runs the model: this process, a vLLM engine in a process of its own, or a server."""
    server: Server | None = None
    """The server of `backend: openai`. It answers as what it serves: no adapter that a run trains is there."""
    vllm: dict[str, str | int | float | bool] = {}
    """Arguments of the engine of `backend: vllm`, as `gpu_memory_utilization`."""
    batch_invariant: bool = False
    """Every forward pass has one fixed shape, and the most likely token is chosen from 32-bit logits: slower, and an
    answer does not depend on what else is asked."""
    temperature: NonNegativeFloat = 0.0
    """0 = greedy."""
    max_new_tokens: PositiveInt | dict[str, PositiveInt] = 256
    """Longest answer in tokens; one number, or one for each task."""
    batch_size: PositiveInt = 64
    """Prompts per batch."""

    @model_validator(mode="after")
    def _has_what_its_backend_needs(self) -> Generation:
        if self.backend == "openai" and self.server is None:
            raise ValueError("backend: openai needs `server: {url: ..., model: ...}`")
        if self.batch_invariant and self.backend != "transformers":
            raise ValueError(f"batch_invariant: {self.backend} decides on its batches itself; use transformers")
        return self

    def longest(self, task: str) -> int:
        """Longest answer of `task` in tokens (256 where the recipe names other tasks only)."""
        return self.max_new_tokens if isinstance(self.max_new_tokens, int) else self.max_new_tokens.get(task, 256)


class Evaluation(Part):
    """What is measured before and after."""

    tasks: Tasks
    """The domains."""
    dev_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    """Share of the groups of items that gates look at; the verdict uses the rest."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Confidence of the verdict's intervals."""
    generation: Generation = Generation()
    """How answers are generated."""
    judge: JudgeSpec | None = None
    """Who grades where a task says `scored_by: judge`."""
    repeats: PositiveInt = 1
    """How often the base is measured: from 2 on the noise of the instrument itself is known, and no difference
    within it is called improved or worse."""
