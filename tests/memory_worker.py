"""Train a random model in this process; print its resident memory (bytes) before, after loading, and at the peak.

python tests/memory_worker.py '{"kind": "Qwen3", "tokens": 4096}'
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import equipoise.stages  # noqa: F401  (a run imports all of it)
from equipoise.dpo import engine as engines
from equipoise.dpo.optimizer import make_optimizer
from equipoise.dpo.recompute import recomputed
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.memory import tight_allocator
from equipoise.recipe import ModelSpec, Stage

DEFAULTS = {"kind": "Qwen3", "config": {}, "dtype": "float32", "rank": 8, "prompt": 350, "answer": 90, "pairs": 4,
            "tokens": 1024, "plain": False, "checkpointing": False, "tight": True}  # fmt: skip


def make_config(setting: dict[str, Any]) -> Any:
    shape = {"vocab_size": 32768, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
             "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "tie_word_embeddings": True,
             "max_position_embeddings": 8192}  # fmt: skip
    return getattr(transformers, f"{setting['kind']}Config")(**{**shape, **setting["config"]})


def make_pairs(setting: dict[str, Any]) -> list[EncodedPair]:
    generator = torch.Generator().manual_seed(1)

    def part(typical: int) -> tuple[int, ...]:
        length = int(typical * (0.6 + 0.8 * float(torch.rand((), generator=generator))))
        return tuple(torch.randint(3, 32768, (length,), generator=generator).tolist())

    return [
        EncodedPair(str(i), "s", "d", part(setting["prompt"]), part(setting["answer"]), part(setting["answer"]), 0)
        for i in range(setting["pairs"])
    ]


def make_stage(setting: dict[str, Any]) -> tuple[ModelSpec, Stage]:
    stage = Stage.model_validate({
        "name": "s", "mix": {"s": setting["pairs"]}, "lora": {"rank": setting["rank"]},
        "optim": {"batch_size": setting["pairs"], "micro_batch_tokens": setting["tokens"]},
    })  # fmt: skip
    return ModelSpec(id="random", dtype=setting["dtype"]), stage


def resident(key: str) -> int:
    """`VmRSS` is now, `VmHWM` the highest since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def train(setting: dict[str, Any]) -> None:
    pairs, (_, stage) = make_pairs(setting), make_stage(setting)
    start = resident("VmRSS")
    if setting["tight"]:
        assert tight_allocator()
    dtype = getattr(torch, setting["dtype"])
    model = transformers.AutoModelForCausalLM.from_config(make_config(setting), dtype=dtype).eval()
    model = adapters.add(model.requires_grad_(False), stage.lora, seed=0, base_name="")
    loaded = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of random initialisation
    if setting["plain"]:
        engines.refusal = lambda *arguments, **options: "a test asks for the plain path"
    optimizer = make_optimizer(adapters.trainable(model).values(), stage.optim)
    said: list[str] = []
    with engines.engine(model, pairs, said.append) as scorer, contextlib.ExitStack() as more:
        if setting["checkpointing"]:
            more.enter_context(recomputed(model))
        for _ in range(2):  # gradients and moments are there in the second step
            for group in scorer.micro_batches(pairs, setting["tokens"]):
                logps = scorer(group)
                (logps.rejected - logps.chosen).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    print(
        json.dumps({"start": start, "loaded": loaded, "peak": resident("VmHWM"), "shared": scorer.shared, "said": said})
    )


if __name__ == "__main__":
    train(DEFAULTS | json.loads(sys.argv[1]))
