"""What a model and its adapters weigh, what a process and its allocator add, and what to do where it does not fit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from equipoise.recipe import Lora
from equipoise.recipe_lora import DomainLora, adapters_of

FP32 = 4
MIB = 2**20
SHARE = 0.9
"""Share of a device's memory that a forecast may fill."""
PROCESS = {"cpu": 460 * MIB, "cuda": 500 * MIB}
"""CPU: resident memory after `import equipoise.stages`, measured (docs/memory.md). CUDA: assumed, not measured."""
LIBRARIES = {"cpu": 45 * MIB, "cuda": 64 * MIB}
"""CPU: what appears with the first products (kernels, scratch), measured. CUDA: cuBLAS's workspace, assumed."""
FRAGMENTATION = {"cpu": 0.38, "cuda": 0.1}
"""What an allocator holds above live tensors, as a share of what comes and goes. CPU: glibc 2.36 held 0.16 to 0.7 in
eight settings (docs/memory.md), and identical processes differ; with this value the peak of every one of them is met
within 15 %. `tight_allocator` makes it 0. CUDA: assumed, not measured."""
M_MMAP_THRESHOLD, LARGE = -3, 256 * 2**10
"""glibc's name of the option (malloc.h), and bytes from which a block is the system's own."""

FULL = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How allocators without an exception of their own say it: the CPU's on Linux and elsewhere, cuBLAS's."""


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


def lora_parameters(shape: Shape, lora: Lora | Mapping[str, DomainLora]) -> int:
    """Parameters of a stage's adapters: of each rank * (inputs + outputs) of every adapted linear layer."""
    return sum(
        one.rank * (inputs + outputs)
        for one in adapters_of(lora).values()
        for name, inputs, outputs in shape.linears
        if one.target_modules == "all-linear" or any(f".{name}".endswith(f".{t}") for t in one.target_modules)
    )


def weight_bytes(shape: Shape, dtype_bytes: int, quantization: str | None) -> int:
    """Bytes of the frozen weights; nf4 keeps the vocabulary in 16 bits and the linear layers in 4.127 bits."""
    if quantization is None:
        return shape.parameters * dtype_bytes
    linear = sum(inputs * outputs for _, inputs, outputs in shape.linears)
    return int(linear * 4.127 / 8 + (shape.parameters - linear) * 2)


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes at the peak of training, by what they are for."""

    process: int
    """Interpreter and libraries (CPU), the context and its libraries (CUDA)."""
    weights: int
    adapters: int
    """All adapters in fp32; for the one that is trained its gradient and moments as well."""
    activations: int
    vocabulary: int
    """What logits of answers add to the peak."""
    allocator: int
    """What the allocator holds without being asked: see FRAGMENTATION."""

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(asdict(self).values())


def memory_parts(
    weights: int, adapters: int, activations: int, vocabulary: int, *, device: str, tight: bool
) -> MemoryParts:
    """Add what a process and its allocator need on `device` (`cpu` or `cuda`); `tight` is after `tight_allocator`."""
    share = 0.0 if tight and device == "cpu" else FRAGMENTATION[device]
    held = LIBRARIES[device] + int(share * (activations + vocabulary))
    return MemoryParts(PROCESS[device], weights, adapters, activations, vocabulary, held)


def adapter_bytes(loras: Sequence[int], optimizer: str) -> int:
    """Adapters of `loras` parameters each in fp32; the last with its gradient and two moments (8 bits: 1 byte each)."""
    moments = 2 * FP32 if optimizer == "adamw" else 2
    return sum(loras) * FP32 + (loras[-1] * (FP32 + moments) if loras else 0)


@dataclass(frozen=True, slots=True)
class Choice:
    """How a stage trains: tokens per forward pass, and whether layers are recomputed in the backward pass."""

    tokens: int
    checkpointing: bool
    fits: bool


def choose(peak: Callable[[int, bool], int], *, tokens: int, longest: int, available: int) -> Choice:
    """The cheapest way to train within SHARE of `available` bytes; `peak(tokens, checkpointing)` is the forecast.

    First fewer tokens per forward pass, which costs next to nothing, down to the longest pair alone; then
    recomputation, which costs about a third more time, with as many tokens as fit.
    """
    smallest = max(1, min(tokens, longest))
    budgets = [tokens]
    while budgets[-1] > smallest:
        budgets.append(max(smallest, budgets[-1] // 2))
    for checkpointing in (False, True):
        if peak(smallest, checkpointing) > SHARE * available:
            continue
        for budget in budgets:
            if peak(budget, checkpointing) <= SHARE * available:
                return Choice(budget, checkpointing, True)
    return Choice(smallest, True, False)


def tight_allocator() -> bool:
    """Let glibc give every large tensor back to the system when it is freed; False where there is no glibc.

    By default glibc raises its threshold as it goes and keeps freed blocks on its heap, where tensors of other
    sizes then do not fit. A fixed threshold costs about a fifth more CPU time in page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_THRESHOLD, LARGE))


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)


def rough_bytes(shape: Shape, *, tokens: int, answer_tokens: int, dtype_bytes: int) -> tuple[int, int]:
    """Activations and vocabulary of a plain forward and backward pass, where the model's code cannot be traced.

    Activations: block inputs, normalised inputs, attention's and the feed-forward part's intermediate results,
    each also in the form in which its adapter reads it; too much rather than too little.
    """
    per_layer = 8 * shape.hidden + 3 * shape.attention + 3 * shape.feed_forward
    logits = tokens * shape.vocabulary * 2 * dtype_bytes + answer_tokens * shape.vocabulary * 3 * FP32
    return tokens * shape.layers * per_layer * dtype_bytes, logits


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
