"""Checkpoints from which a killed stage continues to the same bits: safetensors only, verified on reading.

Names of tensors: `parameter/<name>`; `optimizer/<name>/<key>` for what the optimiser keeps of a parameter on its
device (further `/` for nested mappings), `host/...` for what it keeps on the CPU, `number/...` for plain numbers;
`random.../<process>` for random states; `margin` for the running mean by which an adaptive beta goes.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from equipoise.dpo.distributed import ALONE, Team, like, whole
from equipoise.records import InputError
from equipoise.run_folder import write_bytes, write_json


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimiser steps; `tokens` is the budget of a forward pass."""

    step: int
    tensors: dict[str, Tensor]
    tokens: int

    @property
    def margin(self) -> float | None:
        """The running mean margin of an adaptive beta; None without one."""
        return self.tensors["margin"].item() if "margin" in self.tensors else None


def random_state() -> dict[str, Tensor]:
    """State of this process's random generators."""
    state = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["random_cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    """Put the state of this process's random generators back."""
    torch.set_rng_state(state["random"])
    if "random_cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_cuda"])


def save(
    folder: Path,
    parameters: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    team: Team,
    step: int,
    tokens: int,
    margin: float | None = None,
) -> None:
    """Write the state after `step` steps, with a budget of `tokens`; the new checkpoint replaces the one before.

    Every process calls it, the main one writes. Raises InputError where the optimiser keeps what cannot be written.
    """
    tensors = {f"parameter/{name}": whole(parameter) for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        for key, value in _leaves(optimizer.state.get(parameter, {})):
            if isinstance(value, Tensor):
                kind = "optimizer" if value.device == parameter.device else "host"
                tensors[f"{kind}/{name}/{key}"] = whole(value).clone()  # safetensors refuses what parameters share
            elif isinstance(value, int | float):
                exact = torch.float64 if isinstance(value, float) else torch.int64
                tensors[f"number/{name}/{key}"] = torch.tensor(value, dtype=exact)
            else:
                raise InputError(f"optim: checkpoints cannot hold {key} ({type(value).__name__}) of this optimiser")
    for index, state in enumerate(team.gather(random_state())):
        tensors |= {f"{kind}/{index}": value for kind, value in state.items()}
    if margin is not None:
        tensors["margin"] = torch.tensor(margin, dtype=torch.float64)
    if not team.main:
        return
    data = safetensors.torch.save(tensors)
    path = folder / f"step-{step:06d}-{tokens}.safetensors"
    write_bytes(path, data)
    pointer = {"step": step, "micro_batch_tokens": tokens, "file": path.name}
    write_json(folder / "latest.json", {**pointer, "sha256": hashlib.sha256(data).hexdigest()})
    for older in folder.glob("step-*.safetensors"):
        if older != path:
            older.unlink()


def latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint, or None where there is none or it is damaged (which is said)."""
    if not (folder / "latest.json").is_file():
        return None
    pointer = {"file": "latest.json"}
    try:
        pointer = json.loads((folder / "latest.json").read_text())
        data = (folder / pointer["file"]).read_bytes()
        step, tokens, expected = pointer["step"], pointer["micro_batch_tokens"], pointer["sha256"]
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        data, expected = b"", ""
    if hashlib.sha256(data).hexdigest() != expected:
        print(
            f"equipoise: {folder / pointer['file']}: damaged; the stage starts again from its beginning",
            file=sys.stderr,
        )
        return None
    return Checkpoint(step, safetensors.torch.load(data), tokens)


def restore(
    checkpoint: Checkpoint,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    team: Team = ALONE,
) -> None:
    """Put a checkpoint's state back.

    A process that was not there when it was written keeps its own random state.
    """
    tensors = checkpoint.tensors
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(like(tensors[f"parameter/{name}"], parameter))
        state: dict[str, Any] = {}
        for key in tensors:
            kind, _, rest = key.partition("/")
            if kind in ("optimizer", "host", "number") and rest.startswith(f"{name}/"):
                _put(state, rest.removeprefix(f"{name}/").split("/"), _value(kind, tensors[key], parameter, optimizer))
        if state:
            optimizer.state[parameter] = state
    random = {kind: tensors[f"{kind}/{team.index}"] for kind in random_state() if f"{kind}/{team.index}" in tensors}
    if "random" in random:
        set_random_state(random)


def _leaves(state: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What an optimiser keeps of a parameter, nested mappings opened."""
    for key, value in state.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}/")
        else:
            yield f"{above}{key}", value


def _put(state: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        state = state.setdefault(key, {})
    state[path[-1]] = value


def _value(kind: str, tensor: Tensor, parameter: Tensor, optimizer: torch.optim.Optimizer) -> Any:
    """A value of the optimiser as the optimiser had it: a number, on the CPU, or as the parameter is."""
    if kind == "number":
        return tensor.item()
    if kind == "host" and tensor.shape == parameter.shape and hasattr(optimizer, "get_state_buffer"):
        # bitsandbytes' paged moments: in memory that host and GPU share, which only it can reserve.
        return optimizer.get_state_buffer(parameter, dtype=tensor.dtype).copy_(tensor)
    if kind == "host":
        return tensor
    return like(tensor, parameter) if tensor.shape == parameter.shape else tensor.to(parameter.device)
