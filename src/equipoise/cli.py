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
def report(
    runs: Annotated[list[Path], typer.Argument(help="A run, or several: run folders, folders of runs.")],
    out: Annotated[Path | None, typer.Option(help="Where the page of several runs is written.")] = None,
) -> None:
    """Write a run's report.html again from its files, or one page that compares many runs."""
    from equipoise.commands_study import report_command

    print(report_command(runs, out))


@app.command()
@guarded
def watch(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    once: Annotated[bool, typer.Option("--once", help="Print one plain snapshot and leave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Follow a run in the terminal; ends with the run, and with its outcome."""
    from equipoise.commands_live import watch_command

    raise typer.Exit(watch_command(run, once, as_json))


@app.command()
@guarded
def ui(
    folder: Annotated[Path, typer.Argument(help="Folder of the run folders.")] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8321,
    host: Annotated[str, typer.Option(help="This machine, and no other.")] = "127.0.0.1",
) -> None:
    """Look at runs in the browser, on this machine alone: list, live view, reports, comparisons, and a talk."""
    from equipoise.commands_live import ui_command

    raise typer.Exit(ui_command(folder, port, host))


@app.command()
@guarded
def verify(run: Annotated[Path, typer.Argument(help="The run folder.")], as_json: AsJson = False) -> None:
    """Compute every figure of a run again from its records and hashes; exit code 1 on a difference."""
    from equipoise.commands import verify_command

    raise typer.Exit(verify_command(run, as_json))


@app.command()
@guarded
def export(
    run: Annotated[Path, typer.Argument(help="The run folder.")],
    to: Annotated[Path, typer.Option(help="Folder of the export; it must be new or empty.")],
    merge: Annotated[bool, typer.Option("--merge", help="Write the whole model instead of an adapter.")] = False,
    separate: Annotated[bool, typer.Option("--separate", help="Write an adapter for each stage, not one.")] = False,
    gguf: Annotated[bool, typer.Option("--gguf", help="Write the whole model, and model.gguf beside it.")] = False,
    push: Annotated[str | None, typer.Option(help="Upload to this repository of the hub (made private).")] = None,
    stage: Annotated[str | None, typer.Option(help="What stood after this stage; default: what was kept.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a run kept as an adapter or a whole model, with a model card, and prove that it is the same model."""
    from equipoise.commands_export import export_command

    raise typer.Exit(export_command(run, to, merge, separate, gguf, push, stage, as_json))


@app.command()
@guarded
def init(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    model: Annotated[str | None, typer.Option(help="Hub id, local folder, or pocket (needs no data).")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Your pairs: file, folder or hub id; repeatable.")] = None,
    general: Annotated[str | None, typer.Option(help="General pairs beside them, so that other domains hold.")] = None,
    domain: Annotated[str | None, typer.Option(help="What your pairs teach, in one word.")] = None,
    kind: Annotated[str | None, typer.Option(help="Kind of source; default: recognised by its columns.")] = None,
    columns: Annotated[str | None, typer.Option(help="Which column is what: prompt=a+b,chosen=c,rejected=d.")] = None,
    split: Annotated[str, typer.Option(help="Split of a folder or hub data set.")] = "train",
    reward: Annotated[str | None, typer.Option(help="Reward model that scores answers.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Further tasks, with commas: tatqa,mt_bench,ifeval.")] = None,
    eval_data: Annotated[list[str] | None, typer.Option(help="Items of a task: TASK=FILE; repeatable.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Pairs to train on; default: by what there is.")] = None,
    quantization: Annotated[str | None, typer.Option(help="nf4: the frozen model in 4 bits.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; choose what no option says.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an existing file.")] = False,
) -> None:
    """Write a commented recipe for your model and data, and check it; in a terminal it asks what no option says."""
    from equipoise.commands_init import InitOptions, init_command

    said = (model, data or [], general, domain, kind, columns, split, reward, tasks, eval_data or [], pairs)
    raise typer.Exit(init_command(file, InitOptions(*said, quantization), yes, force))


@app.command()
@guarded
def recipes(
    action: Annotated[
        str,
        typer.Argument(
            help="list, show NAME, pocket NAME (its twin on the embedded model), control NAME; schema or reference "
            "of all keys."
        ),
    ] = "list",
    name: Annotated[str | None, typer.Argument(help="A built-in recipe or search space, or a file.")] = None,
    kind: Annotated[
        str | None, typer.Option("--as", help="Which control: ungated, one-mixture, reversed or flipped.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe here instead of printing it.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the built-in recipes and the question that each one asks; show one, or make its twin or a control."""
    if action in ("schema", "reference") and name is None and kind is None and not as_json:
        from equipoise.commands_init import document_command

        return document_command(action, out)
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
