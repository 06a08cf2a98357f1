"""The bodies of the commands that help to write recipes: `init`, `recipes schema`, `recipes reference`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.commands import quiet
from equipoise.recipe_parts import NAME
from equipoise.records import InputError
from equipoise.run_folder import write_text

SCHEMA = "recipe.schema.json"
"""Where a file of this name lies beside a recipe, the recipe points editors to it."""
MODEL = "Which model? A hub id, a local folder, or pocket (embedded, to try things out)"


@dataclass(frozen=True)
class InitOptions:
    """What the command line of `init` says."""

    model: str | None
    data: Sequence[str]
    general: str | None
    domain: str | None
    kind: str | None
    columns: str | None
    split: str
    reward: str | None
    tasks: str | None
    eval_data: Sequence[str]
    pairs: int | None
    quantization: str | None


def init_command(file: Path, asked: InitOptions, yes: bool, force: bool) -> int:
    """Write a commented recipe and check it; returns 1 where a run of it would stop."""
    if file.exists() and not force:
        raise InputError(f"{file}: exists already; name another file, or write over it with --force")
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"{file}: not a file that can be written; name one in a folder that exists")
    quiet()
    from equipoise.init.answers import Answers, parse_columns, parse_eval_data, require_answers

    talks = not yes and sys.stdin.isatty()
    model = asked.model or (_ask(MODEL, "pocket") if talks else None)
    if model is None:
        raise InputError("init: name a model with --model: a hub id, a folder, or pocket (embedded, needs no --data)")
    answers = Answers(
        model=model,
        data=tuple(asked.data),
        general=asked.general,
        domain=asked.domain,
        kind=asked.kind,
        columns=parse_columns(asked.columns) if asked.columns else {},
        split=asked.split,
        reward=asked.reward,
        tasks=tuple(part.strip() for part in asked.tasks.split(",")) if asked.tasks else (),
        eval_data=parse_eval_data(asked.eval_data),
        pairs=asked.pairs,
        quantization=asked.quantization,
    )
    if talks:
        from equipoise.init.ask import ask_rest

        answers = ask_rest(answers, _ask, print)
    require_answers(answers)
    from equipoise.init.write import make_recipe  # what it needs takes seconds to import

    name = None if file.stem == "recipe" or not re.fullmatch(NAME, file.stem) else file.stem
    editors = [f"yaml-language-server: $schema={SCHEMA}"] if (file.parent / SCHEMA).is_file() else []
    made = make_recipe(answers, str(file), name, editors)
    write_text(file, made.text)
    for line in made.told:
        print(line)
    for line in made.checked.notes:
        print(f"! {line}")
    print(f"checked: {'; '.join(made.checked.done)}")
    if made.checked.left:
        print(f"left to equipoise plan: {'; '.join(made.checked.left)}")
    for line in made.checked.wrong:
        print(f"equipoise: a run would stop: {line}", file=sys.stderr)
    print(f"recipe: {file}")
    return 1 if made.checked.wrong else 0


def _ask(question: str, default: str) -> str:
    import typer

    return str(typer.prompt(question, default=default, show_default=bool(default))).strip()


def document_command(kind: str, out: Path | None) -> None:
    """Print or write the JSON Schema (`schema`) or the reference (`reference`) of recipes."""
    if kind == "schema":
        from equipoise.reference.schema import schema_text as text
    else:
        from equipoise.reference.pages import reference_text as text
    if out is None:
        print(text(), end="")
        return
    write_text(out, text())
    print(out)
