"""The bodies of the commands that measure: `eval`, `compare`, `audit-table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from equipoise import console
from equipoise.cli_base import print_json
from equipoise.commands import find_recipe, quiet, recipe_folder
from equipoise.console_scores import noise_table, score_tables
from equipoise.recipe_evaluation import Evaluation, Generation
from equipoise.recipe_file import load_recipe, parse_evaluation
from equipoise.recipe_parts import ModelSpec, RewardSpec
from equipoise.recipe_sources import Source
from equipoise.records import InputError, Score
from equipoise.run_folder import noise_limits, write_json, write_scores

NOISE = "noise.json"
DEFAULT_TASKS = ("tatqa", "mt_bench", "finance_instruct", "reddit")
LONGEST = {"tatqa": 128, "mt_bench": 512, "finance_instruct": 512, "reddit": 256, "ifeval": 1024}
"""Longest answers in tokens where no recipe says another number."""


@dataclass(frozen=True)
class EvalOptions:
    """What the command line of `eval` says."""

    model: str
    adapters: Sequence[Path]
    tasks: Sequence[str]
    recipe: Path | None
    rewards: Sequence[str]
    limit: int | None
    repeats: int | None
    server: str | None
    overrides: Sequence[str]


def eval_command(asked: EvalOptions, out: Path | None, as_json: bool) -> None:
    """Score a model and write or print the result."""
    quiet()
    if out and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: this is a file; name a folder")
    loaded = load_recipe(find_recipe(asked.recipe)) if asked.recipe else None
    base = loaded.evaluation.model_dump(mode="json") if loaded else default_evaluation(asked.model, asked.tasks)
    evaluation = _chosen(base, asked)
    sources: Mapping[str, Source] = loaded.sources if loaded else {}
    spec = loaded.model if loaded and loaded.model.id == asked.model else ModelSpec(id=asked.model)
    from equipoise import api
    from equipoise.evaluation.evaluate import rewarded
    from equipoise.model.adapters import of_another_base
    from equipoise.outcome import noise_of_scores

    judge = _reward(asked.rewards, loaded.reward if loaded else None, asked.model)
    needed = [name for name in evaluation.tasks.chosen() if rewarded(name, evaluation)]
    if needed and judge is None:
        raise InputError(f"--reward: name the reward model that scores {', '.join(needed)}")
    with console.Terminal() as display:
        for sentence in of_another_base(spec.id, asked.adapters):
            display.say(f"warning: {sentence}")
        measured = api.evaluate_again(
            spec, evaluation, reward=judge, adapters=asked.adapters, sources=sources, display=display
        )
    noise = noise_of_scores(measured, confidence=evaluation.confidence)
    if out:
        write_scores(out, measured[0])
        if noise:
            write_json(out / NOISE, noise)
    _show(f"Scores of {asked.model}", measured[0], noise, as_json)


def _show(title: str, scores: Mapping[str, list[Score]], noise: Mapping[str, Any], as_json: bool) -> None:
    from equipoise.outcome import by_category, summary

    rows = {name: summary(records) for name, records in scores.items()}
    categories = {name: by_category(records) for name, records in scores.items()}
    if as_json:
        shown = {name: {**row, "categories": categories[name]} for name, row in rows.items()}
        print_json({name: {**row, **({"noise": noise[name]} if name in noise else {})} for name, row in shown.items()})
        return
    score_tables(title, rows, categories)
    noise_table(noise)


def _reward(named: Sequence[str], of_recipe: RewardSpec | None, model: str) -> RewardSpec | None:
    """The reward model: those named (several are an ensemble), else the recipe's, else the embedded one of `pocket`."""
    if named:
        try:
            return RewardSpec(id=named[0], also=tuple(RewardSpec(id=id) for id in named[1:]))
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise InputError(f"--reward: {said}") from None
    return of_recipe or (RewardSpec(id="pocket") if model == "pocket" else None)


def _chosen(base: Mapping[str, Any], asked: EvalOptions) -> Evaluation:
    """The evaluation with what the command line says."""
    known: dict[str, Any] = base["tasks"]
    unknown = [name for name in asked.tasks if name not in known]
    if unknown:
        raise InputError(f"--task {unknown[0]}: not among the tasks of the recipe: {', '.join(known)}")
    tasks = {name: spec for name, spec in known.items() if name in (asked.tasks or known)}
    if asked.limit:
        tasks = {name: {**spec, "limit": asked.limit} for name, spec in tasks.items()}
    record: dict[str, Any] = {**base, "tasks": tasks}
    record |= {"repeats": asked.repeats} if asked.repeats else {}
    if asked.server:
        served = {"url": asked.server, "model": asked.model}
        record["generation"] = {**record["generation"], "backend": "openai", "server": served}
    return parse_evaluation(record, asked.overrides)


def default_evaluation(model: str, task: Sequence[str]) -> dict[str, Any]:
    """The named tasks (else four) with their defaults; the embedded model is asked about its own world."""
    if model == "pocket" and set(task) <= set(DEFAULT_TASKS):
        return load_recipe(recipe_folder() / "pocket.yaml").evaluation.model_dump(mode="json")
    named: dict[str, Any] = {name: {} for name in task or DEFAULT_TASKS}
    return {"tasks": named, "generation": Generation(max_new_tokens=LONGEST).model_dump(mode="json")}


def compare_command(before: Path, after: Sequence[Path], split: str, confidence: float, as_json: bool) -> None:
    """Compare one place with each of the others."""
    if split not in ("all", "dev", "test"):
        raise InputError(f"--split {split}: one of all, dev, test")
    from equipoise import api
    from equipoise.evaluation.stats_words import sentence

    found = {
        str(place): api.compare(before, place, split=split, confidence=confidence, noise=_noise(before, place, split))
        for place in after
    }
    if as_json:
        print_json({place: {domain: asdict(row) for domain, row in rows.items()} for place, rows in found.items()})
        return
    for place, rows in found.items():
        console.verdict_table(
            {domain: asdict(row) for domain, row in rows.items()}, f"{before} against {place} ({split} items)"
        )
        for row in rows.values():
            print(sentence(row, confidence=confidence))


def _noise(before: Path, after: Path, split: str) -> dict[str, float]:
    """The larger noise that either side knows of, by domain."""
    found: dict[str, float] = {}
    for path in (before / NOISE, after / NOISE):
        for domain, limit in (noise_limits(path, split) if path.is_file() else {}).items():
            found[domain] = max(limit, found.get(domain, 0.0))
    return found


def audit_table_command(file: Path, as_json: bool) -> None:
    """Say which claims of a table of published figures could be told from noise."""
    from equipoise.evaluation import audit

    findings = audit.audit(audit.read_table(file))
    if as_json:
        print_json([finding.record() for finding in findings])
        return
    console.table(f"Claims of {file}", audit.COLUMNS, audit.rows_for_terminal(findings))
    for said in (*map(audit.sentence, findings), *audit.oddities(findings), audit.summary(findings)):
        print(said)
