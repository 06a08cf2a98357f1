"""The YAML on top of a model card, as the hub reads it: base, licence, data, results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.repocard import metadata_load

from equipoise.evaluation.items import task
from equipoise.evaluation.stats_words import decimals
from equipoise.exporting.choice import Chosen
from equipoise.exporting.public import hub_id
from equipoise.recipe_evaluation import TaskSpec, kind_of
from equipoise.records import Comparison

LICENCES = {
    "Intel/orca_dpo_pairs": "apache-2.0",
    "Anthropic/hh-rlhf": "mit",
    "pocket": "apache-2.0",
}
"""Data sets whose licence is known here for certain, as the hub names it. All others: see their page."""
_APACHE = ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B", "pocket")
_WORLD = "the embedded synthetic world of equipoise"
METRIC_TYPES = {
    "tatqa": "exact_match",
    "ifeval": "accuracy",
    "preference_accuracy": "accuracy",
    "lm_eval": "score",
}
"""What the hub calls a task's value; the others are scored by a reward model."""


def metadata(chosen: Chosen, folder: Path, rows: Mapping[str, Comparison], *, merged: bool, name: str) -> ModelCardData:
    """Return the card's metadata; `folder` is that of the base model, `rows` are the comparisons by domain."""
    id, card = chosen.recipe.model.id, _base_card(folder)
    base = hub_id(id)
    datasets = {hub_id(getattr(source, "id", None)) for source in chosen.sources().values()} - {None}
    relation: dict[str, Any] = {"base_model_relation": "finetune" if merged else "adapter"} if base else {}
    tags = ["dpo", "lora", "equipoise", "preference-optimization", "conversational"]
    return ModelCardData(
        base_model=base,
        library_name="transformers" if merged else "peft",
        pipeline_tag="text-generation",
        license=licence(id, folder),
        license_name=card.get("license_name"),
        license_link=card.get("license_link"),
        language=["en"] if id == "pocket" else card.get("language"),
        datasets=sorted(str(id) for id in datasets) or None,
        tags=tags,
        model_name=name,
        eval_results=[result for domain, row in rows.items() for result in _results(chosen, domain, row)] or None,
        **relation,
    )


def licence(id: str, folder: Path) -> str:
    """Return the base model's licence as its own card gives it or as it is known here; else `unknown`."""
    found = "apache-2.0" if id in _APACHE else _base_card(folder).get("license")
    return found if isinstance(found, str) else "unknown"


def asked_of(spec: TaskSpec, domain: str) -> str:
    """Return the id of the data set that a domain's questions come from, or the file's name."""
    id = "equipoise-pocket" if spec.id == "pocket" else spec.id or task(domain).default_id
    return hub_id(id) or (Path(id).name if id else domain)


def _base_card(folder: Path) -> Mapping[str, Any]:
    """The metadata of the base model's own card, where its folder has one."""
    path = folder / "README.md"
    found = metadata_load(path) if path.is_file() else None
    return found or {}


def _results(chosen: Chosen, domain: str, row: Comparison) -> list[EvalResult]:
    """The score of the export, and its difference to the base model with the interval in its name."""
    spec: TaskSpec = chosen.recipe.evaluation.tasks.chosen()[domain]
    asked = asked_of(spec, domain)
    places, kind = decimals(row.ci), METRIC_TYPES.get(kind_of(domain), "reward")
    low, high = row.ci
    interval = f"{chosen.recipe.evaluation.confidence * 100:g}% interval {low:+.{places}f} to {high:+.{places}f}"
    common: dict[str, Any] = {
        "task_type": "text-generation",
        "task_name": domain,
        "dataset_type": asked,
        "dataset_name": f"{_WORLD if spec.id == 'pocket' else asked} ({row.n} questions of the run's test half)",
        "dataset_config": domain,
        "dataset_split": None if spec.id == "pocket" else spec.split or task(domain).default_split or None,
        "dataset_revision": spec.revision,
    }
    return [
        EvalResult(metric_type=kind, metric_name=task(domain).value, metric_value=round(row.after, 6), **common),
        EvalResult(
            metric_type="difference",
            metric_name=f"difference to the base model ({interval}; {row.verdict})",
            metric_value=round(row.difference, 6),
            **common,
        ),
    ]
