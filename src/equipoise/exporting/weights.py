"""Writes what is exported, as plain PEFT and transformers read it: adapters, or the merged model with its tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from equipoise.exporting.choice import Chosen
from equipoise.exporting.public import base_name, make_public
from equipoise.model import adapters
from equipoise.model.load import Loaded, load_policy, model_folder, policy_identity
from equipoise.recipe import ModelSpec
from equipoise.records import InputError
from equipoise.run_folder import read_json, write_json
from equipoise.study.merge import Blend, merge

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BESIDE = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json", "generation_config.json"),
    *("*.model", "*.py"),
)
"""Files of a base model that a merged one needs as they are: tokenizer, chat template, generation settings, code."""


def as_evaluated(chosen: Chosen) -> ModelSpec:
    """The base model in the precision in which the run loaded it, which `auto` leaves to the device."""
    spec = chosen.recipe.model
    if spec.dtype != "auto":
        return spec
    return spec.model_copy(update={"dtype": "bfloat16" if chosen.provenance.get("device") == "cuda" else "float32"})


def require_same_base(chosen: Chosen, spec: ModelSpec, device: torch.device) -> None:
    """Raises InputError where the base model is not there, or not the one that the run trained."""
    if policy_identity(spec, device) != chosen.provenance.get("model"):
        raise InputError(
            f"model.id: {spec.id}: not the model that {chosen.run.folder} trained: its weights, configuration, "
            "tokenizer or chat template were changed since; give the run its model back"
        )


def write_adapter(loaded: Loaded, chosen: Chosen, to: Path) -> None:
    """Write one PEFT adapter that does what all adapters of the stack do together.

    Adapters add up, so the matrices of several put beside each other (the ranks add up, alpha / rank goes into A) are
    the same function. Raises InputError for adapters that are no plain LoRA.
    """
    if len(chosen.adapters) == 1:
        _copy(chosen.adapters[0], to)
    else:
        merge(loaded, chosen.adapters, Blend((1.0,) * len(chosen.adapters)), to)
        (to / "merge.json").unlink()  # export.json says it
    _name_base(to, chosen.recipe.model.id)


def write_adapters(chosen: Chosen, to: Path) -> list[Path]:
    """Write every adapter of the stack to a folder of its own, and return the folders in order."""
    folders = []
    for stage, source in chosen.parts:
        folder = to / (stage if source.name == "adapter" else f"{stage}-{source.name}")
        _copy(source, folder)
        _name_base(folder, chosen.recipe.model.id)
        folders.append(folder)
    return folders


def write_merged(loaded: Loaded, spec: ModelSpec, adapter: Path, to: Path) -> None:
    """Write the model with the adapter in its weights, in the model's precision; `loaded` cannot be used any more.

    Weights in 4 bits are unpacked first, so that the merged model has the base weights that were evaluated.
    """
    model = adapters.base_of(loaded.model)
    if spec.quantization:
        model = model.dequantize().to(getattr(torch, spec.dtype))
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload(safe_merge=True)
    merged.config._name_or_path = ""
    merged.save_pretrained(str(to))
    base = model_folder(spec.id, spec.revision, what="model.id")
    for pattern in BESIDE:
        for path in base.glob(pattern):
            shutil.copyfile(path, to / path.name)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        make_public(to / name)


def load_merged(spec: ModelSpec, folder: Path, device: torch.device) -> Loaded:
    """Load a merged model and its tokenizer from its own folder."""
    alone = {"id": str(folder), "revision": None, "quantization": None}
    return load_policy(spec.model_copy(update=alone), device)


def with_adapters(loaded: Loaded, folders: list[Path]) -> Any:
    """The base model with exported adapters, as PEFT loads them."""
    return adapters.attach(loaded, folders)


def _copy(adapter: Path, to: Path) -> None:
    to.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copyfile(adapter / name, to / name)


def _name_base(folder: Path, id: str) -> None:
    """Name the base model in an adapter as others know it: a hub id, or the last part of a local folder."""
    write_json(folder / CONFIG, {**read_json(folder / CONFIG), "base_model_name_or_path": base_name(id)})
