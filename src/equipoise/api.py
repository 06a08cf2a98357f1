"""The Python interface: what the commands do, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.evaluation.compare import compare as compare_scores
from equipoise.outcome import only
from equipoise.progress import Display, Silent
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import Evaluation
from equipoise.recipe_parts import ModelSpec, RewardSpec
from equipoise.recipe_sources import Source
from equipoise.records import Comparison, InputError, Score
from equipoise.run_folder import Run, read_json, read_scores


def run(
    recipe: Recipe,
    *,
    out: str | Path = "runs",
    name: str | None = None,
    text: str | None = None,
    resume: bool = False,
    display: Display | None = None,
) -> Any:
    """Run an experiment in the folder `out/name`; returns an `equipoise.stages.Outcome`.

    `text` is the recipe as it was written (default: its JSON, which is YAML too).
    """
    from equipoise.report.html import write_report
    from equipoise.stages import run_recipe

    folder = Path(out) / (name or recipe.name)
    written = text if text is not None else recipe.model_dump_json(indent=1)
    return run_recipe(recipe, written, Run(folder), display or Silent(), resume=resume, report=write_report)


def plan(
    recipe: Recipe, *, measure: bool = False, gpu: float | None = None, display: Display | None = None
) -> dict[str, Any]:
    """What a run of `recipe` would do: counts, tokens, memory, time, detectable effects, problems.

    `gpu` forecasts memory for a CUDA GPU of so many GiB, which need not be here.
    """
    from equipoise.planning import make_plan

    return make_plan(recipe, measure=measure, gpu=gpu, display=display or Silent())


def evaluate(
    model: ModelSpec,
    evaluation: Evaluation,
    *,
    reward: RewardSpec | None = None,
    adapters: Sequence[str | Path] = (),
    sources: Mapping[str, Source] | None = None,
    seed: int = 0,
    display: Display | None = None,
) -> dict[str, list[Score]]:
    """Scores of a model, with adapters on top of each other, on the tasks of `evaluation`.

    `sources` are those whose held-out pairs a `preference_accuracy` task names.
    """
    once = evaluation.model_copy(update={"repeats": 1})
    return evaluate_again(model, once, reward=reward, adapters=adapters, sources=sources, seed=seed, display=display)[0]


def evaluate_again(
    model: ModelSpec,
    evaluation: Evaluation,
    *,
    reward: RewardSpec | None = None,
    adapters: Sequence[str | Path] = (),
    sources: Mapping[str, Source] | None = None,
    seed: int = 0,
    display: Display | None = None,
) -> list[dict[str, list[Score]]]:
    """The same, `evaluation.repeats` times: the first are the scores, the others say how noisy they are."""
    from equipoise.evaluation.evaluate import rewarded
    from equipoise.evaluation.items import load_items
    from equipoise.measure import Measurement, load_reward, measure_model
    from equipoise.store import Store

    shown, store = display or Silent(), Store()
    items = {name: load_items(name, spec, sources) for name, spec in evaluation.tasks.chosen().items()}
    needed = any(rewarded(name, evaluation) for name in items)
    judge = load_reward(reward, store, shown) if needed else None
    measurement = Measurement(items, evaluation, judge, model, seed, store, shown)
    return measure_model(measurement, [Path(folder) for folder in adapters], repeats=evaluation.repeats)


def export(
    run: str | Path | Run,
    to: str | Path,
    merge: bool = False,
    *,
    separate: bool = False,
    gguf: bool = False,
    stage: str | None = None,
    push: str | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Write what a finished run kept to the folder `to`: an adapter, or with `merge` (or `gguf`) the whole model.

    Returns what `export.json` says, with the figures of the check. Raises InputError for what you can mend and
    `equipoise.exporting.failure.ExportFailed` where the export is not the model that was evaluated.
    """
    from equipoise.exporting.export import Form, export_run

    if separate and (merge or gguf):
        raise InputError("separate: writes adapters, and merge and gguf one whole model; give one of them")
    form: Form = "merged" if merge or gguf else "adapters" if separate else "adapter"
    opened = run if isinstance(run, Run) else Run.open(run)
    shown = display or Silent()
    return export_run(opened, Path(to), shown, form=form, stage=stage, push=push, gguf=gguf).record


def open_run(folder: str | Path) -> Run:
    """An existing run folder; raises InputError where there is none."""
    return Run.open(folder)


def compare(
    before: str | Path | Run | Mapping[str, list[Score]],
    after: str | Path | Run | Mapping[str, list[Score]],
    *,
    split: str = "all",
    confidence: float = 0.95,
    margins: Mapping[str, float | None] | None = None,
    noise: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Paired comparison on the shared items of runs (their kept stage), score folders, or scores.

    `noise` is the difference that measuring an unchanged model again can make, by domain.
    """
    left, right = _scores_of(before), _scores_of(after)
    if split != "all":
        left, right = only(left, split), only(right, split)  # type: ignore[arg-type]
    return compare_scores(
        left, right, confidence=confidence, margins=margins, noise=noise, seed=seed, second_opinion=True
    )


def _scores_of(place: str | Path | Run | Mapping[str, list[Score]]) -> dict[str, list[Score]]:
    if isinstance(place, Mapping):
        return dict(place)
    folder = place.folder if isinstance(place, Run) else Path(place)
    if (folder / "recipe.json").is_file():
        run = Run.open(folder)
        if not run.finished:
            raise InputError(f"{folder}: this run is not finished; continue it with --resume, or name a scores folder")
        return run.scores(read_json(folder / "verdict.json")["kept_stage"])
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a run or a folder of scores")
    scores = read_scores(folder)
    if not scores:
        raise InputError(f"{folder}: neither a run (no recipe.json) nor a folder of scores (no .jsonl)")
    return scores
