"""The models of a run: each is loaded when it is first needed, and shared by all that need it."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from equipoise.measure import load_reward
from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.generate import Answer, Generator, Progress, TransformersGenerator
from equipoise.model.load import Loaded, load_policy
from equipoise.model.reward import Reward
from equipoise.progress import Display
from equipoise.recipe import ModelSpec, Policy, Recipe, RewardSpec
from equipoise.records import Message
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
    def for_a_source(self) -> Iterator[None]:
        """Models that were loaded inside for a source alone are given back at the end."""
        try:
            yield
        finally:
            self._others.clear()
            self._rewards = {spec: model for spec, model in self._rewards.items() if spec == self._recipe.reward}
            gc.collect()


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
