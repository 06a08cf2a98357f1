"""What each part of the engine gains: `python benchmarks/ladder.py [--profile long] [--repeats 3]`.

Forward and backward passes of one batch of pairs, rung by rung, each rung with everything of the rungs below it. The
rungs alternate within a repeat. No optimiser, no reference pass: those cost the same on every rung.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from job import ALPHA, RANK, SEED
from processes import HERE, run_python
from workload import PROFILES, SHAPES, Ids, make_pairs

from equipoise.dpo.logprobs import pair_logprobs
from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import micro_batches, pack
from equipoise.dpo.streams import installed, stream_logprobs
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.load import load_policy
from equipoise.recipe import Lora, ModelSpec

RUNGS = (
    "plain: two padded sequences per pair, logits of every position",
    "+ streams: vocabulary at answers only, no padding",
    "+ prompt shared by both answers",
    "+ fused adapters",
    "+ fused norms",
    "+ several pairs per stream",
)
TOKENS = 1024
RESULT = HERE / "results" / "ladder.json"


def main() -> None:
    """Measure every rung and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--profiles", nargs="+", choices=list(PROFILES), default=list(PROFILES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        run_python("random_model.py", name, "small", "cpu", threads=options.threads)
        policy = load_policy(ModelSpec(id=name, dtype=options.dtype))
    model = adapters.add(policy.model, Lora(rank=RANK, alpha=ALPHA), seed=SEED, base_name="bench")
    result: dict[str, Any] = {
        "threads": options.threads,
        "dtype": options.dtype,
        "pairs": options.pairs,
        "profiles": {},
    }
    for profile in options.profiles:
        ids = make_pairs(PROFILES[profile], options.pairs, options.pairs, SHAPES["small"].vocab, seed=SEED)
        result["profiles"][profile] = _measure(model, _encoded(ids), options.repeats)
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(_table(result))


def _encoded(ids: Sequence[Ids]) -> list[EncodedPair]:
    return [EncodedPair(str(i), "bench", "bench", p.prompt, p.chosen, p.rejected, 0) for i, p in enumerate(ids)]


def _measure(model: Any, pairs: Sequence[EncodedPair], repeats: int) -> dict[str, list[float]]:
    """Pairs per second of every rung, one value per repeat; the first round warms up and does not count."""
    speeds: dict[str, list[float]] = {rung: [] for rung in RUNGS}
    for repeat in range(repeats + 1):
        for number, rung in enumerate(RUNGS):
            with ExitStack() as stack:
                for context in (installed,) * (number > 0) + (fused,) * (number > 2) + (fused_norms,) * (number > 3):
                    stack.enter_context(context(model))
                started = time.perf_counter()
                _train(number, model, pairs[:4] if repeat == 0 else pairs)
                if repeat:
                    speeds[rung].append(round(len(pairs) / (time.perf_counter() - started), 4))
            model.zero_grad()
    return speeds


def _train(number: int, model: Any, pairs: Sequence[EncodedPair]) -> None:
    for score in _passes(number, model, pairs):
        logps = score()
        (logps.chosen.sum() - logps.rejected.sum()).backward()


def _passes(number: int, model: Any, pairs: Sequence[EncodedPair]) -> Iterator[Callable[[], Any]]:
    """The forward passes of a rung."""
    if number == 0:
        yield from (lambda pair=pair: pair_logprobs(model, [pair]) for pair in pairs)
    elif number == 1:  # each answer with a prompt of its own
        halves = [
            replace(pair, chosen=answer, rejected=()) for pair in pairs for answer in (pair.chosen, pair.rejected)
        ]
        for i in range(0, len(halves), 2):
            yield lambda i=i: stream_logprobs(model, pack(halves[i : i + 2]))
    else:
        tokens = TOKENS if number == 5 else 1
        groups = micro_batches(pairs, tokens, shared=True)
        yield from (lambda group=group: stream_logprobs(model, pack(group)) for group in groups)


def _table(result: dict[str, Any]) -> str:
    profiles = list(result["profiles"])
    lines = ["| rung | " + " | ".join(profiles) + " |", "| --- |" + " --- |" * len(profiles)]
    first = {name: median(result["profiles"][name][RUNGS[0]]) for name in profiles}
    before = dict(first)
    for rung in RUNGS:
        cells = []
        for name in profiles:
            speed = median(result["profiles"][name][rung])
            cells.append(f"{speed:.3f} ({speed / first[name]:.2f}x; step {speed / before[name]:.2f}x)")
            before[name] = speed
        lines.append(f"| {rung} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
