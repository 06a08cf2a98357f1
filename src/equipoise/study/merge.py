"""One adapter made of several, through PEFT's `add_weighted_adapter`; the result is a plain PEFT folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equipoise.model import adapters
from equipoise.model.load import Loaded
from equipoise.records import InputError
from equipoise.run_folder import read_json, sha256, write_json

METHODS = (
    "cat",
    "svd",
    "linear",
    "ties",
    "ties_svd",
    "dare_linear",
    "dare_linear_svd",
    "dare_ties",
    "dare_ties_svd",
    "magnitude_prune",
    "magnitude_prune_svd",
)
PRUNED = ("ties", "dare", "magnitude")
"""Methods that keep a part (`density`) of the values only."""


@dataclass(frozen=True, slots=True)
class Blend:
    """How adapters become one: a weight for each, PEFT's method, and a factor on the whole.

    `scale` interpolates between the base (0) and the merged model (1). `density` is the share of values that pruning
    methods keep, `seed` that of the random ones (dare).
    """

    weights: tuple[float, ...]
    method: str = "cat"
    density: float = 0.5
    scale: float = 1.0
    seed: int = 0

    @property
    def prunes(self) -> bool:
        """Whether the method keeps only a part of the values."""
        return self.method.startswith(PRUNED)


def require_mergeable(folders: Sequence[Path], blend: Blend) -> str:
    """Return the id of the base model; raises InputError where these adapters cannot be merged in this way.

    `folders` are plain adapters; those of the domains of a stage are found by `adapters.each`.
    """
    if len(blend.weights) != len(folders):
        named = ", ".join(map(str, folders))
        raise InputError(f"--weights: {len(blend.weights)} for {len(folders)} adapters; give one for each: {named}")
    if blend.method not in METHODS:
        raise InputError(f"--method {blend.method}: one of {', '.join(METHODS)}")
    configs = [_config(folder) for folder in folders]
    for folder, config in zip(folders, configs, strict=True):
        if config["base_model_name_or_path"] != configs[0]["base_model_name_or_path"]:
            raise InputError(
                f"{folder}: an adapter of {config['base_model_name_or_path']}, and {folders[0]} is one of "
                f"{configs[0]['base_model_name_or_path']}; only adapters of one base model can be merged"
            )
        if config["peft_type"] != "LORA" or config.get("use_dora"):
            raise InputError(f"{folder}: only plain LoRA adapters can be merged")
        if config["r"] != configs[0]["r"] and blend.method != "cat" and not blend.method.endswith("svd"):
            raise InputError(
                f"{folder}: rank {config['r']}, and {folders[0]} has rank {configs[0]['r']}: --method {blend.method} "
                "adds the matrices one by one and needs equal ranks; use cat or svd"
            )
    return str(configs[0]["base_model_name_or_path"])


def merge(loaded: Loaded, folders: Sequence[Path], blend: Blend, out: Path) -> None:
    """Write the merged adapter to `out`, whole or not at all; leaves the model without adapters.

    Raises InputError as `require_mergeable` does, for an adapter that does not fit the model, and where `out` holds
    anything.
    """
    base = require_mergeable(folders, blend)
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: holds files already; choose another --out")
    model = adapters.attach(loaded, folders)
    try:
        _add(model, blend)
        model.peft_config[adapters.TRAINED].base_model_name_or_path = base
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside:
            adapters.save(model, Path(aside) / "adapter")
            write_json(Path(aside) / "adapter" / "merge.json", _record(folders, blend))
            if out.exists():
                out.rmdir()
            shutil.move(Path(aside) / "adapter", out)
    finally:
        adapters.detach(model)


def _add(model: Any, blend: Blend) -> None:
    """Add the merged adapter beside those that it is made of."""
    torch.manual_seed(blend.seed)
    names = list(model.peft_config)
    options = {"density": blend.density} if blend.prunes else {}
    try:
        model.add_weighted_adapter(
            names, list(blend.weights), adapters.TRAINED, combination_type=blend.method, **options
        )
    except ValueError as error:
        raise InputError(f"--method {blend.method}: {str(error).splitlines()[0]}") from None
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".{adapters.TRAINED}." in name and "lora_B" in name:
                parameter.mul_(blend.scale)


def _config(folder: Path) -> Any:
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder}: not an adapter: adapter_config.json is missing")
    return read_json(folder / "adapter_config.json")


def _place(folder: Path) -> str:
    """Where an adapter lay in its run: `<stage>/adapter`, or `<stage>/adapter/<domain>`."""
    return "/".join(folder.parts[-3 if folder.parent.name == "adapter" else -2 :])


def _record(folders: Sequence[Path], blend: Blend) -> dict[str, Any]:
    """What the result is made of, without the places where that lay."""
    parts = [
        {
            "name": _place(folder.resolve()),
            "sha256": sha256(folder / "adapter_model.safetensors"),
            "weight": weight,
        }
        for folder, weight in zip(folders, blend.weights, strict=True)
    ]
    record = {"adapters": parts, "method": blend.method, "scale": blend.scale}
    return {**record, "density": blend.density, "seed": blend.seed} if blend.prunes else record
