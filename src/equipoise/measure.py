"""Scores of a model at one point: the base, or the base with adapters on top of each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from equipoise.evaluation.evaluate import Instruments, evaluate
from equipoise.evaluation.items import task, task_version
from equipoise.evaluation.likelihood import DEFAULT_LENGTH, likelihoods
from equipoise.evaluation.tasks.base import Outcome, PairLikelihood
from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.calibration import Calibration
from equipoise.model.ensemble import open_reward, reward_identity
from equipoise.model.generate import Generator, TransformersGenerator, instrument
from equipoise.model.load import Loaded, default_device, load_policy, policy_identity
from equipoise.model.reward import VERSION as reward_version
from equipoise.model.reward import Reward
from equipoise.progress import Display, labelled
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import Evaluation, HarnessSpec, PreferenceSpec
from equipoise.recipe_parts import ModelSpec, RewardSpec
from equipoise.records import InputError, Item, Score, content_id
from equipoise.store import Store

KIND = "base-scores"
WHICH = {"id", "revision", "split", "limit", "pick", "margin"}
"""Options of a task that say which items are asked, or what is said of the scores: they change no item's score."""
Items = Mapping[str, Sequence[Item]]
Likelihoods = dict[str, dict[str, PairLikelihood | str]]
HarnessScores = dict[str, dict[str, tuple[Outcome, tuple[str, ...]]]]


@dataclass(frozen=True)
class Measurement:
    """How a model is measured: what it is asked, how it answers, who grades.

    `reward` is None where no task needs one; answers, rewards and log-probabilities are kept in `store`.
    """

    items: Items
    evaluation: Evaluation
    reward: Reward | None
    model: ModelSpec
    seed: int
    store: Store
    display: Display

    def scores(self, policy: Loaded, stack: Sequence[Path], *, fresh: int = 0) -> dict[str, list[Score]]:
        """Generate and score with the adapters of `stack` on top of `policy`; leaves the policy without adapters.

        `fresh` above 0 measures again: no answer comes from the store, and batches have other shapes.
        """
        likely, harness = self._likelihoods(policy, stack), self._harness(policy, stack)
        with self._generator(policy, stack, fresh) as generator:
            return self._scores(generator, likely, harness)

    def scores_of_server(self, *, fresh: int = 0) -> dict[str, list[Score]]:
        """The same of what a server serves (`generation.backend: openai`), whose weights are not here.

        Raises InputError where a task needs them.
        """
        from equipoise.model.server import ServerGenerator

        server = self.evaluation.generation.server
        assert server is not None  # the recipe was checked when it was read
        for name in self.items:
            if "answers" not in task(name).needs:
                raise InputError(
                    f"evaluation.tasks.{name}: needs the model's log-probabilities, and a server gives answers only; "
                    "leave it out, or use backend: transformers"
                )
        return self._scores(ServerGenerator(server, store=None if fresh else self.store), {}, {})

    def _scores(self, generator: Generator, likely: Likelihoods, harness: HarnessScores) -> dict[str, list[Score]]:
        from equipoise.evaluation.judge import Judge

        judge = self.evaluation.judge
        return evaluate(
            {name: list(asked) for name, asked in self.items.items()},
            Instruments(generator, self.reward, Judge(judge, store=self.store) if judge else None, likely, harness),
            self.evaluation,
            seed=self.seed,
            thinking=self.model.thinking,
            progress=labelled(self.display),
        )

    @contextmanager
    def _generator(self, policy: Loaded, stack: Sequence[Path], fresh: int) -> Iterator[Generator]:
        generation = self.evaluation.generation
        if generation.backend == "vllm":
            from equipoise.model.vllm_engine import VllmEngine, VllmGenerator

            kept = None if fresh else self.store
            with VllmEngine(self.model, engine_args=generation.vllm) as engine:
                yield VllmGenerator(engine, stack, store=kept, thinking=self.model.thinking)
            return
        generator = TransformersGenerator(
            replace(policy, model=attach(policy, stack)),
            identity=stack_identity(policy, stack),
            batch_size=generation.batch_size,
            store=self.store,
            thinking=self.model.thinking,
            batch_invariant=generation.batch_invariant,
            fresh=fresh,
        )
        try:
            yield generator
        finally:
            detach(generator.loaded.model)

    def _likelihoods(self, policy: Loaded, stack: Sequence[Path]) -> Likelihoods:
        found = {}
        show = labelled(self.display)
        for name, items in self.items.items():
            if "pair" in task(name).needs:
                spec = self.evaluation.tasks.chosen()[name]
                longest = spec.max_length if isinstance(spec, PreferenceSpec) else DEFAULT_LENGTH
                found[name] = likelihoods(
                    policy,
                    stack,
                    items,
                    self.store,
                    thinking=self.model.thinking,
                    max_length=longest,
                    progress=partial(show, f"{name}: log-probabilities"),
                )
        return found

    def _harness(self, policy: Loaded, stack: Sequence[Path]) -> HarnessScores:
        found: HarnessScores = {}
        for name, items in self.items.items():
            spec = self.evaluation.tasks.chosen()[name]
            if isinstance(spec, HarnessSpec):
                found[name] = self._by_harness(name, spec, items, policy, stack)
        return found

    def _by_harness(
        self, name: str, spec: HarnessSpec, items: Sequence[Item], policy: Loaded, stack: Sequence[Path]
    ) -> dict[str, tuple[Outcome, tuple[str, ...]]]:
        from equipoise.evaluation.harness import harness_scores

        model = attach(policy, stack)
        try:
            scored = harness_scores(
                name,
                spec,
                items,
                replace(policy, model=model),
                batch_size=self.evaluation.generation.batch_size,
                thinking=self.model.thinking,
                progress=partial(labelled(self.display), name),
            )
        finally:
            detach(model)
        return {item.id: (outcome, answers) for item, outcome, answers in scored}


def measure_model(measurement: Measurement, stack: Sequence[Path], *, repeats: int = 1) -> list[dict[str, list[Score]]]:
    """Scores of a model that is not loaded yet, measured `repeats` times."""
    if measurement.evaluation.generation.backend == "openai":
        return [measurement.scores_of_server(fresh=number) for number in range(repeats)]
    policy = load_policy(measurement.model)
    return [measurement.scores(policy, stack, fresh=number) for number in range(repeats)]


def load_reward(spec: RewardSpec | None, store: Store, display: Display) -> Reward | None:
    """The reward model that a recipe names, or several together: sane and calibrated before anything expensive."""
    if spec is None:
        return None
    reward = open_reward(spec, store=store)
    reward.require_sanity()
    for member in reward.record()["members"]:
        if member["source"] != "file":
            display.say(f"{member['id']}: 0-10 values by {Calibration.from_record(member).words()}")
    return reward


def known_base_scores(recipe: Recipe, items: Items, *, repeat: int = 0) -> dict[str, list[Score]] | None:
    """The stored scores of the base model, or None where it was not scored yet; `repeat` > 0 are those of measuring it
    again."""
    found = Store().get(KIND, _base_identity(recipe, items, repeat))
    if set(found) != set(items):
        return None
    return {name: [Score.from_record(record) for record in found[name]] for name in items}


def keep_base_scores(recipe: Recipe, items: Items, scores: Mapping[str, Sequence[Score]], *, repeat: int = 0) -> None:
    """Keep the base model's scores: computed once per model, items and settings, they cannot drift."""
    records = {name: [score.record() for score in scores[name]] for name in items}
    Store().put(KIND, _base_identity(recipe, items, repeat), records)


def turn_at_the_base(recipe: Recipe, items: Items, *, repeat: int = 0) -> AbstractContextManager[None]:
    """Within this context no other run scores the same base model: a study that starts several at once does it once."""
    return Store().turn(KIND, _base_identity(recipe, items, repeat))


def _base_identity(recipe: Recipe, items: Items, repeat: int) -> str:
    """All that the base model's scores depend on, by content."""
    device = default_device()
    generation = recipe.evaluation.generation
    return content_id(
        [
            instrument(device),
            policy_identity(recipe.model, device),
            reward_identity(recipe.reward, device) if recipe.reward else None,
            generation.model_dump(mode="json"),
            [
                recipe.evaluation.dev_share,
                recipe.seed if generation.temperature else 0,
                recipe.model.thinking,
                reward_version,
                repeat,
            ],
            recipe.evaluation.judge.model_dump(mode="json") if recipe.evaluation.judge else None,
            {
                name: spec.model_dump(mode="json", exclude=WHICH)
                for name, spec in recipe.evaluation.tasks.chosen().items()
            },
            _version("lm_eval") if recipe.evaluation.tasks.harness else None,
            _version("vllm") if generation.backend == "vllm" else None,
            {
                name: [task_version(name), [[item.id, item.content, item.group, item.category] for item in task]]
                for name, task in items.items()
            },
        ]
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # its absence stops the run where it is needed, with what to do
        return None
