"""What is done about a stage that its gate refuses: values of the next attempt, and the record of it all. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.evaluation.gate import GateResult, decide
from equipoise.outcome import Scores, gate_before, only
from equipoise.recipe import AdaptiveBeta, BetaSchedule, Recipe, Stage
from equipoise.recipe_lora import DomainLora, adapters_of


def in_attempt(stage: Stage, attempt: int) -> Stage:
    """The stage as it is trained in an attempt, from 1: its values times the factors of `gate.retry.scale` so far."""
    retry = stage.gate.retry
    if retry is None or attempt == 1:
        return stage
    times = attempt - 1
    optim = stage.optim.model_copy(
        update={
            "learning_rate": stage.optim.learning_rate * retry.scale.learning_rate**times,
            "epochs": stage.optim.epochs * retry.scale.epochs**times,
        }
    )
    dpo = stage.dpo.model_copy(update={"beta": _scaled(stage.dpo.beta, retry.scale.beta**times)})
    replay = stage.replay
    if replay is not None:
        replay = replay.model_copy(update={"share": replay.share * retry.scale.replay**times})
    lora = stage.lora
    if isinstance(lora, dict):
        lora = {domain: _faster(one, retry.scale.learning_rate**times) for domain, one in lora.items()}
    return stage.model_copy(update={"optim": optim, "dpo": dpo, "replay": replay, "lora": lora})


def _faster(lora: DomainLora, factor: float) -> DomainLora:
    """The adapter of a domain with its own learning rate, where it has one, times `factor`."""
    rate = lora.learning_rate
    return lora if rate is None else lora.model_copy(update={"learning_rate": rate * factor})


def _scaled(beta: float | BetaSchedule | AdaptiveBeta, factor: float) -> float | BetaSchedule | AdaptiveBeta:
    if isinstance(beta, AdaptiveBeta):
        return beta.model_copy(update={"beta": beta.beta * factor})
    if isinstance(beta, BetaSchedule):
        end = None if beta.end is None else beta.end * factor
        return beta.model_copy(update={"start": beta.start * factor, "end": end})
    return beta * factor


def values_of(stage: Stage) -> dict[str, Any]:
    """The values of a stage that an attempt may change, as they stand in gate.json."""
    plain = stage.model_dump(mode="json")
    rates = {name: lora.learning_rate for name, lora in adapters_of(stage.lora).items() if isinstance(lora, DomainLora)}
    own = {f"lora.{name}.learning_rate": rate for name, rate in rates.items() if rate is not None}
    return {
        "learning_rate": stage.optim.learning_rate,
        **own,
        "beta": plain["dpo"]["beta"],
        "epochs": stage.optim.epochs,
        "replay": stage.replay.share if stage.replay else None,
    }


def judge(
    recipe: Recipe, stage: Stage, attempt: int, points: Mapping[str, Scores], kept: str, after: Scores
) -> GateResult:
    """The gate's decision on the dev items of `after`; `points` has the base and the last kept stage."""
    retries = stage.gate.retry.max - (attempt - 1) if stage.gate.retry else 0
    return decide(
        gate_before(stage, points, kept),
        only(after, "dev"),
        stage.gate,
        seed=recipe.seed,
        base=only(points["base"], "dev"),
        retries=retries,
    )


def tried(scale: float, result: GateResult) -> dict[str, Any]:
    """One scale of an adapter as it stands in gate.json, with the numbers of every rule."""
    record = result.record()
    return {"scale": scale, **{key: record[key] for key in ("outcome", "reasons", "rows")}}


def gate_record(
    point: str,
    stage: Stage,
    kept: str,
    result: GateResult,
    *,
    attempt: int,
    scale: float,
    tries: Sequence[Mapping[str, Any]],
    stopped: str | None,
    attempts: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The JSON object of gate.json.

    `stage` has the values of this attempt; `scale` is that of the adapter that was judged, `tries` are all scales that
    were looked at, `stopped` says why training ended early, and `attempts` are the gates of the attempts before.
    """
    return {
        "stage": point,
        "compared_with": stage.gate.against,
        "kept_before": kept,
        **result.record(),
        "attempt": attempt,
        "values": values_of(stage),
        "scale": scale,
        "tries": list(tries),
        "stopped": stopped,
        "attempts": list(attempts),
    }
