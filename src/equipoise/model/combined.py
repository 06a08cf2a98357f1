"""A stack of adapters as one, for engines that put one adapter on a request.

Adapters that are active together add up: W x + s1 B1 A1 x + s2 B2 A2 x. The sum of two products of ranks r1 and r2
is one product of rank r1 + r2, B = [s1 B1, s2 B2] and A = [A1; A2], exactly. What is not a plain LoRA cannot be
summed this way, and some of it is silently misread by engines, so it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from equipoise.records import InputError
from equipoise.run_folder import read_json

PREFIX = "base_model.model."
PLAIN: Mapping[str, Any] = {"peft_type": "LORA", "bias": "none", "use_dora": False, "lora_bias": False}
"""Settings of a plain LoRA (where they are given); the settings below must be empty."""
EMPTY = ("modules_to_save", "rank_pattern", "alpha_pattern", "layer_replication", "trainable_token_indices")


@dataclass(frozen=True)
class _Adapter:
    """An adapter's factors by layer: A [rank, in] and scaled B [out, rank], in float32."""

    rank: int
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]]


def adapter_rank(folder: Path) -> int:
    """The rank of a plain LoRA; raises InputError where the folder holds another kind of adapter."""
    settings = read_json(folder / "adapter_config.json")
    odd = [name for name, value in PLAIN.items() if settings.get(name, value) != value]
    odd += [name for name in EMPTY if settings.get(name)]
    if odd or not isinstance(settings.get("r"), int):
        raise InputError(f"{folder}: not a plain LoRA ({', '.join(odd) or 'r'}); use evaluation.generation.backend: "
                         "transformers")  # fmt: skip
    return int(settings["r"])


def combine(stack: Sequence[Path], folder: Path) -> None:
    """Write the sum of the adapters of `stack` to `folder` as one plain PEFT adapter in float32.

    Its rank is the sum of their ranks, its scale 1; a layer that an adapter leaves alone gets zeros from it. Raises
    InputError where an adapter is not a plain LoRA or cannot be read.
    """
    adapters = [_read(path) for path in stack]
    rank = sum(adapter.rank for adapter in adapters)
    layers = sorted({layer for adapter in adapters for layer in adapter.factors})
    tensors = {}
    for layer in layers:
        shape = next(adapter.factors[layer] for adapter in adapters if layer in adapter.factors)
        pairs = [adapter.factors.get(layer) or _zeros(adapter.rank, *shape) for adapter in adapters]
        tensors[f"{PREFIX}{layer}.lora_A.weight"] = torch.cat([a for a, _ in pairs])
        tensors[f"{PREFIX}{layer}.lora_B.weight"] = torch.cat([b for _, b in pairs], dim=1).contiguous()
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=layers, task_type="CAUSAL_LM", inference_mode=True)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config.save_pretrained(str(folder))


def _read(folder: Path) -> _Adapter:
    rank = adapter_rank(folder)
    settings = read_json(folder / "adapter_config.json")
    scale = float(settings["lora_alpha"]) / (rank**0.5 if settings.get("use_rslora") else rank)
    try:
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder}: the adapter cannot be read ({error}); train or copy it again") from None
    layers = {name.removeprefix(PREFIX).partition(".lora_")[0] for name in tensors}
    names = {f"{PREFIX}{layer}.lora_{side}.weight" for layer in layers for side in "AB"}
    if set(tensors) != names:
        odd = sorted(set(tensors) ^ names)[0]
        raise InputError(f"{folder}: not a plain LoRA ({odd}); use evaluation.generation.backend: transformers")
    return _Adapter(rank, {layer: _factors(tensors, layer, scale) for layer in layers})


def _factors(tensors: Mapping[str, torch.Tensor], layer: str, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (tensors[f"{PREFIX}{layer}.lora_{side}.weight"].float() for side in "AB")
    return a, scale * b


def _zeros(rank: int, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return a.new_zeros(rank, a.shape[1]), b.new_zeros(b.shape[0], rank)
