"""The body of `export`."""

from __future__ import annotations

import sys
from pathlib import Path

from equipoise import console
from equipoise.cli_base import print_json
from equipoise.commands import quiet
from equipoise.records import InputError
from equipoise.run_folder import Run


def export_command(
    run: Path, to: Path, merge: bool, separate: bool, gguf: bool, push: str | None, stage: str | None, as_json: bool
) -> int:
    """Export a run; returns 1 where the export could not be proven, or the hub did not take it."""
    if separate and (merge or gguf):
        raise InputError("--separate: writes adapters, and --merge and --gguf one whole model; give one of them")
    opened = Run.open(run)
    quiet()
    from equipoise.exporting.export import Form, export_run
    from equipoise.exporting.failure import ExportFailed

    form: Form = "merged" if merge or gguf else "adapters" if separate else "adapter"
    with console.Terminal() as display:
        try:
            done = export_run(opened, to, display, form=form, stage=stage, push=push, gguf=gguf)
        except ExportFailed as error:
            print(f"equipoise: {error}", file=sys.stderr)
            return 1
    if as_json:
        print_json({**done.record, "to": str(done.folder), "url": done.url})
    else:
        print(f"exported: {done.folder} (its README.md is the model card)")
        if done.url:
            print(f"pushed: {done.url}")
    return 0
