"""The commands: one short function each; everything heavy is imported inside.

Exit codes: 0 done and every gate passed; 1 a gate or a check failed; 2 the input is wrong; 130 interrupted.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    help="Preference fine-tuning of small language models over several domains, with evidence.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # --help answers in 0.3 s; importing rich takes too much of that
    pretty_exceptions_enable=False,
)

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: a.b=c; stages by position or name.")
]
Confidence = Annotated[float, typer.Option(min=0.5, max=0.999, help="Confidence of the intervals.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on stdout.")]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn the errors that a user can mend into a clear line and an exit code; others keep their traceback."""

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        from equipoise.records import InputError

        try:
            command(*args, **options)
        except InputError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            fail("interrupted; give the same command again, or continue a run with: equipoise run --resume RUN", 130)
        except OSError as error:
            place = f" ({error.filename})" if error.filename else ""
            said = f"cannot write{place}: {error.strerror}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                fail(f"{said}; make room, then continue with: equipoise run --resume RUN", 1)
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
                fail(f"{said}; choose a folder where you may write (the store's is EQUIPOISE_CACHE)", 2)
            raise

    return run


def fail(text: str, code: int) -> NoReturn:
    """Print an error on stderr and leave."""
    print(f"equipoise: {text}", file=sys.stderr)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """Print machine-readable output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


@app.command()
@guarded
def run(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe; not needed with --resume.")] = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the recipe's.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this run folder where it stopped.")] = None,
) -> None:
    """Run the whole experiment; ends with the verdict and the path of report.html."""
    from equipoise.commands import run_command

    raise typer.Exit(run_command(recipe, overrides or [], out, name, resume))


@app.command()
@guarded
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    measure: Annotated[bool, typer.Option(help="Score the base model now, to judge gates and spreads.")] = False,
    gpu: Annotated[
        float | None, typer.Option(min=1, help="Forecast memory for a CUDA GPU of so many GiB, which need not be here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do, before anything expensive."""
    from equipoise.commands import plan_command

    plan_command(recipe, overrides or [], measure, gpu, as_json)


@app.command()
@guarded
def data(
    recipe: RecipeFile,
    overrides: Overrides = None,
    show: Annotated[int, typer.Option(min=0, help="Show so many pairs of each stage, trained-on tokens marked.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Build the pairs of every stage and print the ledger."""
    from equipoise.commands import data_command

    data_command(recipe, overrides or [], show, as_json)


@app.command("eval")
@guarded
def eval_(
    model: Annotated[str, typer.Argument(help="Hub id, local folder, or pocket.")],
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Adapter folder; several lie on top of each other.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task; default: all.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Take tasks, generation and reward from this recipe.")] = None,
    reward: Annotated[
        list[str] | None, typer.Option(help="Reward model (several: their mean); default: pocket for pocket.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items per task.")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Measure so many times: noise.json says how far that moves the scores.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Ask this OpenAI-compatible server (http://host:port/v1) for MODEL's answers.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Write <task>.jsonl here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model; the same input gives byte-identical score files."""
    from equipoise.commands_eval import EvalOptions, eval_command

    given = (adapter or [], task or [], recipe, reward or [], limit, repeats, server, overrides or [])
    eval_command(EvalOptions(model, *given), out, as_json)


@app.command()
@guarded
def compare(
    before: Annotated[Path, typer.Argument(help="A run or a folder of scores.")],
    after: Annotated[list[Path], typer.Argument(help="Runs or folders of scores.")],
    split: Annotated[str, typer.Option(help="all, dev or test items.")] = "all",
    confidence: Annotated[float, typer.Option(min=0.5, max=0.999)] = 0.95,
    as_json: AsJson = False,
) -> None:
    """Compare runs or score folders item by item, on the items that they share."""
    from equipoise.commands_eval import compare_command

    compare_command(before, after, split, confidence, as_json)


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
    as_json: AsJson = False,
) -> None:
    """Rank recipes: the feasible ones, the front, ties, and one score over all domains."""
    from equipoise.commands_study import leaderboard_command

    leaderboard_command(runs, split, confidence, as_json)


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


@app.command("audit-table")
@guarded
def audit_table(
    file: Annotated[
        Path, typer.Argument(help="A table of before/after figures with their n (docs/original-experiments.md).")
    ],
    as_json: AsJson = False,
) -> None:
    """Say which claims of a table of published figures could be told from noise."""
    from equipoise.commands_eval import audit_table_command

    audit_table_command(file, as_json)


@app.command()
@guarded
def report(run: Annotated[Path, typer.Argument(help="The run folder.")]) -> None:
    """Write the run's report.html again, from its files."""
    from equipoise.report.html import write_report
    from equipoise.run_folder import Run

    print(write_report(Run.open(run)))


@app.command()
@guarded
def verify(run: Annotated[Path, typer.Argument(help="The run folder.")], as_json: AsJson = False) -> None:
    """Compute every figure of a run again from its records and hashes; exit code 1 on a difference."""
    from equipoise.commands import verify_command

    raise typer.Exit(verify_command(run, as_json))


@app.command()
@guarded
def recipes(
    action: Annotated[
        str, typer.Argument(help="list, show NAME, or pocket NAME (its twin on the embedded model).")
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="A built-in recipe or search space, or a file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the twin here instead of printing it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in recipes and the question that each one asks; show one, or make its pocket twin."""
    from equipoise.commands import recipes_command

    recipes_command(action, name, out, as_json)


@app.command()
@guarded
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do."""
    from equipoise.commands import doctor_command

    raise typer.Exit(doctor_command(as_json))


def main() -> None:
    """Entry point of the command line."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    app()


if __name__ == "__main__":
    main()
