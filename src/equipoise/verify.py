"""`equipoise verify`: every figure of a run computed again from its item records, every file by its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.data.ledger import Ledger
from equipoise.data.tables import read_pairs
from equipoise.evaluation.health import health
from equipoise.evaluation.items import splits, task
from equipoise.evaluation.tasks.base import Evidence
from equipoise.model.generate import Answer
from equipoise.outcome import Scores, comparison_json, noise_in, verdict_json
from equipoise.recipe import Recipe
from equipoise.recipe_file import fingerprint_of, stored_recipe
from equipoise.records import InputError, Item, Score, Split
from equipoise.run_folder import Run, hashes, read_json, read_lines
from equipoise.verify_stages import decided_again, stage_ledgers


def verify(run: Run) -> list[str]:
    """Return one sentence for each difference between what a run says and what its records give.

    Raises InputError where the folder is not a finished run.
    """
    if not run.finished:
        raise InputError(f"{run.folder}: this run is not finished; continue it with --resume {run.folder}")
    problems = _changed_files(run.folder)
    try:
        return problems + _recomputed(run)
    except (InputError, KeyError, TypeError, ValueError, OSError) as error:  # what was changed cannot even be read
        return [*problems, f"a file cannot be understood, so the figures were not computed again: {error!r}"]


def _recomputed(run: Run) -> list[str]:
    """Differences between the stored figures and those that the item records give."""
    stored = read_json(run.folder / "recipe.json")
    recipe = stored_recipe(stored)
    problems = []
    if stored.get("fingerprint") != fingerprint_of(stored):
        problems.append("recipe.json: its fingerprint is not that of its content")
    points = {point: run.scores(point) for point in run.points()}
    problems += _item_records(run, recipe, points)
    problems += _ledger(run, recipe)
    gates, decided, kept = decided_again(run, recipe, points)
    for name, gate in decided.items():
        problems += _differences(name, read_json(run.folder / name), gate)
    found = noise_in(recipe, run, points["base"])
    if found and (run.folder / "noise.json").is_file():  # that it is missing is said by its hash
        again = {name: one.record() for name, one in found.items()}
        problems += _differences("noise.json", read_json(run.folder / "noise.json"), again)
    comparisons = comparison_json(recipe, points, found)
    problems += _differences("comparison.json", read_json(run.folder / "comparison.json"), comparisons)
    verdict = verdict_json(comparisons, points, gates, kept)
    problems += _differences("verdict.json", read_json(run.folder / "verdict.json"), verdict)
    return problems


def _changed_files(folder: Path) -> list[str]:
    """Files that are missing, changed or new since the run ended."""
    done = read_json(folder / "done")
    expected = done.get("files") if isinstance(done, dict) else None
    if not isinstance(expected, dict):
        return ["done: does not hold the hashes of the run's files"]
    now = hashes(folder)
    problems = [f"{name}: missing" for name in expected if name not in now]
    problems += [f"{name}: not there when the run ended" for name in now if name not in expected]
    changed = [name for name in now if name in expected and now[name] != expected[name]]
    return problems + [f"{name}: changed since the run ended (its hash differs)" for name in changed]


def _item_records(run: Run, recipe: Recipe, points: Mapping[str, Scores]) -> list[str]:
    """Every score against its item: content, split, health of its answers, and the value where no model gave it."""
    problems = []
    for name in recipe.evaluation.tasks.chosen():
        path = run.folder / "items" / f"{name}.jsonl"
        items = {record["id"]: Item.from_record(record) for record in read_lines(path)}
        sides = splits((item.group for item in items.values()), recipe.evaluation.dev_share)
        for point, scores in points.items():
            for score in scores.get(name, []):
                fault = _fault(score, items.get(score.id), sides)
                problems += [f"scores/{point}/{name}.jsonl: item {score.id}: {fault}"] if fault else []
    return problems


def _fault(score: Score, item: Item | None, sides: Mapping[str, Split]) -> str | None:
    """What a record says that its item and its answers do not give."""
    if item is None or item.content != score.content:
        return "it is not the item of items/"
    if (score.group, score.split) != (item.group, sides[item.group]):
        return "its group or split is not that of the item"
    if score.answers and health(score.answers, score.health.cut_off, item.question) != score.health:
        return "its health figures are not those of its answers"
    found = task(score.task)
    if found.needs != {"answers"} or not score.answers:
        return None
    outcome = found.score(item, Evidence([Answer(text, 0, score.health.cut_off) for text in score.answers]))
    same = (outcome.value, dict(outcome.metrics)) == (score.value, dict(score.metrics))
    return None if same else f"its value is {score.value}, its answer gives {outcome.value}"


def _ledger(run: Run, recipe: Recipe) -> list[str]:
    """The ledger's counts against the recipe, the pairs in the run folder, and what training says it saw."""
    ledger = Ledger.from_record(read_json(run.folder / "data" / "ledger.json"))
    problems = []
    for name, line in ledger.sources.items():
        if line.assumed:
            continue  # its stage was never reached
        count = len(read_pairs(run.folder / "data" / f"{name}.parquet"))
        kept_out = run.folder / "data" / "held_out" / f"{name.partition('@')[0]}.parquet"
        held_out = len(read_pairs(kept_out)) if line.held_out else 0
        dropped = sum(sum(reasons.values()) for reasons in (line.malformed, line.cleaned, line.unpaired))
        if (line.available, line.held_out, line.rows) != (count, held_out, dropped + held_out + count):
            problems.append(
                f"data/ledger.json: source {name}: its counts do not add up to the {count} pairs in its file"
            )
    return problems + stage_ledgers(run, recipe, ledger)


def _differences(name: str, stored: Any, computed: Any, where: str = "") -> list[str]:
    """Places where two JSON values differ, to the last bit."""
    computed = json.loads(json.dumps(computed))
    if isinstance(stored, dict) and isinstance(computed, dict):
        keys = sorted(stored.keys() | computed.keys())
        return [
            problem
            for key in keys
            for problem in _differences(name, stored.get(key), computed.get(key), f"{where}.{key}" if where else key)
        ]
    if isinstance(stored, list) and isinstance(computed, list) and len(stored) == len(computed):
        pairs = enumerate(zip(stored, computed, strict=True))
        return [problem for i, (one, other) in pairs for problem in _differences(name, one, other, f"{where}.{i}")]
    return [] if stored == computed else [f"{name}: {where}: says {stored!r}, the records give {computed!r}"]
