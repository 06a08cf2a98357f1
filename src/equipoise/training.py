"""The training of a stage in a run: its pairs, with what is replayed and what is set apart, the adapter, the ledger."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from equipoise.beginning import Lab, stage_data, stage_seed
from equipoise.data import ledger as ledgers
from equipoise.data.apart import set_apart
from equipoise.data.ledger import Ledger, StageLedger
from equipoise.data.replay import is_replayed
from equipoise.data.tables import read_pairs, write_pairs
from equipoise.dpo.job import Job, Watch, train_adapter
from equipoise.dpo.reference import Reference
from equipoise.dpo.trackers import open_trackers
from equipoise.dpo.train import Progress
from equipoise.draw import StageData
from equipoise.model import adapters
from equipoise.progress import Display, training_note
from equipoise.recipe import Stage
from equipoise.recipe_file import resolved
from equipoise.records import InputError, Pair
from equipoise.run_folder import Run, hashes, read_json, require_unchanged, write_json


def train(lab: Lab, number: int, stage: Stage, folder: Path, stack: Sequence[Path], attempt: int) -> None:
    """Train the adapter of stage `number` (from 1) on top of `stack`; `stage` has the values of this attempt.

    `trained.json`, written last, says that `adapter/` is complete.
    """
    if (folder / "trained.json").is_file():
        require_unchanged(folder, read_json(folder / "trained.json")["files"], "train this stage")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that was killed just before that
        return
    run, display = lab.run, lab.display
    seed = stage_seed(lab.recipe.seed, number)
    data, apart = _data(lab, number, stage, stack)
    run.log("stage", stage=stage.name, pairs=len(data.pairs), start=[path.parent.name for path in stack])
    _write_pairs(folder, data, apart)
    write_json(folder / "start.json", {"stack": [path.parent.name for path in stack], "reference": stage.reference})
    spec = lab.recipe.model  # `auto` would mean another precision where a process loads on another device
    if spec.dtype == "auto" and not spec.quantization:
        spec = spec.model_copy(update={"dtype": str(lab.models.policy.model.dtype).removeprefix("torch.")})
    kept = [place for place in range(len(data.pairs)) if place not in apart]
    job = Job(
        spec,
        stage,
        [data.encoded[place] for place in kept],
        [path.resolve() for path in stack],
        folder.resolve(),
        seed,
        [data.easiness[place] for place in kept] if data.easiness else None,
        [data.encoded[place] for place in sorted(apart)],
    )
    again = f"-attempt-{attempt}" if attempt > 1 else ""
    trackers = open_trackers(
        lab.recipe.trackers, folder=run.folder, run_name=f"{run.name}-{folder.name}{again}", config=resolved(lab.recipe)
    )
    shown = _Shown(display, stage.name, run)
    watch = Watch(display, partial(_note_reference, lab, stage), shown.step, trackers.log)
    try:
        with lab.team.working(job):
            trained = train_adapter(job, lab.models.policy, lab.team, lab.store, watch)
    finally:
        trackers.finish()
    shown.log()
    end = trained.end
    if end.stopped:
        display.say(f"{stage.name}: training ends: {end.stopped}")
    lab.models.policy = trained.policy
    _write_line(lab, stage, lambda line: ledgers.seen(line, end.seen))
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    adapters.save(trained.model, folder / "adapter")
    adapters.detach(trained.model)
    done = {"seen": end.seen, "unseen": end.unseen, "stopped": end.stopped, "files": hashes(folder, "adapter/")}
    write_json(folder / "trained.json", done)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def stage_line(run: Run, stage: str) -> StageLedger:
    """A stage's lines of the ledger as they stand in the run."""
    return Ledger.from_record(read_json(run.folder / "data" / "ledger.json")).stages[stage]


def trained_on(folder: Path) -> list[Pair]:
    """The pairs of its own mix that a stage was trained on: not those set apart, nor those that never came."""
    unseen = set(read_json(folder / "trained.json")["unseen"])
    pairs = read_pairs(folder / "pairs.parquet")
    return [pair for pair in pairs if not is_replayed(pair.source) and pair.id not in unseen]


def _data(lab: Lab, number: int, stage: Stage, stack: Sequence[Path]) -> tuple[StageData, set[int]]:
    """The pairs of a stage, and the places of those that it is only watched by; the ledger says so."""
    data = stage_data(lab, number - 1, stack)
    line = lab.prepared.ledger.stages[stage.name]
    if stage.replay:
        earlier = [pair for path in stack for pair in trained_on(path.parent)]
        lab.prepared = lab.preparation.with_replay(lab.prepared, number - 1, stage, earlier)
        if not earlier:
            lab.display.say(f"{stage.name}: nothing is replayed: no earlier stage was kept")
        line = lab.prepared.ledger.stages[stage.name]
        found = lab.prepared.stages[number - 1]
        assert found is not None
        data = found
    apart: set[int] = set()
    if stage.optim.stop:
        apart = set_apart(data.pairs, stage.optim.stop.share, seed=lab.recipe.seed, stage=stage.name)
        if not apart:
            raise InputError(
                f"stages.{number - 1}.optim.stop: no source of stage {stage.name} has two groups of pairs, so none can "
                "be set apart; leave it out"
            )
    counts = Counter(data.pairs[place].source for place in apart)
    line = replace(line, epochs=stage.optim.epochs)
    lines = {source: replace(row, set_apart=counts[source]) for source, row in line.sources.items()}
    _write_line(lab, stage, lambda before: replace(line, sources=lines))
    return data, apart


def _write_pairs(folder: Path, data: StageData, apart: set[int]) -> None:
    write_pairs(folder / "pairs.parquet", [pair for place, pair in enumerate(data.pairs) if place not in apart])
    if apart:
        write_pairs(folder / "set_apart.parquet", [data.pairs[place] for place in sorted(apart)])


def _write_line(lab: Lab, stage: Stage, change: Callable[[StageLedger], StageLedger]) -> None:
    path = lab.run.folder / "data" / "ledger.json"
    ledger = Ledger.from_record(read_json(path))
    write_json(path, ledger.with_stage(stage.name, change(ledger.stages[stage.name])).record())


def _note_reference(lab: Lab, stage: Stage, reference: Reference) -> None:
    lab.display.say(f"{stage.name}: reference of {reference.reused} pairs reused, of {reference.computed} computed")
    lab.run.log("reference", stage=stage.name, reused=reference.reused, computed=reference.computed)


class _Shown:
    """What is shown of a training while it goes on."""

    def __init__(self, display: Display, stage: str, run: Run) -> None:
        self._display, self._stage, self._run = display, stage, run
        self._bar: Callable[..., None] | None = None
        self._last: Progress | None = None

    def step(self, progress: Progress) -> None:
        """Show an optimiser step; the first one is logged, since train.jsonl does not say how many there will be."""
        if self._bar is None:
            self._bar = self._display.begin(f"{self._stage}: training", progress.steps)
            self._run.log("training", stage=self._stage, step=progress.step, steps=progress.steps)
        self._last = progress
        note = training_note(
            loss=progress.loss,
            margin=progress.margin,
            accuracy=progress.accuracy,
            pairs_per_s=progress.pairs_per_s,
            tokens_per_s=progress.tokens_per_s,
        )
        self._bar(done=progress.step, note=note)

    def log(self) -> None:
        """Log the last step; a stage that was killed after it shows none."""
        if self._last:
            pace = round(self._last.pairs_per_s, 2)
            self._run.log("trained", stage=self._stage, steps=self._last.step, pairs_per_s=pace)
