"""What all commands share: the program, how errors become one line and an exit code, options that mean the same."""

from __future__ import annotations

import errno
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

ORDER = (
    *("init", "plan", "data", "run", "watch", "verify", "report", "ui", "eval", "compare", "audit-table"),
    *("study", "leaderboard", "recommend", "search", "merge", "export", "recipes", "doctor"),
)
"""The commands as a user meets them: one experiment, its evidence, many experiments, shipping."""


class Commands(TyperGroup):
    """The commands in their order."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order in which `--help` shows them."""
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    cls=Commands,
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
