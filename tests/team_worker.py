"""What every process of tests/test_distributed.py runs: several trainings, one after the other, in one team."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from equipoise.dpo.distributed import ALONE, Team, TrainingStopped, join, lost
from equipoise.dpo.job import Job, Watch, train_adapter
from equipoise.dpo.train import Progress
from equipoise.model import adapters
from equipoise.model.load import load_policy
from equipoise.recipe import ModelSpec, Stage
from equipoise.store import Store
from test_train import encoded, full_above

OPTIM = {"learning_rate": 1e-2, "epochs": 1.2, "batch_size": 7, "micro_batch_tokens": 130, "warmup": 0.1}
"""20 pairs, 24 seen, in batches of 7, 7, 7 and 3: several micro-batches each, and not as many in both processes."""
CASES: dict[str, dict[str, Any]] = {
    "first": {},
    "second": {"stack": ["first"]},
    "bfloat16": {"dtype": "bfloat16"},
    "plain": {"shared": False},
    "few": {"optim": {"batch_size": 1, "epochs": 0.25}},
    "resumed": {"optim": {"checkpoint_every": 2}, "die_after": 3},
    "domains": {"lora": {"finance": {"rank": 4, "learning_rate": 3e-3}, "general": {"rank": 2}}},
    "full": {"optim": {"micro_batch_tokens": 4096}, "room": 140},
}
RARE = (1, 8, 16)
"""Places of the pairs that are of another domain: in one process alone, or in none, in some steps."""
SHARDED = ("first", "second", "bfloat16", "plain", "few", "resumed", "domains")


class Died(Exception):
    """Stands for the end of all processes at the same step."""


def train(team: Team, folder: Path, name: str) -> None:
    """Train a case in `folder/name` and save its adapter there."""
    case = CASES[name]
    spec = ModelSpec(id=str(folder.parent / "policy"), dtype=case.get("dtype", "float32"))
    policy = load_policy(spec)
    stage = Stage.model_validate(
        {"name": name, "mix": {"x": 1}, "optim": {**OPTIM, **case.get("optim", {})}, "gate": {}}
        | {"lora": case.get("lora", {"rank": 4})}
    )
    pairs = [replace(pair, prompt=pair.prompt[: 20 + 3 * i]) for i, pair in enumerate(encoded(policy, 20))]
    if "lora" in case:
        pairs = [replace(pair, domain="general") if place in RARE else pair for place, pair in enumerate(pairs)]
    stack = [folder / earlier / "adapter" for earlier in case.get("stack", [])]
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    job = Job(spec, stage, pairs, stack, own, seed=3)
    if not case.get("shared", True):
        type(policy.model)._can_set_attn_implementation = classmethod(lambda cls: False)
    if "room" in case and team.index == 1:
        full_above(policy.model, case["room"])

    def die(progress: Progress) -> None:
        if progress.step == case["die_after"]:
            raise Died

    if "die_after" in case and team.size > 1:
        try:
            # every process stops there, as when all are killed
            train_adapter(job, policy, team, Store(own / "store"), Watch(on_step=die))
        except Died:
            policy = load_policy(spec)
    trained = train_adapter(job, policy, team, Store(own / "store"), Watch())
    if team.main:
        adapters.save(trained.model, own / "adapter")
    adapters.detach(trained.model)
    if not case.get("shared", True):
        del type(policy.model)._can_set_attn_implementation
    team.gather(None)


def main() -> None:
    """Everything in DDP's way, then in FSDP2's."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        for name in CASES:
            train(ALONE, folder / "one", name)
        return
    team = join()
    for name in CASES:
        train(team, folder / "ddp", name)
    os.environ["FSDP_VERSION"] = "2"
    sharded = Team(team.index, team.size, sharded=True, talk=team._talk)
    for name in SHARDED:
        train(sharded, folder / "fsdp", name)
    try:  # last, since the processes do not meet again after it
        train(sharded, folder / "fsdp", "full")
    except TrainingStopped as stopped:
        (folder / "stopped.txt").write_text(str(stopped))
        os._exit(0)
    except RuntimeError as error:
        os._exit(0 if lost(error) else 1)


if __name__ == "__main__":
    main()
