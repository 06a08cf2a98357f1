"""One of the original commands: parse, show the recipe, save it beside the run, run it.

Exit codes are those of `equipoise run`: 0 done and every gate passed, 1 a gate failed, 2 the input is wrong.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equipoise.compat.flags import FLAGS, parser

LASTING = [name for name in FLAGS if name not in ("stage", "resume_from_checkpoint")]
"""Flags whose values the next stage's command takes over where it does not give its own."""

if TYPE_CHECKING:
    from equipoise.recipe import Recipe
    from equipoise.run_folder import Run
    from equipoise.stages import Outcome


def main(program: str, arguments: Sequence[str] | None = None) -> int:
    """Run `program` (`dpo_train_mt`, `dpo_train_mt_v2`, `run_3way_hybrid`) with its flags; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parsed = parser(program).parse_args(words)
    from equipoise.commands import quiet  # only now, so that --help answers at once
    from equipoise.records import InputError

    quiet()
    try:
        return _run(program, words, parsed)
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; give the same command again to go on", file=sys.stderr)
        return 130


def _run(program: str, words: Sequence[str], parsed: argparse.Namespace) -> int:
    from equipoise.compat.explain import meanings, replaced
    from equipoise.compat.translate import mode_of, output_dir, recipe_of, run_name, settings_of
    from equipoise.recipe_file import parse_recipe
    from equipoise.run_folder import Run

    given = {name: value for name, value in vars(parsed).items() if name in FLAGS}
    settings = settings_of(program, given)
    out, name = Path(output_dir(settings)), run_name(settings)
    before: Run | None = None
    asked = given
    said: list[str] = []
    if settings["progressive"] and settings["stage"] > 1:
        before, stored, said = _before(out, name, settings["stage"], show=parsed.show)
        asked = {**stored, **given}
    settings = settings_of(program, asked)
    mode, values = mode_of(settings), recipe_of(settings)
    text = _text(values, program, words, asked if parsed.pocket else None)
    print(text)
    said += meanings(given, mode, values["sources"]) + (replaced(given, mode) if parsed.pocket else [])
    for sentence in said:
        print(f"! {sentence}")
    recipe = parse_recipe(text, where=program)
    if parsed.show:
        return 0
    if settings["no_train"]:
        return _evaluate(recipe, settings["load_adapter"], out / f"{name}-scores")
    _require_possible(settings, Run(out / name))
    lasting = {flag: asked[flag] for flag in LASTING if flag in asked}
    log = Path(settings["exp_log"]) if settings["exp_log"] else None
    return _train(recipe, text, Run(out / name), before, lasting, log)


def _before(out: Path, name: str, stage: int, *, show: bool) -> tuple[Run, dict[str, Any], list[str]]:
    """The run of the stage before `stage`, its flags, and with `show` why it cannot be gone on from yet.

    Raises InputError for the same reason where the run is needed.
    """
    from equipoise.compat.staged import earlier_run, require_finished
    from equipoise.records import InputError
    from equipoise.run_folder import read_json

    run, said = earlier_run(out, name, stage), []
    try:
        require_finished(run, stage)
    except InputError as error:
        if not show:
            raise
        said = [str(error)]
    flags = _flags_file(run)
    return run, read_json(flags) if flags.is_file() or not said else {}, said


def _require_possible(settings: Mapping[str, Any], run: Run) -> None:
    """Raises InputError for a start that a run cannot have."""
    from equipoise.records import InputError

    if settings["load_adapter"]:
        raise InputError(
            "--load_adapter: a run begins with the base model and goes on from its own stages; use --progressive "
            "--stage N, or evaluate the adapter with --no_train"
        )
    if settings["resume_from_checkpoint"] and not run.begun:
        raise InputError(
            f"--resume_from_checkpoint: there is no {run.folder}; leave the flag out, or give the run's --exp_tag"
        )


def _train(recipe: Recipe, text: str, run: Run, before: Run | None, flags: Mapping[str, Any], log: Path | None) -> int:
    """Run the recipe, or go on with its run; the recipe and the `flags` that were given are saved beside it first."""
    import equipoise
    from equipoise.beginning import require_same_recipe
    from equipoise.run_folder import write_json, write_text

    shown = Lines()
    require_same_recipe(recipe, run)
    if before is not None:
        from equipoise.compat.staged import carry_over, require_continuation

        require_continuation(before, recipe)
        if not run.begun and not carry_over(before, run, recipe, shown):
            shown.say("the new stage changes what the earlier ones draw: they are trained again")
    write_text(run.folder.with_name(f"{run.name}.yaml"), text)
    write_json(_flags_file(run), flags)
    outcome = equipoise.run(recipe, out=run.folder.parent, name=run.name, text=text, resume=run.begun, display=shown)
    _tell(outcome, log)
    return 0 if outcome.passed else 1


class Lines:
    """A display of plain lines on stderr."""

    def say(self, text: str) -> None:
        """Print the line."""
        print(text, file=sys.stderr)

    def begin(self, title: str, total: int | None = None) -> Callable[..., None]:
        """Print what begins; how far it is goes unsaid."""
        self.say(title)
        return lambda done=0, note="": None


def _flags_file(run: Run) -> Path:
    """Where a command leaves its flags for the command of the next stage."""
    return run.folder.with_name(f"{run.name}.flags.json")


def _text(recipe: dict[str, Any], program: str, words: Sequence[str], pocket: Mapping[str, Any] | None) -> str:
    """The recipe's text, or with the flags of `pocket` its twin's; the first line asks what every command line asks."""
    from importlib import import_module

    from equipoise.compat.parts import with_limits
    from equipoise.recipe_text import plain_recipe, recipe_text

    question = "What does this known command line do to every domain?"
    command = shlex.join([f"{program}.py", *words])
    if pocket is not None:
        from equipoise.recipe_file import parse_recipe

        written = plain_recipe(parse_recipe(recipe_text(recipe, question), where=program))
        twin = import_module("equipoise.pocket.twin")
        made = {**twin.twin(written), "name": recipe["name"]}
        recipe, question = with_limits(made, pocket), twin.title(question, recipe["name"])
    return recipe_text(recipe, question, [command])


def _evaluate(recipe: Recipe, adapter: str, folder: Path) -> int:
    """`--no_train`: scores of the base model, or of it with `--load_adapter`."""
    import equipoise
    from equipoise.model.adapters import of_another_base
    from equipoise.run_folder import write_lines

    adapters = [adapter] if adapter else []
    for sentence in of_another_base(recipe.model.id, [Path(folder) for folder in adapters]):
        print(f"warning: {sentence}", file=sys.stderr)
    scores = equipoise.evaluate(
        recipe.model, recipe.evaluation, reward=recipe.reward, adapters=adapters, seed=recipe.seed, display=Lines()
    )
    for task, records in scores.items():
        write_lines(folder / f"{task}.jsonl", (score.record() for score in records))
        values = [score.value for score in records if score.value is not None]
        mean = f"{sum(values) / len(values):.4f}" if values else "-"
        print(f"{task}: {mean} on {len(values)} of {len(records)} questions")
    print(f"scores: {folder}")
    return 0


def _tell(outcome: Outcome, log: Path | None) -> None:
    """The verdict on stdout, and one line for the file of `--exp_log`."""
    domains = {key: found for key, found in outcome.verdict.items() if isinstance(found, dict) and "verdict" in found}
    for domain, found in domains.items():
        print(f"{domain}: {found['before']:.4f} -> {found['after']:.4f}: {found['verdict']}")
    print(f"kept: {outcome.verdict['kept_stage']}")
    print(f"report: {outcome.run.folder / 'report.html'}")
    if log is not None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "tag": outcome.run.name,
            "run": str(outcome.run.folder),
            "kept_stage": outcome.verdict["kept_stage"],
            **domains,
        }
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
