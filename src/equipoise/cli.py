"""The commands: one short function each; everything heavy is imported inside.

Exit codes: 0 done and every gate passed; 1 a gate or a check failed; 2 the input is wrong; 130 interrupted.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from equipoise import cli_study  # its commands join the program when it is imported
from equipoise.cli_base import AsJson, Overrides, RecipeFile, app, guarded

__all__ = ["app", "cli_study", "main"]


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
        str, typer.Argument(help="list, show NAME, pocket NAME (its twin on the embedded model), or control NAME.")
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="A built-in recipe or search space, or a file.")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="Which control: ungated, one-mixture, reversed or flipped.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe here instead of printing it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in recipes and the question that each one asks; show one, or make its twin or a control."""
    from equipoise.commands import recipes_command

    recipes_command(action, name, kind, out, as_json)


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
