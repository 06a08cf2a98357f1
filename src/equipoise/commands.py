"""The bodies of the commands: read input, call the part that does it, show the result."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from equipoise import console
from equipoise.cli_base import print_json
from equipoise.recipe import Recipe
from equipoise.recipe_file import load_recipe, parse_recipe
from equipoise.recipe_parts import NAME
from equipoise.recipe_text import plain_recipe, question_of, recipe_text
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json, write_text


def recipe_folder() -> Path:
    """Folder of the built-in recipes: in the installed package, or in the source tree."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(path: Path) -> Path:
    """A recipe file, or a built-in recipe by its name."""
    if path.exists() or path.parent != Path():
        return path
    wanted = path.name.removesuffix(".yaml")
    return next((found for found in built_in_recipes() if found.stem == wanted), path)


def built_in_recipes() -> list[Path]:
    """Files of the built-in recipes and search spaces, those that begin with a plain name first."""
    return sorted(recipe_folder().rglob("*.yaml"), key=lambda path: (len(path.parts), path))


def run_command(recipe: Path | None, overrides: Sequence[str], out: Path, name: str | None, resume: Path | None) -> int:
    """Run or resume an experiment; returns the exit code. Of several processes the main one shows what it does."""
    quiet()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from equipoise.dpo.job import lead_or_follow

        return lead_or_follow(lambda team: _run(recipe, overrides, out, name, resume, team=team))
    return _run(recipe, overrides, out, name, resume)


def _run(
    recipe: Path | None, overrides: Sequence[str], out: Path, name: str | None, resume: Path | None, **options: Any
) -> int:
    loaded, text, folder = _what_to_run(recipe, overrides, out, name, resume)
    from equipoise.dpo.distributed import TrainingStopped
    from equipoise.report.html import write_report
    from equipoise.stages import run_recipe

    with console.Terminal() as display:
        try:
            outcome = run_recipe(
                loaded, text, Run(folder), display, resume=resume is not None, report=write_report, **options
            )
        except TrainingStopped as error:
            display.say(f"equipoise: {error}")
            return 1
    show_outcome(outcome.run, outcome.verdict)
    return 0 if outcome.passed else 1


def _what_to_run(
    recipe: Path | None, overrides: Sequence[str], out: Path, name: str | None, resume: Path | None
) -> tuple[Recipe, str, Path]:
    """The recipe, its text and the run folder."""
    if resume is None:
        if recipe is None:
            raise InputError("name a recipe, or --resume a run; `equipoise recipes` lists the built-in ones")
        path = find_recipe(recipe)
        loaded = load_recipe(path, overrides)
        if name is not None and not re.fullmatch(NAME, name):
            raise InputError(f"--name {name!r}: letters, digits, '.', '_' and '-', not beginning with a sign")
        return loaded, path.read_text(encoding="utf-8"), out / (name or loaded.name)
    if recipe and not (resume / "recipe.json").is_file() and not Run(resume).begun:
        path = find_recipe(recipe)  # killed before anything was written: there is only the recipe to go on from
        return load_recipe(path, overrides), path.read_text(encoding="utf-8"), resume
    stored = read_json(Run.open(resume).folder / "recipe.json")
    text = json.dumps({key: value for key, value in stored.items() if key != "fingerprint"})
    loaded = load_recipe(find_recipe(recipe), overrides) if recipe else parse_recipe(text, overrides, where=str(resume))
    return loaded, text, resume


def show_outcome(run: Run, verdict: dict[str, Any]) -> None:
    """The end of a run: gates, verdict, and where the report is."""
    console.gate_table(verdict["gates"])
    kept, point = verdict["kept_stage"], verdict["point"]
    title = f"Verdict: base against {point} (test items)"
    if kept == "base" and point != "base":
        title = f"No stage was kept: the base model stays. What the refused stage {point} did (test items):"
    console.verdict_table(verdict, title)
    for warning in cautions(run):
        print(f"! {warning}")
    print(f"kept: {kept}")
    print(f"report: {run.folder / 'report.html'}")


def cautions(run: Run) -> list[str]:
    """What the report says one must not overlook beside the scores."""
    from equipoise.report.figures import figures
    from equipoise.report.read import read_run
    from equipoise.report.words import warnings as words_of_warning

    files = read_run(run)
    return words_of_warning(files, figures(files))


def plan_command(recipe: Path, overrides: Sequence[str], measure: bool, gpu: float | None, as_json: bool) -> None:
    """Print the plan."""
    quiet()
    loaded = load_recipe(find_recipe(recipe), overrides)
    from equipoise.planning import make_plan

    with console.Terminal() as display:
        result = make_plan(loaded, measure=measure, gpu=gpu, display=display)
    print_json(result) if as_json else console.plan_tables(result)


def data_command(recipe: Path, overrides: Sequence[str], show: int, as_json: bool) -> None:
    """Print the ledger, and examples with the trained-on tokens marked."""
    quiet()
    loaded = load_recipe(find_recipe(recipe), overrides)
    from equipoise.data.ledger import problems
    from equipoise.model.load import policy_tokenizer
    from equipoise.models import Models
    from equipoise.preparation import Preparation, examples
    from equipoise.store import Store

    tokenizer, store = policy_tokenizer(loaded.model), Store()
    with console.Terminal() as display:
        prepared = Preparation(loaded, tokenizer, display, store, Models(loaded, store, display)).begin()
    shown = examples(loaded, prepared, tokenizer, show)
    if as_json:
        print_json({**prepared.ledger.record(), "problems": problems(prepared.ledger), "examples": shown})
        return
    console.ledger_tables(prepared.ledger.record())
    for sentence in problems(prepared.ledger):
        print(sentence)
    for example in shown:
        console.example(example)


def verify_command(folder: Path, as_json: bool) -> int:
    """Print what does not agree; returns 1 where anything does not."""
    from equipoise.report.html import page
    from equipoise.report.read import read_run
    from equipoise.verify import verify

    run = Run.open(folder)
    problems = verify(run)
    report = run.folder / "report.html"
    if not report.is_file() or report.read_text(encoding="utf-8") != page(read_run(run)):
        problems.append(f"report.html: not what the run's files give; write it again with: equipoise report {folder}")
    if as_json:
        print_json({"run": run.name, "problems": problems})
    else:
        print("\n".join(problems) if problems else f"{folder}: every file and every figure is as its records give")
    return 1 if problems else 0


def recipes_command(action: str, name: str | None, kind: str | None, out: Path | None, as_json: bool) -> None:
    """List the built-in recipes, print one of them, or make its pocket twin or a control."""
    if action == "list" and name is None and out is None:
        return _list_recipes(as_json)
    known = action in ("show", "pocket", "control") and name is not None
    if not known or (action == "show" and out is not None) or (action == "control") != (kind is not None):
        raise InputError(
            "recipes: write `recipes`, `recipes show NAME`, `recipes pocket NAME [--out FILE]`, "
            "`recipes control NAME --as KIND [--out FILE]`, `recipes schema` or `recipes reference`"
        )
    assert name is not None
    path = find_recipe(Path(name))
    if not path.is_file():
        raise InputError(f"recipes {action}: no recipe {name!r}; `equipoise recipes` lists them")
    text = path.read_text(encoding="utf-8") if action == "show" else _made(path, kind)
    if out is not None:
        write_text(out, text)
    if as_json:
        return print_json({"name": path.stem, "text": text})
    return print(text, end="") if out is None else print(out)


def _list_recipes(as_json: bool) -> None:
    rows = []
    for path in built_in_recipes():
        question = question_of(path.read_text(encoding="utf-8"))
        rows.append({"name": path.stem, "question": question, "file": str(path)})
    if as_json:
        print_json(rows)
    else:
        console.table("Recipes", ("name", "question"), [(row["name"], row["question"]) for row in rows])


def _made(path: Path, kind: str | None) -> str:
    """The text of a recipe's control of a kind, or of its pocket twin."""
    from equipoise import controls

    recipe = load_recipe(path)
    question = question_of(path.read_text(encoding="utf-8"))
    if kind is not None:
        made = controls.control(plain_recipe(recipe), kind)
        title = controls.title(question, recipe.name, kind)
    else:
        twins = import_module("equipoise.pocket.twin")
        made, title = twins.twin(plain_recipe(recipe)), twins.title(question, recipe.name)
    return recipe_text(made, title)


def doctor_command(as_json: bool) -> int:
    """Print what this machine can do; returns 1 where something that every run needs is missing."""
    quiet()
    facts = machine_facts()
    if as_json:
        print_json(facts)
    else:
        console.table("This machine", ("what", "finding"), [(key, value) for key, value in facts.items()])
    return 0 if facts["cache folder"].endswith("writable") else 1


def machine_facts() -> dict[str, str]:
    """Versions, cores, memory, accelerator, optional packages, cache folder."""
    import torch

    from equipoise.model.memory import machine_memory
    from equipoise.store import cache_folder

    folder = cache_folder()
    near = next(path for path in (folder, *folder.parents) if path.exists())
    cuda = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none (runs on the CPU)"
    facts = {
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "memory": f"{machine_memory() / 2**30:.1f} GiB",
        "accelerator": cuda,
        "bfloat16 on CPU": torch.backends.cpu.get_cpu_capability(),
        "cache folder": f"{folder}: {'writable' if os.access(near, os.W_OK) else 'NOT writable; set EQUIPOISE_CACHE'}",
        "free disk": f"{shutil.disk_usage(near).free / 2**30:.1f} GiB",
        "hub": "offline (HF_HUB_OFFLINE is set)"
        if os.environ.get("HF_HUB_OFFLINE") == "1"
        else "asked when an id needs it",
    }
    facts["cache folder"] = facts["cache folder"].replace(str(Path.home()), "~")
    for package in ("torch", "transformers", "peft", "accelerate", "bitsandbytes"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = (
                "not installed (needed for quantization: nf4 only)" if package == "bitsandbytes" else "MISSING"
            )
    return facts


def quiet() -> None:
    """Keep the libraries' own warnings and bars out of the output."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", module=r"(peft|transformers|torch)\..*")
