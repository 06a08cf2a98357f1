"""The story of an export: choose -> write aside -> load again and compare -> card -> put in place -> push."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from equipoise.exporting.card import CardFacts, write_card
from equipoise.exporting.choice import Chosen, choose
from equipoise.exporting.failure import ExportFailed
from equipoise.exporting.gguf_file import write_gguf
from equipoise.exporting.gguf_rules import require_gguf
from equipoise.exporting.probes import Check, check, logps, probe_pairs
from equipoise.exporting.public import base_name
from equipoise.exporting.push import Hub
from equipoise.exporting.weights import (
    as_evaluated,
    load_merged,
    require_same_base,
    with_adapters,
    write_adapter,
    write_adapters,
    write_merged,
)
from equipoise.model import adapters
from equipoise.model.load import Loaded, default_device, load_policy, model_folder
from equipoise.progress import Display
from equipoise.recipe import ModelSpec
from equipoise.records import InputError
from equipoise.run_folder import Run, sha256, write_json

Form = Literal["adapter", "adapters", "merged"]
"""One adapter for the whole stack, one folder for each stage, or a model with the adapters in its weights."""


@dataclass(frozen=True)
class Exported:
    """Where the export is, what `export.json` says, and its address on the hub where it was pushed."""

    folder: Path
    record: dict[str, Any]
    url: str | None = None


def export_run(
    run: Run,
    to: Path,
    display: Display,
    *,
    form: Form = "adapter",
    stage: str | None = None,
    push: str | None = None,
    gguf: bool = False,
) -> Exported:
    """Write the export of a finished run to `to`, whole or not at all, and push it where `push` names a repository.

    `gguf` writes `model.gguf` beside a merged model.

    Raises InputError for what the user can mend, ExportFailed where the export is not the model that was evaluated
    (nothing is left behind), or where the hub refuses it (the folder stays).
    """
    chosen = choose(run, stage)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise InputError(f"--to {to}: exists and is not an empty folder; choose another one")
    hub = Hub.open(push) if push else None
    spec, device = as_evaluated(chosen), default_device()
    require_same_base(chosen, spec, device)
    base = model_folder(spec.id, spec.revision, what="model.id")
    if gguf:
        require_gguf(base)
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as aside:
        folder = Path(aside) / "export"
        display.say(f"export: {' + '.join(chosen.stages)} as {_NAMES[form]}")
        done, templated = _write_and_check(chosen, spec, device, form, folder)
        if not done.passed:
            raise ExportFailed(f"the export is not the model that was evaluated, nothing is written: {done.words()}")
        display.say(f"export: {done.words()}")
        if gguf:
            write_gguf(folder, run.name)
        folders = tuple(path.name for path in sorted(folder.iterdir()) if path.is_dir())
        write_card(CardFacts(chosen, spec, base, form, done, folders, templated, gguf, push), folder)
        record = _record(chosen, spec, form, done, folder)
        write_json(folder / "export.json", record)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)  # weights are written for their owner alone
        if to.exists():
            to.rmdir()
        folder.rename(to)
    return Exported(to, record, hub.upload(to, _commit_message(chosen)) if hub else None)


_NAMES: dict[Form, str] = {"adapter": "one adapter", "adapters": "one adapter a stage", "merged": "a merged model"}


def _write_and_check(
    chosen: Chosen, spec: ModelSpec, device: torch.device, form: Form, folder: Path
) -> tuple[Check, bool]:
    """Write the weights, load them again and compare; also whether the chat template knows thinking."""
    loaded = load_policy(spec, device)
    templated = "enable_thinking" in str(loaded.tokenizer.chat_template)
    pairs = probe_pairs(chosen, loaded.tokenizer)
    base = logps(loaded.model, pairs)
    before = _with(loaded, chosen.adapters, pairs)
    if form == "adapters":
        after = _with(loaded, write_adapters(chosen, folder), pairs)
    elif form == "adapter":
        write_adapter(loaded, chosen, folder)
        after = _with(loaded, [folder], pairs)
    else:
        with tempfile.TemporaryDirectory(dir=folder.parent) as single:
            write_adapter(loaded, chosen, Path(single) / "adapter")
            write_merged(loaded, spec, Path(single) / "adapter", folder)
        del loaded
        gc.collect()
        merged = load_merged(spec, folder, device)
        if probe_pairs(chosen, merged.tokenizer) != pairs:
            raise ExportFailed("the tokenizer of the export does not give the tokens of the base model's")
        after = logps(merged.model, pairs)
    return check(pairs, base, before, after, spec.dtype), templated


def _with(loaded: Loaded, folders: list[Path], pairs: Any) -> list[float]:
    """`logps` with adapters, which are taken off again."""
    model = with_adapters(loaded, folders)
    try:
        return logps(model, pairs)
    finally:
        adapters.detach(model)


def _record(chosen: Chosen, spec: ModelSpec, form: Form, done: Check, folder: Path) -> dict[str, Any]:
    """export.json: what was exported, from what, and how it was proven."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "run": chosen.run.name,
        "form": form,
        "stages": list(chosen.stages),
        "kept": chosen.kept,
        "base": {
            "id": base_name(spec.id),
            "revision": spec.revision,
            "identity": chosen.provenance.get("model"),
            "dtype": spec.dtype,
            "quantization": spec.quantization,
        },
        "adapters": [
            {"stage": stage, "sha256": sha256(path / "adapter_model.safetensors")} for stage, path in chosen.parts
        ],
        "check": done.record(),
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }


def _commit_message(chosen: Chosen) -> str:
    return f"{chosen.run.name}: {' + '.join(chosen.stages)}"
