"""Reads a run folder for the page: all that is there, and a sentence for each thing that is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equipoise.evaluation.gate import GateResult
from equipoise.records import Comparison, Score
from equipoise.report import doubts, recovered, shape
from equipoise.report.reader import Reader
from equipoise.report.recipe_read import read_recipe
from equipoise.report.shape_gate import Decision, decision
from equipoise.report.text import listed
from equipoise.run_folder import Run, read_json

Scores = Mapping[str, list[Score]]


@dataclass(frozen=True)
class Attempt:
    """An earlier attempt at a stage: its training log, and what its gate said."""

    steps: list[dict[str, Any]]
    decision: Decision | None


@dataclass(frozen=True)
class StageFiles:
    """A stage of the recipe and what the run has of it.

    `adapters` names the folders of its adapters where each domain has one of its own; `earlier` are the attempts
    before the last one.
    """

    number: int
    settings: Mapping[str, Any]
    steps: list[dict[str, Any]] = field(default_factory=list)
    decision: Decision | None = None
    start: Mapping[str, Any] = field(default_factory=dict)
    adapters: Sequence[str] = ()
    earlier: Sequence[Attempt] = ()

    @property
    def gate(self) -> GateResult | None:
        """The decision on the last attempt; a stage that is being trained again has none."""
        return None if self.decision is None or self.decision.result.action == "retry" else self.decision.result

    @property
    def name(self) -> str:
        """Name in the recipe."""
        return str(self.settings.get("name", "?"))

    @property
    def point(self) -> str:
        """Name of the stage's point: its folder and that of its scores."""
        return f"{self.number}-{self.name}"

    @property
    def kept(self) -> bool:
        """Whether the gate kept the stage."""
        return self.gate is not None and self.gate.action == "keep"


@dataclass
class RunFiles:
    """Everything the page is made of; `missing` says in words what the folder does not have."""

    name: str
    recipe: Mapping[str, Any]
    written: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    noise: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    stages: list[StageFiles] = field(default_factory=list)
    points: dict[str, Scores] = field(default_factory=dict)
    comparisons: dict[str, dict[str, Comparison]] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    questions: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    """Why the figures may not be those that the run wrote."""
    ended: bool = False
    """Whether the run has written its verdict, be it readable or not."""

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.recipe.get("seed", 0))

    @property
    def confidence(self) -> float:
        """Confidence of the verdict's intervals."""
        return float(self.recipe.get("evaluation", {}).get("confidence", 0.95))

    @property
    def domains(self) -> list[str]:
        """The domains that are evaluated."""
        tasks: Mapping[str, Any] = self.recipe.get("evaluation", {}).get("tasks", {})
        return [name for name, spec in tasks.items() if spec is not None]

    @property
    def kept(self) -> str | None:
        """The point that was kept; None while there is no verdict."""
        return self.verdict.get("kept_stage")

    @property
    def point(self) -> str | None:
        """The point that the verdict describes, else the last one with scores."""
        scored = [name for name in self.points if name != "base"]
        return self.verdict.get("point") or (scored[-1] if scored else None)

    @property
    def compared(self) -> dict[str, Comparison]:
        """The comparisons that the verdict describes."""
        return self.comparisons.get(self.point or "", {})

    @property
    def readable(self) -> bool:
        """Whether what the verdict describes can be read, be it that no domain could be compared."""
        return (self.point or "") in self.comparisons

    @property
    def unmeasured(self) -> Mapping[str, str]:
        """The domains that could not be compared, and why."""
        found = self.verdict.get("unmeasured") or {}
        return {str(name): str(why) for name, why in found.items()}

    def sides(self, domain: str) -> list[tuple[Score, Score]]:
        """Base and described point on the test items of a domain that both have, in the order of the base."""
        if self.point is None or self.point == "base":
            return []
        after = {score.id: score for score in self.points.get(self.point, {}).get(domain, [])}
        before = self.points.get("base", {}).get(domain, [])
        return [(score, after[score.id]) for score in before if score.split == "test" and score.id in after]


def read_run(run: Run) -> RunFiles:
    """Read what is there; a damaged or missing file becomes a sentence in `missing`.

    Raises InputError only where the folder holds nothing of a run.
    """
    reader = Reader(run, [])
    files = RunFiles(name=run.name, recipe=read_recipe(reader), missing=reader.missing)
    files.ended = run.finished or (run.folder / "verdict.json").exists()
    files.written = reader.text("recipe.yaml", "the recipe as it was written is not shown")
    if (run.folder / "calibration.json").is_file():
        files.calibration = reader.json("calibration.json", shape.mapping, "the map to 0-10 is not known")
    if (run.folder / "noise.json").is_file():
        files.noise = reader.json("noise.json", shape.noise, "the noise of the instrument is not known")
    files.provenance = reader.json("provenance.json", shape.mapping, "where and how this ran is not known")
    files.ledger = reader.json("data/ledger.json", shape.ledger, "the way of the data is not known")
    files.verdict = reader.json("verdict.json", shape.verdict, _no_verdict(files.ended))
    files.comparisons = _comparisons(reader, expected=bool(files.verdict))
    files.events = reader.lines(run.folder / "events.jsonl", shape.mapping)
    files.stages = [
        _stage(reader, number, settings) for number, settings in enumerate(files.recipe.get("stages", []), 1)
    ]
    files.points = _points(reader)
    files.questions = _questions(reader)
    reader.say_lines()
    _check(run, files)
    _say_stages(files)
    return files


def _check(run: Run, files: RunFiles) -> None:
    """Fall back on verdict.json where the comparison cannot be read; say where files are not as the run wrote them."""
    told = recovered.rows_of(files.verdict)
    files.doubts = doubts.changed(run)
    if files.verdict and not run.finished:
        files.doubts += doubts.disagreements(told, files.compared if files.readable else None)
    if not files.readable and files.point and (told or files.unmeasured):
        files.comparisons[files.point] = {
            name: recovered.completed(row, files.sides(name)) for name, row in told.items()
        }
        left = [name for name in files.domains if name not in told and name not in files.unmeasured]
        more = f"; it says nothing that can be read of {listed(left)}" if left else ""
        files.missing.append(f"comparison.json does not tell of {files.point}: the figures are of verdict.json{more}")
    files.missing += doubts.cut_short(files.points, files.questions, files.comparisons)
    if any(one.health is shape.NO_HEALTH for at in files.points.values() for rows in at.values() for one in rows):
        files.missing.append("scores: written by another version of equipoise: scores without health figures")


def _no_verdict(ended: bool) -> str:
    return "how the run ended is not known" if ended else "there is no verdict yet; the run did not reach its end"


def _say_stages(files: RunFiles) -> None:
    """Say which stages are not complete; after a gate that ended the run no further stage is expected."""
    for stage in files.stages:
        if stage.gate is None:
            state = f"{len(stage.steps)} training steps, no gate yet" if stage.steps else "not begun"
            tried = len(stage.earlier) + (stage.decision is not None)
            if tried:
                state = f"attempt {tried} failed its gate, and attempt {tried + 1} is not finished"
            files.missing.append(f"stage {stage.point}: {state}")
        elif stage.gate.action == "stop":
            return


def _stage(reader: Reader, number: int, settings: Mapping[str, Any]) -> StageFiles:
    folder = reader.run.stage(number, str(settings.get("name", "?")))
    begun = folder / "start.json"
    decided = _decision(reader, folder / "gate.json")
    return StageFiles(
        number,
        settings,
        reader.lines(folder / "train.jsonl", shape.step),
        decided,
        reader.tried(begun, lambda: shape.start(read_json(begun)), {}),
        sorted(path.parent.name for path in (folder / "adapter").glob("*/adapter_config.json")),
        _earlier(reader, folder, decided),
    )


def _decision(reader: Reader, path: Path) -> Decision | None:
    return reader.tried(path, lambda: decision(read_json(path)), None)


def _earlier(reader: Reader, folder: Path, decided: Decision | None) -> list[Attempt]:
    """The attempts that lie in `attempts/`; where that folder is gone, what the last gate says of them."""
    found = [path for path in (folder / "attempts").glob("*") if path.name.isdigit()]
    attempts = [
        Attempt(reader.lines(path / "train.jsonl", shape.step), _decision(reader, path / "gate.json"))
        for path in sorted(found, key=lambda path: int(path.name))
    ]
    return attempts or [Attempt([], one) for one in (decided.earlier if decided else ())]


def _comparisons(reader: Reader, *, expected: bool) -> dict[str, dict[str, Comparison]]:
    path = reader.run.folder / "comparison.json"
    without = "margins and the way over the stages are not shown" if expected else ""
    return reader.tried(path, lambda: shape.comparisons(read_json(path)), {}, without)


def _points(reader: Reader) -> dict[str, Scores]:
    found: dict[str, Scores] = {}
    folder = reader.run.folder / "scores"
    names: list[str] = reader.tried(folder, reader.run.points, [], "no answers were scored yet")
    for name in names:
        paths = sorted((folder / name).glob("*.jsonl"))
        found[name] = {path.stem: reader.lines(path, shape.score) for path in paths}
    return found


def _questions(reader: Reader) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The questions by task and item id, where the run keeps them in `items/<task>.jsonl`."""
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path in sorted((reader.run.folder / "items").glob("*.jsonl")):
        found |= {(path.stem, str(line.get("id"))): line for line in reader.lines(path, shape.mapping)}
    return found
