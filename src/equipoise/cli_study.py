"""The commands about many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equipoise.cli_base import AsJson, Confidence, RecipeFile, app, guarded


@app.command()
@guarded
def study(
    recipe: Annotated[list[Path], typer.Argument(help="Recipes.")],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas: each recipe runs once under each.")] = "0",
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/study"),
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time on this machine.")] = 1,
    executor: Annotated[str, typer.Option(help="local, or ray: the cluster of RAY_ADDRESS.")] = "local",
    gpus: Annotated[
        float | None,
        typer.Option("--gpus-per-run", min=0, help="With ray: each run's share; default: 1 where there are any."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run every recipe under every seed; give the same command again to go on where it stopped."""
    from equipoise.commands_study import study_command

    raise typer.Exit(study_command(recipe, seeds, out, jobs, executor, gpus, as_json))


@app.command()
@guarded
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or folders of runs.")],
    split: Annotated[str, typer.Option(help="test or dev items.")] = "test",
    confidence: Confidence = 0.95,
    versus: Annotated[str | None, typer.Option(help="Also say how every recipe differs from this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank recipes: the feasible ones, the front, ties, and one score over all domains."""
    from equipoise.commands_study import leaderboard_command

    leaderboard_command(runs, split, confidence, versus, as_json)


@app.command()
@guarded
def recommend(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or folders of runs.")],
    priority: Annotated[str, typer.Option(help="balanced, or the domain that matters most.")] = "balanced",
    confidence: Confidence = 0.95,
    out: Annotated[Path | None, typer.Option(help="Write the recommended recipe here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which recipe to ship, why, and what it costs in the other domains."""
    from equipoise.commands_study import recommend_command

    raise typer.Exit(recommend_command(runs, priority, confidence, out, as_json))


@app.command()
@guarded
def search(
    recipe: RecipeFile,
    space: Annotated[Path, typer.Option(help="File of keys and their values (docs/studies.md).")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those of earlier and other processes among them.")],
    storage: Annotated[str | None, typer.Option(help="A file, or a URL of Optuna; default: in the folder.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choices.")] = 0,
    priority: Annotated[str, typer.Option(help="balanced, or a domain: what the winner is chosen by.")] = "balanced",
    out: Annotated[Path | None, typer.Option(help="Folder of the trials; default: runs/search/<recipe>.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search a recipe's values on dev items; the winner is reported on test items."""
    from equipoise.commands_study import search_command

    raise typer.Exit(search_command(recipe, space, trials, storage, seed, priority, out, as_json))


@app.command()
@guarded
def merge(
    adapter: Annotated[list[Path], typer.Argument(help="Adapter folders.")],
    out: Annotated[Path, typer.Option(help="Folder of the merged adapter.")],
    weights: Annotated[str | None, typer.Option(help="One for each adapter, with commas: 0.5,0.5.")] = None,
    method: Annotated[
        str, typer.Option(help="PEFT's: cat (exact), svd, linear, ties, dare_linear, dare_ties, ...")
    ] = "cat",
    density: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the values that ties and dare keep.")] = 0.5,
    scale: Annotated[float, typer.Option(min=0, max=2, help="0 is the base, 1 the merged model.")] = 1.0,
    model: Annotated[str | None, typer.Option(help="The base model; default: the one the adapters name.")] = None,
    search: Annotated[Path | None, typer.Option(help="Find the weights that pass this recipe's last gate.")] = None,
    trials: Annotated[int, typer.Option(min=1, help="With --search: sets of weights that are tried.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of dare and of --search.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Make one adapter of several; evaluate it like any other: equipoise eval MODEL --adapter OUT."""
    from equipoise.commands_study import merge_command

    raise typer.Exit(merge_command(adapter, weights, method, density, scale, model, search, trials, seed, out, as_json))
