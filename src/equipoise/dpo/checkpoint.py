"""Checkpoints from which a killed stage continues to the same bits: safetensors only, verified on reading."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from equipoise.run_folder import write_bytes, write_json

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimiser steps."""

    step: int
    tensors: dict[str, Tensor]


def save(folder: Path, step: int, parameters: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Write parameters, AdamW's moments and the random state; the new checkpoint replaces the one before."""
    tensors = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    for name, parameter in parameters.items():
        tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].detach().cpu().contiguous()
    data = safetensors.torch.save(tensors)
    path = folder / f"step-{step:06d}.safetensors"
    write_bytes(path, data)
    write_json(folder / "latest.json", {"step": step, "file": path.name, "sha256": hashlib.sha256(data).hexdigest()})
    for older in folder.glob("step-*.safetensors"):
        if older != path:
            older.unlink()


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None where there is none or it is damaged (which is said)."""
    try:
        pointer = json.loads((folder / "latest.json").read_text())
        data = (folder / pointer["file"]).read_bytes()
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, KeyError):
        data, pointer = b"", {"sha256": "", "file": "latest.json", "step": 0}
    if hashlib.sha256(data).hexdigest() != pointer["sha256"]:
        print(
            f"equipoise: {folder / pointer['file']}: damaged; the stage starts again from its beginning",
            file=sys.stderr,
        )
        return None
    return Checkpoint(pointer["step"], safetensors.torch.load(data))


def restore(
    checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Put a checkpoint's state back."""
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(checkpoint.tensors[f"parameter/{name}"])
        state = {moment: checkpoint.tensors[f"{moment}/{name}"] for moment in MOMENTS}
        optimizer.state[parameter] = {
            moment: value if moment == "step" else value.to(parameter.device) for moment, value in state.items()
        }
    torch.set_rng_state(checkpoint.tensors["random"])
    if "random_cuda" in checkpoint.tensors:
        torch.cuda.set_rng_state(checkpoint.tensors["random_cuda"])
