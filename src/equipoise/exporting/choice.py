"""What of a run is exported: the stack of adapters that it kept, or the one that a named stage ended with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise.model import adapters
from equipoise.recipe import Recipe, Source, Stage
from equipoise.recipe_file import stored_recipe
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json, sha256


@dataclass(frozen=True)
class Chosen:
    """A stack of stages of a finished run: `stages` are their points, from the first to the one that is exported."""

    run: Run
    recipe: Recipe
    stages: tuple[str, ...]
    provenance: Mapping[str, Any]
    kept: bool
    """Whether the run ended with this stack; False for a stage that was refused, or that others were put on."""

    @property
    def point(self) -> str:
        """The point whose scores are those of the export."""
        return self.stages[-1]

    @property
    def parts(self) -> list[tuple[str, Path]]:
        """Stage and folder of every adapter, in the order in which they were put on."""
        return [(stage, folder) for stage in self.stages for folder in adapters.parts(self._folder(stage) / "adapter")]

    @property
    def adapters(self) -> list[Path]:
        """The folders of `parts`."""
        return [folder for _, folder in self.parts]

    def settings(self, stage: str) -> Stage:
        """The recipe of a stage."""
        return self.recipe.stages[int(stage.partition("-")[0]) - 1]

    def sources(self) -> dict[str, Source]:
        """The sources that the stages drew from, by name."""
        names = {name for stage in self.stages for name in self.settings(stage).mix.sources}
        return {name: spec for name, spec in self.recipe.sources.items() if name in names}

    def pairs(self, stage: str) -> Path:
        """The file of the pairs that a stage was trained on."""
        return self._folder(stage) / "pairs.parquet"

    def _folder(self, stage: str) -> Path:
        return self.run.folder / "stages" / stage


def choose(run: Run, stage: str | None = None) -> Chosen:
    """Return what is exported: what the run kept, or with `stage` (a name or `2-name`) what stood after that stage.

    Raises InputError where the run is not finished, files of it were changed, it kept no stage and none is named, or
    it has no such stage.
    """
    if not run.finished:
        raise InputError(
            f"{run.folder}: this run is not finished; continue it with: equipoise run --resume {run.folder}"
        )
    _require_as_it_ended(run)
    verdict = read_json(run.folder / "verdict.json")
    kept = str(verdict["kept_stage"])
    if stage is None and kept == "base":
        raise InputError(
            f"{run.folder}: no stage was kept: the base model is what this run recommends; --stage NAME exports a "
            "refused stage all the same"
        )
    point = kept if stage is None else _point(run, stage)
    start = read_json(run.folder / "stages" / point / "start.json")
    recipe = stored_recipe(read_json(run.folder / "recipe.json"))
    stages = (*start["stack"], point)
    chosen = Chosen(run, recipe, stages, read_json(run.folder / "provenance.json"), point == kept)
    if not all(adapters.parts(run.folder / "stages" / name / "adapter") for name in stages):
        raise InputError(f"{run.folder}: a stage of {', '.join(stages)} has no adapter; there is nothing to export")
    return chosen


def _point(run: Run, stage: str) -> str:
    """The stage's folder name; raises InputError with the names that there are."""
    points = sorted(path.parent.name for path in (run.folder / "stages").glob("*/done"))
    for point in points:
        if stage in (point, point.partition("-")[2]):
            return point
    raise InputError(
        f"--stage {stage}: {run.folder} has no such trained stage; there are {', '.join(points) or 'none'}"
    )


def _require_as_it_ended(run: Run) -> None:
    """Raises InputError for the first file that is missing or is not what it was when the run ended."""
    done = read_json(run.folder / "done")
    files = done.get("files") if isinstance(done, dict) else None
    if not isinstance(files, dict):
        raise InputError(f"{run.folder / 'done'}: does not hold the hashes of the run's files; it was changed")
    for name, expected in files.items():
        path = run.folder / name
        if not path.is_file() or sha256(path) != expected:
            raise InputError(
                f"{path}: missing or changed since the run ended; nothing is exported (equipoise verify {run.folder} "
                "says what differs)"
            )
