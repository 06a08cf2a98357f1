"""The models of a run: each is loaded when it is first needed, and shared by all that need it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.measure import load_reward
from equipoise.model.adapters import attach, detach, require_adapter, stack_identity
from equipoise.model.generate import Answer, Generator, Progress, TransformersGenerator
from equipoise.model.load import Loaded, load_policy, model_config, model_folder
from equipoise.model.reward import Reward
from equipoise.progress import Display
from equipoise.recipe import ModelSpec, Policy, Ranking, Recipe, RewardSpec, Source
from equipoise.recipe_sources import Generated, MtBenchStyleSource, generated, ranked
from equipoise.records import InputError, Message
from equipoise.store import Store


class Models:
    """The recipe's policy and reward model, and for a while those that only a source needs.

    `check` is called with the policy as soon as it is loaded, before it does anything: it raises InputError for what
    would stop the run later.
    """

    def __init__(
        self, recipe: Recipe, store: Store, display: Display, check: Callable[[Loaded], None] = lambda policy: None
    ) -> None:
        self._recipe, self._store, self._display, self._check = recipe, store, display, check
        self._policy: Loaded | None = None
        self._rewards: dict[RewardSpec, Reward] = {}
        self._others: dict[ModelSpec, Loaded] = {}
        self._source = "sources"

    @property
    def policy(self) -> Loaded:
        """The recipe's model, without adapters."""
        if self._policy is None:
            self._policy = load_policy(self._recipe.model)
            self._check(self._policy)
        return self._policy

    @policy.setter
    def policy(self, loaded: Loaded) -> None:
        self._policy = loaded

    @property
    def reward(self) -> Reward | None:
        """The reward model that scores the evaluation, its sanity checked."""
        return self.judge(self._recipe.reward) if self._recipe.reward else None

    def judge(self, spec: RewardSpec | None) -> Reward:
        """The reward model of a source, by default the recipe's."""
        chosen = spec or self._recipe.reward
        assert chosen is not None  # the recipe was checked when it was read
        if chosen not in self._rewards:
            with _named(f"{self._source}.reward" if chosen != self._recipe.reward else "reward", "reward"):
                found = load_reward(chosen, self._store, self._display)
            assert found is not None
            self._rewards[chosen] = found
        return self._rewards[chosen]

    def generator(self, policy: Policy | None, start: Sequence[Path], batch_size: int) -> Generator:
        """What answers for a policy; None is the recipe's model with the adapters of `start`."""
        if policy is None:
            return self._answering(self.policy, start, self._recipe.model, batch_size)
        spec = policy.model or self._recipe.model
        if spec == self._recipe.model:
            loaded = self.policy
        elif spec not in self._others:
            with _named(f"{self._source}.policies: model", "model"):
                loaded = self._others[spec] = load_policy(spec)
        else:
            loaded = self._others[spec]
        return self._answering(loaded, [Path(folder) for folder in policy.adapters], spec, batch_size)

    def _answering(self, loaded: Loaded, stack: Sequence[Path], spec: ModelSpec, batch_size: int) -> Generator:
        identity = stack_identity(loaded, stack)

        def make(model: Any) -> Generator:
            with_adapters = replace(loaded, model=model)
            return TransformersGenerator(
                with_adapters, identity=identity, batch_size=batch_size, store=self._store, thinking=spec.thinking
            )

        return _Answering(loaded, stack, make)

    @contextmanager
    def for_a_source(self, name: str) -> Iterator[None]:
        """Models that were loaded inside for a source alone are given back at the end; errors name the source."""
        self._source = f"sources.{name}"
        try:
            yield
        finally:
            self._others.clear()
            self._rewards = {spec: model for spec, model in self._rewards.items() if spec == self._recipe.reward}
            gc.collect()


def require_models(recipe: Recipe, sources: Mapping[str, Source], *, weights: bool) -> None:
    """Raises InputError, with the recipe's key, for a model of `sources` that cannot do its part.

    Only what folders and configurations say is looked at, so that this comes before anything expensive. `weights`:
    the models are about to be loaded, so their weights must be there too, and the recipe's reward model where it ranks.
    """
    for name, spec in sources.items():
        if not isinstance(spec, Generated) or not generated(spec):
            continue
        where = f"sources.{name}"
        own = spec.reward
        if ranked(spec) and (own or weights):
            require_reward(own or recipe.reward, f"{where}.reward" if own else "reward", weights=weights)
        if not isinstance(spec, MtBenchStyleSource):
            _require_room(recipe.model, "model", spec.sampling, f"{where}.sampling")
            continue
        for place, policy in enumerate(spec.policies):
            key = f"{where}.policies.{place}"
            model, at = (policy.model, f"{key}.model") if policy.model else (recipe.model, "model")
            _require_room(model, at, spec.ranking, f"{where}.ranking", weights=weights and model != recipe.model)
            for number, folder in enumerate(policy.adapters):
                require_adapter(Path(folder), f"{key}.adapters.{number}: ")


def require_reward(spec: RewardSpec | None, where: str, *, weights: bool) -> None:
    """Raises InputError where `spec` names no sequence classifier with one output; None names nothing."""
    for place, member in enumerate(spec.members if spec else ()):
        key = f"{where}.id" if place == 0 else f"{where}.also.{place - 1}.id"
        config = _config(member, key, "reward", weights)
        if config.num_labels != 1 or "CausalLM" in _architecture(config):
            raise InputError(
                f"{key}: {member.id}: a {_architecture(config)} with {config.num_labels} outputs; a reward model is a "
                "sequence classifier with one (num_labels: 1)"
            )


def _require_room(spec: ModelSpec, where: str, ranking: Ranking, key: str, *, weights: bool = False) -> None:
    """Raises InputError where a model does not answer, or its positions leave no room for any prompt."""
    config = _config(spec, f"{where}.id", "model", weights)
    if "Classification" in _architecture(config):
        raise InputError(f"{where}.id: {spec.id}: a {_architecture(config)} writes no answers; name a causal LM")
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    if most and ranking.max_new_tokens >= most:
        raise InputError(
            f"{key}.max_new_tokens: {ranking.max_new_tokens}: the model has {most} positions, so no prompt has room "
            "beside so long an answer; set it lower"
        )


def _config(spec: ModelSpec | RewardSpec, key: str, embedded: str, weights: bool) -> Any:
    folder = model_folder(spec.id, spec.revision, what=key, embedded=embedded)
    config = model_config(folder, key, trust_remote_code=spec.trust_remote_code)
    if weights and not any(folder.glob("*.safetensors")):
        raise InputError(f"{key}: {folder}: no .safetensors weights (other formats are not loaded: they can run code)")
    return config


def _architecture(config: Any) -> str:
    return str((config.architectures or [type(config).__name__])[0])


@contextmanager
def _named(where: str, key: str) -> Iterator[None]:
    """An error about `key` becomes one about `where`: what loads a model does not know which part of a recipe asks."""
    try:
        yield
    except InputError as error:
        said = str(error)
        raise InputError(where + said.removeprefix(key) if said.startswith(key) else f"{where}: {said}") from None


class _Answering:
    """A generator that puts its adapters on for as long as it writes: several policies may share one base model."""

    def __init__(self, loaded: Loaded, stack: Sequence[Path], make: Callable[[Any], Generator]) -> None:
        self._loaded, self._stack, self._make = loaded, stack, make

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order."""
        model = attach(self._loaded, self._stack)
        try:
            return self._make(model).generate(
                prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, progress=progress
            )
        finally:
            detach(model)
