"""Coefficients of a merge, tried against a recipe's last gate on dev items; the best is confirmed on test items."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.data.seeds import generator
from equipoise.evaluation.gate import GateResult, decide
from equipoise.evaluation.items import load_items, splits
from equipoise.measure import Measurement, keep_base_scores, known_base_scores, load_reward
from equipoise.model.load import Loaded
from equipoise.outcome import compare_points, only
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.records import Comparison, InputError, Score
from equipoise.store import Store
from equipoise.study.merge import Blend, merge
from equipoise.study.overall import overall, unit

Scores = Mapping[str, list[Score]]


@dataclass(frozen=True)
class Tried:
    """Coefficients, the gate's decision on dev items, and the overall score there."""

    weights: tuple[float, ...]
    gate: GateResult
    overall: float

    @property
    def allowed(self) -> bool:
        """Whether the gate passes, or is undecided and lets that pass."""
        return self.gate.outcome != "fail" and self.gate.action == "keep"

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "weights": list(self.weights),
            "outcome": self.gate.outcome,
            "allowed": self.allowed,
            "overall": self.overall,
            "reasons": list(self.gate.reasons),
        }


@dataclass(frozen=True)
class Found:
    """All that was tried; the best that the gate allows (None: nothing), and what test items say of it."""

    tried: tuple[Tried, ...]
    best: Tried | None
    test: Mapping[str, Comparison]

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "tried": [one.record() for one in self.tried],
            "weights": list(self.best.weights) if self.best else None,
            "test": {name: asdict(row) for name, row in self.test.items()},
        }


def candidates(adapters: int, count: int, seed: int) -> list[tuple[float, ...]]:
    """Return `count` sets of coefficients: the sum, the mean, each adapter alone, then drawn ones, all within 0..1.

    Sums below 1 are interpolations towards the base, so nothing else has to be searched.
    """
    alone = [tuple(float(place == number) for place in range(adapters)) for number in range(adapters)]
    fixed = [(1.0,) * adapters, (round(1 / adapters, 3),) * adapters, *alone]
    drawn = generator("coefficients", adapters, seed).uniform(0, 1, size=(count, adapters)).round(3)
    return list(dict.fromkeys([*fixed, *map(tuple, drawn.tolist())]))[:count]


class Coefficients:
    """A search for the coefficients of one merge."""

    def __init__(self, recipe: Recipe, policy: Loaded, folders: Sequence[Path], blend: Blend, display: Display) -> None:
        self._recipe, self._policy, self._folders, self._blend = recipe, policy, folders, blend
        self._gate = recipe.stages[-1].gate
        if not (self._gate.improve or self._gate.hold or self._gate.health):
            raise InputError(f"--search {recipe.name}: the gate of its last stage has no rule to search against")
        store = Store()
        tasks = recipe.evaluation.tasks.chosen()
        items = {name: load_items(name, spec, recipe.sources) for name, spec in tasks.items()}
        reward = load_reward(recipe.reward, store, display)
        self._all = Measurement(items, recipe.evaluation, reward, recipe.model, recipe.seed, store, display)
        dev = {name: splits((one.group for one in asked), recipe.evaluation.dev_share) for name, asked in items.items()}
        chosen = {name: [one for one in asked if dev[name][one.group] == "dev"] for name, asked in items.items()}
        self._dev = replace(self._all, items=chosen)
        self._display = display
        known = known_base_scores(recipe, items)
        self._base: Scores = known or self._all.scores(policy, [])
        if known is None:
            keep_base_scores(recipe, items, self._base)

    def search(self, count: int) -> Found:
        """Try `count` sets of coefficients; test items are scored for the best alone."""
        tried = [self._try(weights) for weights in candidates(len(self._folders), count, self._blend.seed)]
        best = max((one for one in tried if one.allowed), key=lambda one: one.overall, default=None)
        if best is None:
            return Found(tuple(tried), None, {})
        confirmed = compare_points(self._recipe, self._base, self._scores(self._all, best.weights))
        return Found(tuple(tried), best, confirmed)

    def _try(self, weights: tuple[float, ...]) -> Tried:
        """Score the dev items only; all of them count here, however these few would be divided."""
        before = only(self._base, "dev")
        after = {
            name: [replace(score, split="dev") for score in scores]
            for name, scores in self._scores(self._dev, weights).items()
        }
        gate = decide(before, after, self._gate, seed=self._recipe.seed)
        one = Tried(weights, gate, _overall(before, after, self._recipe.evaluation.confidence))
        self._display.say(f"weights {', '.join(f'{w:g}' for w in weights)}: {gate.outcome}, overall {one.overall:+.3f}")
        return one

    def _scores(self, measurement: Measurement, weights: tuple[float, ...]) -> Scores:
        with tempfile.TemporaryDirectory(prefix="equipoise-merge-") as folder:
            merged = Path(folder) / "merged"
            merge(self._policy, self._folders, replace(self._blend, weights=weights), merged)
            return measurement.scores(self._policy, [merged])


def _overall(before: Scores, after: Scores, confidence: float) -> float:
    """The overall score of the leaderboard, on these items."""
    ended = {name: {score.id: score.value for score in scores} for name, scores in after.items()}
    values = {name: np.array([[_number(score.value) for score in scores]]) for name, scores in before.items()}
    ends = {name: np.array([[_number(ended[name][score.id]) for score in scores]]) for name, scores in before.items()}
    gains = {name: ends[name] - values[name] for name in values}
    groups = {name: [score.group for score in scores] for name, scores in before.items()}
    return overall(gains, {name: unit(name, found) for name, found in values.items()}, groups, confidence).difference


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
