"""The lines of a model card's tables and lists, from the run's own records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.evaluation.items import task
from equipoise.exporting.choice import Chosen
from equipoise.exporting.metadata import LICENCES, asked_of
from equipoise.exporting.public import base_name, hub_id
from equipoise.recipe_evaluation import REWARDED, kind_of
from equipoise.records import Comparison
from equipoise.report import data, text, verdict
from equipoise.report.read import RunFiles, StageFiles
from equipoise.run_folder import read_json


def domain_row(row: Comparison) -> dict[str, Any]:
    """A domain of the verdict's table."""
    places = text.places_for(row.ci)
    low, high = (text.signed(end, places) for end in row.ci)
    return {
        "domain": row.domain,
        "before": f"{row.before:.{places}f}",
        "after": f"{row.after:.{places}f}",
        "difference": text.signed(row.difference, places),
        "interval": f"{low} to {high}",
        "n": row.n,
        "detectable": f"{row.detectable:.2g}",
        "verdict": row.verdict,
    }


def measured(chosen: Chosen, domain: str, n: int) -> str:
    """What a domain's score is and what was asked."""
    spec = chosen.recipe.evaluation.tasks.chosen()[domain]
    asked = "the embedded synthetic world" if spec.id == "pocket" else asked_of(spec, domain)
    return f"{domain}: {task(domain).value}, on {n} test questions of {asked}"


def sources(chosen: Chosen, files: RunFiles) -> list[dict[str, Any]]:
    """What the exported stages were trained on, one line for each source."""
    found: dict[str, dict[str, Any]] = {}
    for row in data.flow(files):
        line = found.setdefault(row.source, {"name": row.source, "available": row.available, "seen": 0})
        line["seen"] += row.seen or 0
    for name, line in found.items():
        spec = chosen.recipe.sources.get(name.partition(" ")[0])
        id = "pocket" if spec is not None and spec.kind == "pocket" else getattr(spec, "id", None)
        line["from"], line["licence"] = _origin(id)
        rows = files.ledger.get("sources", {}).get(name.partition(" ")[0], {})
        line["rows"], line["kind"] = rows.get("rows"), getattr(spec, "kind", "")
    return list(found.values())


def _origin(id: str | None) -> tuple[str, str]:
    """Where a source's rows come from, and under which licence."""
    if id is None:
        return "built-in questions", "see the answering model's licence"
    if id == "pocket":
        return "synthetic world of equipoise", LICENCES["pocket"]
    known = hub_id(id)
    if known is None:
        return f"local file {base_name(id)}", "not known"
    return f"https://huggingface.co/datasets/{known}", LICENCES.get(known, "see the data set's page")


def stage_row(chosen: Chosen, stage: StageFiles) -> dict[str, Any]:
    """A stage of the method's table: its settings, with what a retry or shrinking changed."""
    dpo, optim, lora = (stage.settings.get(part, {}) for part in ("dpo", "optim", "lora"))
    gate = read_json(chosen.run.folder / "stages" / stage.point / "gate.json")
    used = {**optim, "beta": dpo.get("beta"), **(gate.get("values") or {})}
    ranks = {"": lora} if "rank" in lora else lora
    scale = float(gate.get("scale") or 1.0)
    return {
        "name": stage.point,
        "loss": dpo.get("loss"),
        "beta": _said(used["beta"]),
        "reference": stage.settings.get("reference"),
        "rank": _each(ranks, "rank", 1.0),
        "alpha": _each(ranks, "alpha", scale),
        "learning_rate": _said(used.get("learning_rate")),
        "epochs": _said(used.get("epochs")),
        "batch_size": optim.get("batch_size"),
        "steps": len(stage.steps),
        "gate": stage.gate.outcome if stage.gate else "none",
    }


def _each(loras: Mapping[str, Any], key: str, scale: float) -> str:
    """A value of every adapter of a stage, with its domain where there are several."""
    return ", ".join(f"{domain} {scale * spec[key]:g}".strip() for domain, spec in loras.items())


def _said(value: Any) -> str:
    """A setting: a number, or the parts of a schedule."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def reasons(stage: StageFiles) -> list[str]:
    """What a stage's gate said."""
    return list(stage.gate.reasons) if stage.gate else []


def limits(chosen: Chosen, files: RunFiles, warnings: list[str]) -> list[str]:
    """What one must not overlook: the report's warnings first."""
    graded = [name for name in files.compared if kind_of(name) in REWARDED]
    reward = chosen.recipe.reward
    found = list(warnings)
    if graded and reward is not None:
        models = text.listed([base_name(member.id) for member in reward.members])
        found.append(
            f"{text.listed(graded)}: the score is that of a reward model ({models}), not of people; a model can learn "
            "what a reward model likes."
        )
    unseen = [f"{name} {row.detectable:.2g}" for name, row in files.compared.items()]
    if unseen:
        found.append(f"Smaller changes than these would mostly have gone unseen (80% power): {text.listed(unseen)}.")
    untold = "Domains that are not in the table were not measured: they may have become better or worse."
    return [*found, untold, *verdict.how_sure(files)]
