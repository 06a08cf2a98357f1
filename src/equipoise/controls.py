"""Controls of an experiment: the same recipe with one thing taken away, so that its effect can be seen.

- `ungated`: every gate is judged and none acts, so that all stages are kept;
- `one-mixture`: all that the stages train on in a single stage of as many steps;
- `reversed`: the stages in the opposite order;
- `flipped`: the worse answer of every pair is taught. What does no harm so, does no good as it is.

In all of them no gate acts: a control that is rolled back says nothing. Pure: the same recipe gives the same control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from equipoise.data.mix import allocate
from equipoise.dpo.schedule import steps
from equipoise.recipe import Lora, Stage
from equipoise.records import InputError

ALL = "all"
"""Name of the stage that takes the place of the others."""
JOINED = {
    "dpo": {"beta", "max_length", "max_prompt_length"},
    "optim": {"learning_rate", "epochs", "micro_batch_tokens", "checkpoint_every"},
}
"""Parts in which stages must agree to become one mixture, but for these fields: beta, rate and epochs are averaged or
counted, the longest lengths have room for every pair, and the other two change no result but by rounding."""
LENGTHS = ("max_length", "max_prompt_length")


def control(recipe: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The control of a recipe, both as plain values.

    Raises InputError on an unknown kind, and where the recipe has nothing that this control could take away.
    """
    if kind not in CONTROLS:
        raise InputError(f"--as {kind}: no such control; there are {', '.join(CONTROLS)}")
    changed = CONTROLS[kind](recipe)
    stages = [{**stage, **_judged_only(stage)} for stage in changed["stages"]]
    return {**changed, "name": f"{recipe['name'][: 79 - len(kind)]}-{kind}", "stages": stages}


def title(question: str, name: str, kind: str) -> str:
    """The first line of the control of recipe `name`, which asks `question`."""
    return f"{question} (The control {kind} of {name}.)"


def _judged_only(stage: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's gate, which is judged and does nothing."""
    rules = {key: value for key, value in stage.get("gate", {}).items() if key not in ("retry", "shrink")}
    return {"gate": {**rules, "on_fail": "continue", "on_undecided": "continue"}} if rules else {}


def _ungated(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {**recipe, "stages": list(recipe["stages"])}


def _flipped(recipe: Mapping[str, Any]) -> dict[str, Any]:
    for stage in recipe["stages"]:
        if stage.get("flipped", 0.0) == 1.0:
            raise InputError(
                f"{recipe['name']}: stage {stage['name']} is flipped already (flipped: 1); make the control of the "
                "recipe that teaches the better answers"
            )
    return {**recipe, "stages": [{**stage, "flipped": 1.0} for stage in recipe["stages"]]}


def _reversed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    _require_several(recipe, "an order")
    if "replay" in recipe["stages"][-1]:
        raise InputError(f"{recipe['name']}: its last stage replays earlier ones, so it cannot come first")
    return {**recipe, "stages": list(reversed(recipe["stages"]))}


def _one_mixture(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """One stage that presents as many pairs of each source as all stages together.

    Rates and betas are means over optimiser steps; the longest lengths are taken, the adapter of the largest rank, the
    last gate.
    """
    _require_several(recipe, "stages to put together")
    stages = [Stage.model_validate(stage) for stage in recipe["stages"]]
    for stage in stages:
        _require_plain(recipe["name"], stage)
        _require_alike(recipe["name"], stages[0], stage)
    counts: dict[str, float] = {}
    for stage in stages:
        for source, count in _counts(stage).items():
            counts[source] = counts.get(source, 0.0) + count * stage.optim.epochs
    weights = [steps(sum(_counts(stage).values()), stage.optim.epochs, stage.optim.batch_size) for stage in stages]
    last = recipe["stages"][-1]
    longest = {key: max(getattr(stage.dpo, key) for stage in stages) for key in LENGTHS}
    one = {
        **{key: value for key, value in last.items() if key != "replay"},
        "name": ALL,
        "mix": {"counts": {source: max(1, round(count)) for source, count in counts.items()}, "when_short": "repeat"},
        "dpo": {
            **last.get("dpo", {}),
            "beta": _mean([_beta(stage) for stage in stages], weights),
            **{key: tokens for key, tokens in longest.items() if tokens != getattr(stages[-1].dpo, key)},
        },
        "optim": {
            **last.get("optim", {}),
            "epochs": 1.0,
            "learning_rate": _mean([stage.optim.learning_rate for stage in stages], weights),
        },
        "lora": max(
            (stage.lora for stage in stages if isinstance(stage.lora, Lora)), key=lambda lora: lora.rank
        ).model_dump(mode="json", exclude_unset=True),
    }
    return {**recipe, "stages": [one]}


def _require_several(recipe: Mapping[str, Any], what: str) -> None:
    if len(recipe["stages"]) < 2:
        raise InputError(f"{recipe['name']}: a recipe of one stage has not {what}; take the control ungated or flipped")


def _require_plain(name: str, stage: Stage) -> None:
    """Raises InputError where a stage has what one stage for all could not have."""
    lacking = {
        "replays earlier stages": stage.replay is not None,
        "has a schedule of beta": not isinstance(stage.dpo.beta, float),
        "has an adapter for each domain": not isinstance(stage.lora, Lora),
        "divides its mix by something else than pairs": stage.mix.by != "pairs",
    }
    for what, found in lacking.items():
        if found:
            raise InputError(f"{name}: stage {stage.name} {what}; its mixture cannot be put together with the others")


def _require_alike(name: str, first: Stage, stage: Stage) -> None:
    """Raises InputError where two stages differ in what one stage has one value of."""
    one, other = _in_common(first), _in_common(stage)
    for field, value in one.items():
        if value != other[field]:
            raise InputError(
                f"{name}: stages {first.name} and {stage.name} differ in {field} ({value}, {other[field]}); "
                "one mixture has one value of it: give them the same"
            )


def _in_common(stage: Stage) -> dict[str, Any]:
    """The stage's values by field, those left out that `_one_mixture` puts together."""
    record = stage.model_dump(mode="json")
    found = {
        f"{part}.{key}": value for part, own in JOINED.items() for key, value in record[part].items() if key not in own
    }
    return {**{field: record[field] for field in ("flipped", "reference", "order")}, **found}


def _counts(stage: Stage) -> dict[str, int]:
    mix = stage.mix
    return dict(mix.counts) if mix.counts else allocate(dict(mix.shares or {}), mix.pairs or 0)


def _beta(stage: Stage) -> float:
    assert isinstance(stage.dpo.beta, float)  # `_require_plain`
    return stage.dpo.beta


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """The weighted mean, to three digits."""
    total = sum(value * weight for value, weight in zip(values, weights, strict=True))
    return float(f"{total / sum(weights):.3g}")


CONTROLS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "ungated": _ungated,
    "one-mixture": _one_mixture,
    "reversed": _reversed,
    "flipped": _flipped,
}
"""Each control by its name."""
