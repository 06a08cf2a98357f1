"""The forecast: parameters and peak memory of a training step, from a model's configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from equipoise.recipe import Lora

FP32 = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """What a forecast needs to know of a model; sizes are numbers of elements."""

    parameters: int
    hidden: int
    layers: int
    vocabulary: int
    attention: int
    feed_forward: int
    linears: tuple[tuple[str, int, int], ...]


def shape_of(config: Any, *, trust_remote_code: bool = False) -> Shape:
    """Build the architecture without any memory (meta device) and measure it."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    head = model.get_output_embeddings()
    linears = tuple(
        (name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    text = config.get_text_config()
    in_layer = [row for row in linears if ".0." in row[0]]
    attention = sum(out for name, _, out in in_layer if "attn" in name)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        attention=attention,
        feed_forward=sum(out for _, _, out in in_layer) - attention,
        linears=linears,
    )


def lora_parameters(shape: Shape, lora: Lora) -> int:
    """Parameters of an adapter: rank * (inputs + outputs) of every adapted linear layer."""
    chosen = [
        (inputs, outputs)
        for name, inputs, outputs in shape.linears
        if lora.target_modules == "all-linear" or any(f".{name}".endswith(f".{t}") for t in lora.target_modules)
    ]
    return lora.rank * sum(inputs + outputs for inputs, outputs in chosen)


def weight_bytes(shape: Shape, dtype_bytes: int, quantization: str | None) -> int:
    """Bytes of the frozen weights; nf4 keeps the vocabulary in 16 bits and the linear layers in 4.127 bits."""
    if quantization is None:
        return shape.parameters * dtype_bytes
    linear = sum(inputs * outputs for _, inputs, outputs in shape.linears)
    return int(linear * 4.127 / 8 + (shape.parameters - linear) * 2)


def training_bytes(
    shape: Shape, *, loras: Sequence[int], tokens: int, answer_tokens: int, dtype_bytes: int, quantization: str | None
) -> int:
    """Peak bytes of a training step with `tokens` in one forward pass, `answer_tokens` of them in answers.

    Frozen weights; the last of `loras` with gradient and two moments in fp32, earlier ones as weights; what
    the backward pass keeps of every layer (block inputs, normalised inputs, attention's and the feed-forward
    part's intermediate results, each also in the form in which its adapter reads it); logits of every position
    with their gradient, and those of answers in fp32.
    """
    adapters = sum(loras) * FP32 + (loras[-1] * 3 * FP32 if loras else 0)
    per_layer = 8 * shape.hidden + 3 * shape.attention + 3 * shape.feed_forward
    activations = tokens * shape.layers * per_layer * dtype_bytes
    logits = tokens * shape.vocabulary * 2 * dtype_bytes + answer_tokens * shape.vocabulary * 3 * FP32
    return weight_bytes(shape, dtype_bytes, quantization) + adapters + activations + logits


def machine_memory() -> int:
    """Bytes of memory of the accelerator, or of this machine (its container's limit where there is one)."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory)
    total = 0
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(text)) if text.isdigit() else total
