"""One measurement of `evaluation.py` in a process of its own: `python evaluation_sides.py JOB` prints JSON.

Timed is what an evaluation repeats for every model: from prompts to answers, from pairs to log-probabilities; not
imports, loading, and a warm-up on a few items.

- `equipoise`: `TransformersGenerator`, and `pair_logprobs` with an empty store; both as an evaluation calls them.
- `lm_eval`: `HFLM.generate_until` and `HFLM._loglikelihood_tokens`, the latter with token ids, because its own
  tokenisation moves the line break at the end of a prompt into the answer.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from evaluation_workload import read_pairs, read_prompts
from processes import process_memory

from equipoise.dpo.engine import engine
from equipoise.evaluation.likelihood import pair_logprobs
from equipoise.model.generate import TransformersGenerator
from equipoise.model.load import load_policy, model_folder
from equipoise.model.reward import RewardModel
from equipoise.recipe import ModelSpec, RewardSpec
from equipoise.store import Store

WARM_UP = 4


@dataclass(frozen=True)
class Job:
    """What is measured: `work` is generate, generate_invariant, score or reward; `model` is `pocket` or a folder."""

    side: str
    work: str
    model: str
    folder: str
    items: int
    new: int
    batch: int | str


def main() -> None:
    """Warm up, measure once, and print seconds, memory and what came out."""
    job = Job(**json.loads(sys.argv[1]))
    logging.disable(logging.WARNING)
    if job.side == "lm_eval":
        import lm_eval.models.huggingface  # noqa: F401  - before memory is looked at
    before = process_memory("VmRSS")
    work = (_lm_eval if job.side == "lm_eval" else _equipoise)(job)
    work(WARM_UP)
    started, used = time.perf_counter(), time.process_time()
    output = work(job.items)
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    peak = process_memory("VmHWM")
    measured = {"seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak, "above_start_mb": peak - before}
    print(json.dumps({**measured, "threads": torch.get_num_threads(), "output": output}))


def _equipoise(job: Job) -> Callable[[int], list[Any]]:
    if job.work == "reward":
        reward, told = RewardModel(RewardSpec(id="pocket")), read_pairs(Path(job.folder))[1]
        reward.require_sanity()
        return lambda count: reward.score(told[:count])
    loaded = load_policy(ModelSpec(id=job.model, dtype="float32"))
    if job.work == "score":
        pairs = read_pairs(Path(job.folder))[0]

        def score(count: int) -> list[float]:
            asked = pairs[: count // 2]
            with tempfile.TemporaryDirectory() as name, engine(loaded.model, asked) as scorer:
                found = pair_logprobs(scorer, loaded.identity, asked, Store(Path(name)))
            return [value for pair in asked for value in found[pair.id]]

        return score
    prompts = [asked.messages for asked in read_prompts(Path(job.folder))]
    generator = TransformersGenerator(
        loaded,
        identity=loaded.identity,
        batch_size=int(job.batch),
        store=None,
        batch_invariant=job.work == "generate_invariant",
    )

    def answer(count: int) -> list[Any]:
        some = _spread(prompts, count)
        written = generator.generate(some, max_new_tokens=job.new, temperature=0.0, seed=0)
        return [[one.text, one.tokens] for one in written]

    return answer


def _lm_eval(job: Job) -> Callable[[int], list[Any]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder = str(model_folder(job.model, None, what="model"))
    model = HFLM(folder, device="cpu", dtype="float32", batch_size=job.batch)
    if job.work == "score":
        pairs = read_pairs(Path(job.folder))[0]
        requests = [
            (("", ""), list(pair.prompt), list(answer)) for pair in pairs for answer in (pair.chosen, pair.rejected)
        ]
        return lambda count: [value for value, _ in model._loglikelihood_tokens(requests[:count], disable_tqdm=True)]
    stop = {"until": [model.tokenizer.eos_token], "max_gen_toks": job.new, "do_sample": False, "temperature": 0.0}
    asked = [
        Instance("generate_until", {}, (one.text, stop), number)
        for number, one in enumerate(read_prompts(Path(job.folder)))
    ]

    def answer(count: int) -> list[Any]:
        return [[text.strip(), None] for text in model.generate_until(_spread(asked, count), disable_tqdm=True)]

    return answer


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    """`count` values, evenly from all."""
    return [values[i * len(values) // count] for i in range(count)]


if __name__ == "__main__":
    main()
