"""The pocket twin of a recipe: the same experiment on the embedded model and its world, small enough for a minute.

What makes an experiment what it is stays: its stages and their order, shares, losses, betas, references, gates, ranks,
epochs. What belongs to a size changes by one rule (docs/original-recipes.md):

- a stage has a batch of 16 pairs, and so many fewer pairs that its epochs give the optimiser steps that the original
  stage has; a stage of more than 32 steps is shortened to 32, and no stage has fewer than 32 or more than 800 pairs;
- learning rates are multiplied by 150, and every linear layer is adapted: a model of a million parameters needs rates
  near 7e-4, and its queries and values alone hardly move;
- model, reward model, sources and tasks are those of the embedded world; rules about the length of real texts go.

Pure: the same recipe gives the same twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.data.mix import allocate
from equipoise.dpo.schedule import steps
from equipoise.recipe import Optim
from equipoise.records import InputError

POCKET = "pocket"
BATCH = 16
"""Pairs per optimiser step."""
MOST_STEPS = 32
"""Optimiser steps of a stage, at most."""
PAIRS = (32, 800)
"""Pairs of a stage, at least and at most."""
RATE = 150.0
"""Factor of the learning rate; a recipe for the embedded model keeps its own."""
LENGTHS = {"max_length": 512, "max_prompt_length": 384}
ANSWER = 48
"""Longest sampled answer in tokens."""
LIMITS = {"tatqa": 200, "mt_bench": 80, "finance_instruct": 120, "reddit": 120}
"""Tasks of the embedded world, and how many items: the same for every twin, so that twins can be compared."""
DOMAINS = ("general", "finance", "reddit")
ROWS = {"reddit": 2500, "finance_instruct": 2000}
"""Rows of the world, enough for the largest stage (the filter for hard questions keeps one in five); else 1000."""
KEPT = {
    "orca": ("domain", "hold_out"),
    "reddit": ("domain", "hold_out", "rule", "score", "min_gap", "margin", "fallback", "balance_length"),
    "finance_instruct": ("domain", "hold_out", "rejected", "complexity_filter", "sampling"),
    "on_policy": ("hold_out", "sampling"),
    "mt_bench_style": ("domain", "hold_out", "turns", "policies", "ranking"),
}
"""Options of a source that its twin keeps; the others are about files or about the length of real texts."""


def twin(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The twin of a recipe, both as plain values.

    Raises InputError where the embedded world has rows for none of the recipe's tasks.
    """
    factor = 1.0 if recipe["model"]["id"] == POCKET else RATE
    sources = {name: _source(spec) for name, spec in recipe["sources"].items()}
    domains = {spec["domain"]: sources[name]["domain"] for name, spec in recipe["sources"].items() if "domain" in spec}
    stages = [_stage(stage, factor, domains) for stage in recipe["stages"]]
    tasks = _tasks(recipe["evaluation"]["tasks"])
    if not tasks:
        raise InputError(f"{recipe['name']}: the embedded world has no rows for its tasks; known: {', '.join(LIMITS)}")
    stages = [{**stage, **_gate(stage, tasks)} for stage in stages]
    evaluation = {key: value for key, value in recipe["evaluation"].items() if key not in ("judge", "generation")}
    return {
        "name": f"{recipe['name'][:73]}-pocket",
        "seed": recipe.get("seed", 0),
        "model": {"id": POCKET},
        "reward": {"id": POCKET},
        "sources": sources,
        "stages": stages,
        "evaluation": {**evaluation, "tasks": tasks, "generation": _generation(recipe)},
    }


def title(question: str, name: str) -> str:
    """The first line of the twin of recipe `name`, which asks `question`."""
    return f"{question} (The pocket twin of {name}.)"


def scaled(counts: Mapping[str, int], optim: Mapping[str, Any]) -> dict[str, int]:
    """Pairs of each source in the twin of a stage: the same shares, by largest remainder, at least one of each."""
    default = Optim()
    pairs, epochs = sum(counts.values()), optim.get("epochs", default.epochs)
    before = steps(pairs, epochs, optim.get("batch_size", default.batch_size))
    wanted = pairs * BATCH / optim.get("batch_size", default.batch_size) * min(1.0, MOST_STEPS / before)
    # Rounded down, so that a part of a pair does not begin a step beyond the last one.
    total = min(max(int(wanted), PAIRS[0]), PAIRS[1])
    found = allocate({name: count / pairs for name, count in counts.items()}, total)
    return {name: max(1, count) for name, count in found.items()}


def _counts(mix: Mapping[str, Any]) -> dict[str, int]:
    return dict(mix["counts"]) if "counts" in mix else allocate(dict(mix["shares"]), mix["pairs"])


def _stage(stage: Mapping[str, Any], factor: float, domains: Mapping[str, str]) -> dict[str, Any]:
    optim = stage.get("optim", {})
    counts = scaled(_counts(stage["mix"]), optim)
    amount = {"counts": counts} if "counts" in stage["mix"] else {"pairs": sum(counts.values())}
    rate = _rate(optim.get("learning_rate", Optim().learning_rate), factor)
    kept = {key: value for key, value in optim.items() if key not in ("micro_batch_tokens", "optimizer")}
    changed = {
        "mix": {**stage["mix"], **amount},
        "dpo": {**stage.get("dpo", {}), **LENGTHS},
        "optim": {**kept, "learning_rate": rate, "batch_size": BATCH},
    }
    if "lora" in stage:
        changed["lora"] = _lora(stage["lora"], factor, domains)
    return {**stage, **changed}


def _lora(lora: Mapping[str, Any], factor: float, domains: Mapping[str, str]) -> dict[str, Any]:
    """The adapter, or the adapters of domains, on every linear layer, with the rates and domains of the twin."""
    if any(isinstance(value, Mapping) for value in lora.values()):
        return {domains.get(domain, domain): _lora(one, factor, domains) for domain, one in lora.items()}
    kept = {key: value for key, value in lora.items() if key != "target_modules"}
    return {**kept, "learning_rate": _rate(kept["learning_rate"], factor)} if kept.get("learning_rate") else kept


def _rate(rate: float, factor: float) -> float:
    return float(f"{factor * rate:.3g}")


def _gate(stage: Mapping[str, Any], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """The stage's gate without rules about domains that the embedded world does not have."""
    if "gate" not in stage:
        return {}
    rules = {
        kind: {key: value for key, value in stage["gate"][kind].items() if key.partition(".")[0] in tasks}
        for kind in ("improve", "hold", "health")
        if kind in stage["gate"]
    }
    return {"gate": {**stage["gate"], **rules}}


def _source(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The source with the world's rows."""
    kind = spec["kind"]
    if kind in KEPT:
        kept = {key: _of_pocket(key, spec[key]) for key in KEPT[kind] if key in spec}
        known = {"domain": _domain(spec)} if kind == "on_policy" else {}
        return {"kind": kind, "id": POCKET, "rows": ROWS.get(kind, 1000), **known, **kept}
    domain = _domain(spec)
    return {"kind": POCKET, "domain": domain, "rows": ROWS.get(domain, 1000), **_only(spec, "hold_out")}


def _domain(spec: Mapping[str, Any]) -> str:
    return spec["domain"] if spec.get("domain") in DOMAINS else DOMAINS[0]


def _of_pocket(key: str, value: Any) -> Any:
    """An option of a source, with the embedded model's lengths and the embedded model as the one that answers."""
    if key in ("sampling", "ranking"):
        return {**_only(value, "samples", "temperature", "seed", "min_gap"), "max_new_tokens": ANSWER}
    if key == "policies":
        return [_only(policy, "temperature") for policy in value]
    return value


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    layout = {"tatqa": {"layout": "cells"}}
    return {
        name: {"id": POCKET, "limit": limit, **layout.get(name, {}), **_only(tasks[name], "margin")}
        for name, limit in LIMITS.items()
        if name in tasks
    }


def _generation(recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {**_only(recipe["evaluation"].get("generation", {}), "temperature"), "max_new_tokens": 64, "batch_size": 128}


def _only(value: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value[key] for key in keys if key in value}
