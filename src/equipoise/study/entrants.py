"""What stands in a leaderboard: recipes with their finished runs, one for each seed, on the same items."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from equipoise.outcome import margins
from equipoise.recipe import CIRCUMSTANCES, Recipe
from equipoise.recipe_evaluation import REWARDED, kind_of
from equipoise.recipe_file import stored_recipe
from equipoise.records import InputError, Score, Split, content_id
from equipoise.run_folder import Run, noise_limits, read_json, read_score_file, sha256
from equipoise.study.evidence import Floats, Side

Values = dict[str, dict[str, Score]]


@dataclass(frozen=True)
class Domain:
    """The items of a domain that every run was asked; `groups` [n] names dependent ones."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Entrant:
    """A recipe with its runs; `before` and `after` hold [seeds, items] scores by domain, NaN where unscored.

    `margins` are the losses that still count as held, where the recipe names them; `noise` is the difference that
    measuring an unchanged model again can make, where that was tried.
    """

    name: str
    recipe: Recipe
    folders: tuple[Path, ...]
    seeds: tuple[int, ...]
    kept: tuple[str, ...]
    model: str
    before: Mapping[str, Floats]
    after: Mapping[str, Floats]
    margins: Mapping[str, float | None]
    noise: Mapping[str, float]

    def side(self, domain: str) -> Side:
        """Its scores in a domain."""
        return Side(self.before[domain], self.after[domain], self.seeds)


@dataclass(frozen=True)
class Entrants:
    """All recipes, the domains that they share, and what the reader must know about what was left out."""

    rows: tuple[Entrant, ...]
    domains: Mapping[str, Domain]
    split: Split
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Finished:
    """One finished run: its scores on the items of one split, of the base and of the stage that was kept."""

    folder: Path
    recipe: Recipe
    kept: str
    model: str
    reward: Any
    base: Values
    end: Values
    noise: Mapping[str, float]


def read_entrants(places: Sequence[Path], split: Split = "test") -> Entrants:
    """Read runs, and folders of runs (a study), into one table of the items that all of them share.

    Raises InputError for a place that holds no run, a single run that is not finished, rewards of different reward
    models, items whose content differs, and where no domain or item is shared.
    """
    folders, notes = find_runs(places)
    read = Reader(split)
    return make_entrants([read(folder) for folder in folders], split, notes)


def make_entrants(finished: Sequence[Finished], split: Split, notes: Sequence[str] = ()) -> Entrants:
    """Put runs into one table; raises InputError where they cannot be compared (see `read_entrants`)."""
    runs, again = _distinct(finished)
    domains, left_out = _shared_domains(runs)
    _require_one_reward(runs, domains)
    shared = {domain: _shared_items(domain, runs) for domain in domains}
    models = len({run.model for run in runs})
    several = f"the runs start from {models} different base models: each gain is over the run's own base"
    said = (*notes, *([several] if models > 1 else []), *again, *left_out)
    return Entrants(tuple(_entrants(runs, shared)), shared, split, said)


def find_runs(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return run folders in the order named, those inside a folder by name, and a note for each unfinished one."""
    found: list[Path] = []
    notes = []
    for place in places:
        if (place / "recipe.json").is_file():
            if not Run(place).finished:
                raise InputError(f"{place}: this run is not finished; continue it with: equipoise run --resume {place}")
            found.append(place)
            continue
        inside = sorted(path.parent for path in place.glob("*/recipe.json"))
        if not inside:
            raise InputError(f"{place}: neither a run nor a folder of runs (no recipe.json)")
        found += [folder for folder in inside if Run(folder).finished]
        notes += [f"{folder}: left out, not finished" for folder in inside if not Run(folder).finished]
    if not found:
        raise InputError(f"{places[0]}: holds no finished run; continue them with: equipoise study")
    return list({folder.resolve(): folder for folder in found}.values()), notes


class Reader:
    """Reads finished runs; score files of equal content, as of a base model that many runs share, are read once."""

    def __init__(self, split: Split) -> None:
        self._split = split
        self._known: dict[str, dict[str, Score]] = {}

    def __call__(self, folder: Path) -> Finished:
        """Return the run; raises InputError with the file that is missing, damaged or of another version."""
        run = Run.open(folder)
        record, verdict, origin = (
            read_json(folder / name) for name in ("recipe.json", "verdict.json", "provenance.json")
        )
        try:
            kept, model, reward = str(verdict["kept_stage"]), str(origin["model"]), origin["reward"]
        except (KeyError, TypeError) as error:
            raise InputError(
                f"{folder}: verdict.json or provenance.json has no {error}; it was changed by hand"
            ) from None
        try:
            recipe = stored_recipe(record)
        except InputError as error:
            said = str(error).partition("\n")[0]
            raise InputError(f"{folder}: {said}; was it written by another version of equipoise?") from None
        base, end = (self._point(run, point) for point in ("base", kept))
        path = folder / "noise.json"
        return Finished(
            folder, recipe, kept, model, reward, base, end, noise_limits(path, "test") if path.is_file() else {}
        )

    def _point(self, run: Run, point: str) -> Values:
        folder = run.folder / "scores" / point
        if not folder.is_dir():
            raise InputError(f"{folder}: missing, and the verdict names this point; the run was changed by hand")
        return {path.stem: self._file(path) for path in sorted(folder.glob("*.jsonl"))}

    def _file(self, path: Path) -> dict[str, Score]:
        content = sha256(path)
        if content not in self._known:
            gc.disable()  # hundreds of thousands of records, none of them garbage: looking for some takes a third
            try:
                self._known[content] = {score.id: score for score in read_score_file(path, self._split)}
            finally:
                gc.enable()
        return self._known[content]


def _distinct(runs: Sequence[Finished]) -> tuple[list[Finished], list[str]]:
    """Leave out runs of a recipe that is there already under the same seed, with a sentence for each."""
    found: dict[tuple[str, int], Finished] = {}
    notes = []
    for run in runs:
        first = found.setdefault((_identity(run), run.recipe.seed), run)
        if first is not run:
            notes.append(f"{run.folder}: left out, the same recipe with the same seed as {first.folder}")
    return list(found.values()), notes


def _identity(run: Finished) -> str:
    """What the runs of one row have in common: all of the recipe but its name and seed, and the base model."""
    return content_id([run.recipe.model_dump(mode="json", exclude={*CIRCUMSTANCES, "seed"}), run.model])


def _shared_domains(runs: Sequence[Finished]) -> tuple[list[str], list[str]]:
    """Return the domains that every run evaluated, and a sentence for each of the others."""
    named = list(dict.fromkeys(task for run in runs for task in run.recipe.evaluation.tasks.chosen()))
    lacking = {task: [run for run in runs if task not in run.base or task not in run.end] for task in named}
    shared = [task for task in named if not lacking[task]]
    if not shared:
        raise InputError(f"{runs[0].folder}: these runs share no evaluated domain; name runs that evaluate the same")
    notes = [f"{task}: left out, {where[0].folder} did not evaluate it" for task, where in lacking.items() if where]
    return shared, notes


def _require_one_reward(runs: Sequence[Finished], domains: Sequence[str]) -> None:
    rewarded = [domain for domain in domains if kind_of(domain) in REWARDED]
    other = next((run for run in runs if run.reward != runs[0].reward), None)
    if rewarded and other is not None:
        raise InputError(
            f"{other.folder}: its {rewarded[0]} was scored by another reward model than that of {runs[0].folder}: "
            "such scores have different units; evaluate both with the same one"
        )


def _shared_items(domain: str, runs: Sequence[Finished]) -> Domain:
    first = runs[0].base[domain]
    ids = [key for key in first if all(key in run.base[domain] and key in run.end[domain] for run in runs)]
    if not ids:
        raise InputError(f"{domain}: these runs share no item; evaluate them on the same ones")
    for run in runs:
        changed = [key for key in ids if run.base[domain][key].content != first[key].content]
        if changed:
            raise InputError(
                f"{run.folder}: {domain}: {len(changed)} of {len(ids)} shared items differ in content from those of "
                f"{runs[0].folder} ({changed[0]}); evaluate both on the same items"
            )
    return Domain(tuple(ids), tuple(first[key].group for key in ids))


def _entrants(runs: Sequence[Finished], shared: Mapping[str, Domain]) -> list[Entrant]:
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(_identity(run), []).append(run)
    titles = [members[0].recipe.name for members in groups.values()]
    found = []
    for members in groups.values():
        ordered = sorted(members, key=lambda run: run.recipe.seed)
        title = ordered[0].recipe.name
        found.append(
            Entrant(
                name=title if titles.count(title) == 1 else f"{title} ({ordered[0].folder.name})",
                recipe=ordered[0].recipe,
                folders=tuple(run.folder for run in ordered),
                seeds=tuple(run.recipe.seed for run in ordered),
                kept=tuple(run.kept for run in ordered),
                model=ordered[0].model,
                before={name: _matrix([run.base[name] for run in ordered], domain) for name, domain in shared.items()},
                after={name: _matrix([run.end[name] for run in ordered], domain) for name, domain in shared.items()},
                margins=margins(
                    ordered[0].recipe, {name: list(scores.values()) for name, scores in ordered[0].base.items()}
                ),
                noise={name: max(run.noise.get(name, 0.0) for run in ordered) for name in shared},
            )
        )
    return found


def _matrix(by_seed: Sequence[Mapping[str, Score]], domain: Domain) -> Floats:
    values = [[scores[key].value for key in domain.ids] for scores in by_seed]
    return np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
