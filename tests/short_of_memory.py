"""A process whose address space ends a little above what it has after loading: its first steps do not fit.

Run by tests/test_faults.py; prints the token budget of every step and what was said.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import replace
from pathlib import Path

import torch

from equipoise.dpo.engine import engine
from equipoise.dpo.train import train_stage
from equipoise.model import adapters
from equipoise.model.load import load_policy
from equipoise.recipe import Dpo, Lora, ModelSpec, Optim
from models import make_policy
from test_train import encoded

SHAPE = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "head_dim": 64}


def main() -> None:
    """Arguments: a folder, the megabytes that are left, the token budget."""
    folder, megabytes, tokens = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    policy = load_policy(ModelSpec(id=str(make_policy(folder / "policy", **SHAPE))))
    pairs = [replace(pair, prompt=(pair.prompt * 30)[:300]) for pair in encoded(policy, 24)]
    model = adapters.add(adapters.attach(policy, []), Lora(rank=4), seed=0, base_name="tiny")
    said: list[str] = []
    with engine(model, pairs) as scorer:
        scorer(pairs[:1]).chosen.sum().backward()  # what libraries load at their first use is there now
        scorer.zero_grad()
        if megabytes:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
        train_stage(
            scorer,
            pairs,
            {pair.id: (0.0, 0.0) for pair in pairs},
            dpo=Dpo(),
            optim=Optim(learning_rate=1e-3, batch_size=24, epochs=2, micro_batch_tokens=tokens),
            seed=0,
            folder=folder,
            starts_at_reference=False,
            say=said.append,
        )
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        adapters.save(model, folder / "adapter")
    print(json.dumps(said))


if __name__ == "__main__":
    main()
