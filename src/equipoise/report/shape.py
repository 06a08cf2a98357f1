"""Checks that the files of a run have the shape that the page relies on; raises InputError where not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from equipoise.evaluation.compare import Verdict
from equipoise.records import Comparison, Health, InputError, Score

SPREAD = ("smallest", "lower", "median", "upper", "largest")
"""The five numbers of a spread, in order."""


def mapping(value: Any, where: str = "") -> dict[str, Any]:
    """A JSON object."""
    if not isinstance(value, dict):
        raise InputError(f"{where or 'it'} is not a JSON object")
    return value


def number(value: Any, where: str) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{where} is not a number")
    return value


def numbers(record: Mapping[str, Any], *keys: str) -> None:
    """All of `keys` are there and are numbers."""
    for key in keys:
        number(record.get(key), key)


def recipe(value: Any) -> dict[str, Any]:
    """A resolved recipe: the parts that the page reads are where they belong."""
    found = mapping(value)
    number(found.get("seed", 0), "seed")
    mapping(found.get("model", {}), "model")
    mapping(found.get("sources", {}), "sources")
    evaluation = mapping(found.get("evaluation", {}), "evaluation")
    mapping(evaluation.get("tasks", {}), "evaluation.tasks")
    number(evaluation.get("confidence", 0.95), "evaluation.confidence")
    if not isinstance(found.get("stages", []), list):
        raise InputError("stages is not a list")
    for stage in found.get("stages", []):
        for part in ("mix", "dpo", "optim", "lora", "gate"):
            mapping(mapping(stage, "stages").get(part, {}), f"stages.{part}")
    return found


def ledger(value: Any) -> dict[str, Any]:
    """A ledger of this or another version: what an older one does not have is absent, never zero."""
    found = mapping(value)
    for name, line in mapping(found.get("sources", {}), "sources").items():
        where = f"sources.{name}"
        _line(line, where, ("rows", "available"), ("malformed", "cleaned", "unpaired", "lengths"))
        _known_numbers(line, where, ("held_out", "spread"))
        for key in ("score_gaps", "reward_gaps"):
            _spread(line.get(key), f"{where}.{key}")
    for name, stage in mapping(found.get("stages", {}), "stages").items():
        number(mapping(stage, f"stages.{name}").get("epochs"), f"stages.{name}.epochs")
        for source, line in mapping(stage.get("sources", {}), f"stages.{name}.sources").items():
            where = f"stages.{name}.{source}"
            required = ("asked", "available", "drawn", "repeated")
            _line(line, where, required, ("unusable", "too_long", "lengths", "tokens"))
            _known_numbers(line, where, ("after_truncation", "prompts_cut", "seen", "set_apart"))
    return found


def _line(line: Any, where: str, required: tuple[str, ...], counts: tuple[str, ...]) -> None:
    numbers(mapping(line, where), *required)
    for key in counts:
        for name, value in mapping(line.get(key) or {}, f"{where}.{key}").items():
            number(value, f"{where}.{key}.{name}")


def _known_numbers(line: Mapping[str, Any], where: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if line.get(key) is not None:
            number(line[key], f"{where}.{key}")


def _spread(value: Any, where: str) -> None:
    """Five numbers in order, and of how many they are; or nothing."""
    if value is not None:
        number(mapping(value, where).get("n"), f"{where}.n")
        five = [number(value.get(key), f"{where}.{key}") for key in SPREAD]
        if five != sorted(five):
            raise InputError(f"{where} is not in order")


PARTS = ("sources", "adapters")
"""What a line of train.jsonl says of parts of a batch: by source, and by domain where each has its own adapter."""


def step(value: Any) -> dict[str, Any]:
    """A line of train.jsonl: every figure is a number."""
    found = mapping(value)
    numbers(found, "step")
    rows = [row for part in PARTS for row in mapping(found.get(part, {}), part).values()]
    for key, figure in [*found.items(), *(pair for row in rows for pair in mapping(row).items())]:
        if key not in PARTS:
            number(figure, key)
    return found


def one_of(value: Any, known: tuple[str, ...]) -> Any:
    """One of the words that the page has a form for."""
    if value not in known:
        raise InputError(f"{value!r} is none of {', '.join(known)}")
    return value


def comparisons(value: Any) -> dict[str, dict[str, Comparison]]:
    """comparison.json: point -> domain -> comparison."""
    found: dict[str, dict[str, Comparison]] = {}
    for point, domains in mapping(value).items():
        found[point] = {domain: comparison(mapping(row, domain)) for domain, row in mapping(domains, point).items()}
    return found


def comparison(row: dict[str, Any]) -> Comparison:
    """A comparison of this or another version: fields that are not known are left out, health may be absent."""
    numbers(row, "before", "after", "difference", "p_value", "p_holm", "n", "unscored", "detectable")
    numbers(row, *(key for key in ("margin", "noise", "lost") if row.get(key) is not None))
    pairs = {
        part: {key: interval(pair) for key, pair in mapping(row.get(part) or {}, part).items()}
        for part in ("health", "metrics")
    }
    intervals = {key: interval(row[key]) for key in ("ci", "bootstrap") if row.get(key) is not None}
    said = {"margin": row.get("margin"), "verdict": one_of(row["verdict"], get_args(Verdict))}
    return Comparison(**{**of_this_version(Comparison, row), **pairs, **intervals, **said})


def of_this_version(kind: type, record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record that its class has: another version may write more."""
    known = {field.name for field in fields(kind)}
    return {key: value for key, value in record.items() if key in known}


def interval(value: Any) -> tuple[float, float]:
    """Two numbers."""
    low, high = value
    return number(low, "an interval's end"), number(high, "an interval's end")


def noise(value: Any) -> dict[str, dict[str, float]]:
    """noise.json of a run: what repeating the measurement of the base moves, by domain."""
    found = mapping(value)
    for domain, record in found.items():
        numbers(mapping(record, domain), "repeats", "n", "spread", "limit", "moved")
    return found


def start(value: Any) -> dict[str, Any]:
    """start.json of a stage: what it was trained on top of, and what DPO measured against."""
    found = mapping(value)
    if not isinstance(found.get("stack", []), list):
        raise InputError("stack is not a list")
    return found


NO_HEALTH = Health(empty=False, cut_off=False, repeated=False, words=0)
"""Of a score without health figures, or with those of another version: this very object says that nothing is known."""
_REQUIRED = ("id", "task", "group", "split", "answers", "value")
_OPTIONAL = ("content", "category", "unscored", "metrics")
_HEALTH = ("empty", "cut_off", "repeated", "words")


def score(record: Mapping[str, Any]) -> Score:
    """A score whose figures are numbers and whose texts are texts; quick, since a run has tens of thousands.

    Fields that are not known are left out, those that can be done without may be absent.
    """
    told = {key: record[key] for key in _REQUIRED} | {key: record[key] for key in _OPTIONAL if key in record}
    answers = tuple(told["answers"])
    found = Score(**{"content": "", "category": "", **told, "answers": answers, "health": _health(record)})
    figures = [found.value or 0.0, found.health.words, *found.metrics.values()]
    if not (set(map(type, figures)) <= {int, float} and all(map(math.isfinite, figures))):
        raise InputError(f"score {found.id}: a figure is not a number")
    if set(map(type, (found.id, found.task, found.group, found.category, *found.answers))) != {str}:
        raise InputError(f"score {found.id}: a text is expected")
    return found


def _health(record: Mapping[str, Any]) -> Health:
    found = record.get("health")
    if not isinstance(found, dict) or not all(key in found for key in _HEALTH):
        return NO_HEALTH
    return Health(**{key: found[key] for key in _HEALTH} | {"switched": found.get("switched", False)})


def verdict(value: Any) -> dict[str, Any]:
    """verdict.json: which point it describes, and which one was kept."""
    found = mapping(value)
    for key in ("kept_stage", "point"):
        if not isinstance(found.get(key, ""), str):
            raise InputError(f"{key} is not the name of a point")
    mapping(found.get("unmeasured") or {}, "unmeasured")
    return found
