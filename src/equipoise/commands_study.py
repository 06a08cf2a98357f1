"""The bodies of the commands about many runs: `study`, `leaderboard`, `search`, `recommend`, `merge`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from equipoise import console, console_study
from equipoise.cli_base import print_json
from equipoise.commands import find_recipe, quiet
from equipoise.recipe_file import load_recipe
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError
from equipoise.run_folder import write_json, write_text


def study_command(
    recipes: Sequence[Path], seeds: str, out: Path, jobs: int, executor: str, gpus: float | None, as_json: bool
) -> int:
    """Run a study; returns 1 where a run failed."""
    from equipoise.study.executor_local import local
    from equipoise.study.plan_study import plan_study
    from equipoise.study.run_study import run_study

    if executor not in ("local", "ray"):
        raise InputError(f"--executor {executor}: one of local, ray")
    entries = plan_study([find_recipe(path) for path in recipes], _seeds(seeds), out)
    if executor == "ray":
        from equipoise.study.executor_ray import cluster

        execute = cluster(gpus)
    else:
        execute = local(jobs)
    with console.Terminal() as display:
        record = run_study(entries, out, execute, display)
    print_json(record) if as_json else console_study.study_tables(record)
    asked = {entry.name for entry in entries}
    return 1 if any(row["state"] != "done" for row in record["rows"] if row["name"] in asked) else 0


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--seeds {text}: write whole numbers with commas, as 0,1,2")
    return [int(part) for part in parts]


def leaderboard_command(
    places: Sequence[Path], split: str, confidence: float, against: str | None, as_json: bool
) -> None:
    """Print the leaderboard of runs, and where asked how each recipe differs from one of them."""
    from equipoise.study.board_json import board_record
    from equipoise.study.entrants import read_entrants
    from equipoise.study.leaderboard import make_board
    from equipoise.study.versus import versus, versus_record

    if split not in ("dev", "test"):
        raise InputError(f"--split {split}: one of dev, test")
    board = make_board(read_entrants(places, split), confidence=confidence)  # type: ignore[arg-type]
    record = board_record(board)
    if against is not None:
        record["versus"] = versus_record(versus(board, against), against)
    print_json(record) if as_json else console_study.board_tables(record)


def recommend_command(places: Sequence[Path], priority: str, confidence: float, out: Path | None, as_json: bool) -> int:
    """Print what to ship, and write its recipe; returns 1 where no recipe is shown to be better than the base."""
    from equipoise.study.entrants import read_entrants
    from equipoise.study.leaderboard import make_board
    from equipoise.study.recommend import ready_recipe, recommend

    board = make_board(read_entrants(places), confidence=confidence)
    found = recommend(board, priority)
    print_json(found.record()) if as_json else console_study.recommendation(found.record())
    if out and found.row:
        write_text(out, ready_recipe(board, found))
        if not as_json:
            print(f"recipe: {out}")
    return 0 if found.row else 1


def report_command(places: Sequence[Path], out: Path | None) -> Path:
    """Write the page of one run, or of several runs together; returns where it is."""
    from equipoise.report.html import write_report
    from equipoise.report.recipe_read import left_by_a_run
    from equipoise.report.study_html import write_study
    from equipoise.report.study_read import is_run
    from equipoise.run_folder import Run

    if len(places) > 1 or not (is_run(places[0]) or left_by_a_run(places[0])):
        return write_study(places, out)
    if out is not None:
        raise InputError("--out: the report of one run lies in its folder; name several runs, or a folder of runs")
    return write_report(Run(places[0]))


def search_command(
    recipe: Path,
    space: Path,
    trials: int,
    storage: str | None,
    seed: int,
    priority: str,
    out: Path | None,
    as_json: bool,
) -> int:
    """Search, and report the winner on test items; returns 1 where none is confirmed."""
    from equipoise.study.nursery import Nursery
    from equipoise.study.search import in_a_process, run_search
    from equipoise.study.space import read_space
    from equipoise.study.trials import Search, open_storage
    from equipoise.study.winner import choose

    path = find_recipe(recipe)
    loaded = load_recipe(path)
    dimensions = read_space(find_recipe(space), path)
    if priority != "balanced" and priority not in loaded.evaluation.tasks.chosen():
        raise InputError(f"--priority {priority}: the recipe does not evaluate it; balanced, or one of its tasks")
    folder = out or Path("runs") / "search" / loaded.name
    search = Search(path, loaded, dimensions, folder, seed)
    place = storage or str(folder / "optuna.log")
    with console.Terminal() as display, Nursery() as nursery:
        rows = run_search(search, open_storage(place), trials, partial(in_a_process, nursery), display)
    chosen = choose(rows, folder, priority=priority, confidence=loaded.evaluation.confidence)
    text = chosen.pop("recipe")
    if text:
        write_text(folder / "winner.yaml", text)
    record = {
        "storage": place,
        "study": search.name,
        "domains": search.domains,
        "confidence": loaded.evaluation.confidence,
        "trials": rows,
        **chosen,
    }
    write_json(folder / "search.json", record)
    if as_json:
        print_json(record)
    else:
        console_study.search_tables(record)
        if text:
            print(f"recipe: {folder / 'winner.yaml'}")
    return 0 if chosen["confirmed"] else 1


def merge_command(
    adapters: Sequence[Path],
    weights: str | None,
    method: str,
    density: float,
    scale: float,
    model: str | None,
    search: Path | None,
    trials: int,
    seed: int,
    out: Path,
    as_json: bool,
) -> int:
    """Merge adapters with the weights given, or with those that a search finds; returns 1 where it finds none."""
    quiet()
    from equipoise.model.adapters import each, of_another_base
    from equipoise.model.load import load_policy
    from equipoise.study.merge import Blend, merge, require_mergeable
    from equipoise.study.merge_search import Coefficients

    if (weights is None) == (search is None):
        raise InputError("merge: give either --weights (one for each adapter, with commas) or --search RECIPE")
    adapters = each(adapters)
    given = _weights(weights) if weights else (1.0,) * len(adapters)
    blend = Blend(given, method, density, scale, seed)
    base = require_mergeable(adapters, blend)
    loaded = load_recipe(find_recipe(search)) if search else None
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds files already; choose another --out")
    spec = loaded.model if loaded else ModelSpec(id=model or base)
    for sentence in of_another_base(spec.id, adapters):
        print(f"equipoise: warning: {sentence}", file=sys.stderr)
    policy = load_policy(spec)
    record: dict[str, object] = {"weights": list(given)}
    if loaded:
        with console.Terminal() as display:
            found = Coefficients(loaded, policy, adapters, blend, display).search(trials)
        record = found.record()
        if not as_json:
            console_study.merge_tables(record)
        if found.best is None:
            print_json(record) if as_json else print("no coefficients pass the gate; nothing is written")
            return 1
        blend = Blend(found.best.weights, method, density, scale, seed)
    merge(policy, adapters, blend, out)
    said = f"{', '.join(f'{weight:g}' for weight in blend.weights)} ({method}): {out}"
    print_json({**record, "out": str(out)}) if as_json else print(f"merged with weights {said}")
    return 0


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--weights {text}: write numbers with commas, as 0.5,0.5") from None
