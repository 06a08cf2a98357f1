"""One stage's adapter, trained by all processes of a run together."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equipoise.data.order import bands_of
from equipoise.dpo.distributed import Ended, Team, TrainingStopped, join, leave, lost, whole
from equipoise.dpo.engine import PairScorer, engine
from equipoise.dpo.fit import fit
from equipoise.dpo.packing import token_budget
from equipoise.dpo.recompute import recomputed
from equipoise.dpo.reference import Reference, reference_logprobs
from equipoise.dpo.train import Progress, StageEnd, train_stage
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.load import Loaded, load_policy
from equipoise.model.memory import FP32, Choice, tight_allocator
from equipoise.progress import Display, Silent
from equipoise.recipe import ModelSpec, Stage
from equipoise.records import InputError
from equipoise.store import Store


@dataclass(frozen=True)
class Job:
    """What a process must know to train a stage: `stack` are the earlier adapters, `folder` is the stage's.

    `easiness` of each pair is what a curriculum orders by, where it is known beforehand. `dev` are pairs of the stage
    that it does not train on, for `optim.stop`.
    """

    model: ModelSpec
    stage: Stage
    pairs: list[EncodedPair]
    stack: list[Path]
    folder: Path
    seed: int
    easiness: list[float] | None = None
    dev: list[EncodedPair] = field(default_factory=list)

    @property
    def all_pairs(self) -> list[EncodedPair]:
        """The pairs that are trained on, and those that are not."""
        return [*self.pairs, *self.dev]


_NO_JOB: Any = None
"""What a process that follows puts in where the main one's job comes out."""


@dataclass(frozen=True)
class Watch:
    """Who is told of a job: only the main process tells."""

    display: Display = field(default_factory=Silent)
    reference: Callable[[Reference], None] = lambda reference: None
    on_step: Callable[[Progress], None] = lambda progress: None
    trackers: Callable[[Mapping[str, Any], int], None] = lambda record, step: None


@dataclass(frozen=True)
class Trained:
    """A policy and its model with the trained adapter on, and what the stage has done."""

    policy: Loaded
    model: Any
    end: StageEnd


def require_shardable(team: Team, model: ModelSpec, stage: Stage, where: str) -> None:
    """Raises InputError where FSDP2 is asked for and the recipe asks for what cannot be sharded here."""
    if team.sharded and model.quantization:
        raise InputError(
            "model.quantization: 4-bit weights are not sharded; use DDP, where every process holds them all"
        )
    if team.sharded and stage.optim.optimizer != "adamw":
        raise InputError(
            f"{where}.optim.optimizer: {stage.optim.optimizer} does not know sharded parameters; use adamw"
        )


def train_adapter(job: Job, policy: Loaded, team: Team, store: Store, watch: Watch) -> Trained:
    """Reference, then training; every process of `team` calls it with the same job.

    Raises TrainingStopped, in all of them, when the stage cannot go on.
    """
    choice = team.decide(lambda: _fit(job, policy, team, watch))
    assert choice is not None  # the main process found one
    if choice.checkpointing and policy.device.type == "cpu":
        tight_allocator()  # otherwise the heap keeps what recomputation saves
    model = _with_adapters(job, policy)
    again = recomputed(model) if choice.checkpointing else nullcontext()
    with engine(model, job.all_pairs, watch.display.say, decide=team.decide) as scorer, again:
        team.shard(scorer)
        reference = _reference(job, policy, scorer, team, store, watch)
        end = train_stage(
            scorer,
            job.pairs,
            reference.logps,
            dpo=job.stage.dpo,
            optim=job.stage.optim.model_copy(update={"micro_batch_tokens": choice.tokens}),
            lora=job.stage.lora,
            bands=bands_of_job(job, reference),
            seed=job.seed,
            folder=job.folder,
            starts_at_reference=job.stage.reference == "previous" or not job.stack,
            dev=job.dev,
            on_step=watch.on_step,
            trackers=watch.trackers,
            say=watch.display.say,
            team=team,
        )
    if team.sharded:
        weights = {name: whole(parameter) for name, parameter in adapters.trainable(model).items()}
        if team.main:
            return _rebuilt(job, weights, end)
    return Trained(policy, model, end)


def lead_or_follow(lead: Callable[[Team], int]) -> int:
    """Join the processes of a launcher: the main one leads, the others follow; returns the exit code.

    A process that loses the others says so in one line.
    """
    team = join()
    try:
        if team.main:
            with team.led():
                code = lead(team)
        else:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)  # a collective is no place to tidy up in: end at once
            follow(team)
            code = 0
    except TrainingStopped as stopped:
        print(f"equipoise: {stopped}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        if not lost(error):
            raise
        who = "another process" if team.main else "the main process"
        print(
            f"equipoise: process {team.index}: {who} is gone; look at what it said, then continue with --resume",
            file=sys.stderr,
        )
        return 1
    leave()
    return code


def follow(team: Team) -> None:
    """What a process other than the main one does: take part in every job until the main one has no more.

    Sharded parameters do not go back, so the policy is then loaded anew for each job: on the CPU, and as FSDP's
    `cpu_ram_efficient_loading` says perhaps without its values, which come from the main process.
    """
    policy: Loaded | None = None
    problem: InputError | None = None
    while True:
        try:
            job: Job = team.share(_NO_JOB)
        except Ended:
            return
        if problem:  # the main process went on, so it has none
            raise problem
        try:
            if policy is None or team.sharded:
                policy = load_policy(job.model, torch.device("cpu")) if team.sharded else load_policy(job.model)
            adapters.detach(train_adapter(job, policy, team, Store(), Watch()).model)
        except Ended:  # the main process found something wrong before the first step, and says so
            return
        except InputError as error:
            problem = error
        except TrainingStopped as stopped:
            if stopped.alone:
                raise
            policy = None  # the main process knows as well, and says so


def _fit(job: Job, policy: Loaded, team: Team, watch: Watch) -> Choice:
    """How the stage trains in the memory of this machine; sharded weights are not forecast."""
    if team.sharded:
        asked = token_budget(job.stage.optim.micro_batch_tokens, policy.device.type)
        return Choice(asked, checkpointing=False, fits=True)
    earlier = [(folder / adapters.WEIGHTS).stat().st_size // FP32 for folder in adapters.each(job.stack)]
    return fit(policy, job.model, job.stage, job.all_pairs, earlier=earlier, seed=job.seed, say=watch.display.say)


def _with_adapters(job: Job, policy: Loaded) -> Any:
    model = adapters.attach(policy, job.stack)
    return adapters.add(model, job.stage.lora, seed=job.seed, base_name=job.model.id)


def _reference(job: Job, policy: Loaded, scorer: PairScorer, team: Team, store: Store, watch: Watch) -> Reference:
    show = watch.display.begin(f"{job.stage.name}: reference", len(job.all_pairs))
    with adapters.reference(scorer.model, job.stage.reference):
        identity = adapters.stack_identity(policy, job.stack if job.stage.reference == "previous" else [])
        reference = reference_logprobs(scorer, identity, job.all_pairs, store, lambda done: show(done=done), team=team)
        team.reshard(scorer)  # the adapters' flags are put back on the parts
    watch.reference(reference)
    return reference


def bands_of_job(job: Job, reference: Reference) -> list[int] | None:
    """Bands of the stage's curriculum; by margin an easy pair is one that the reference already has right."""
    if isinstance(job.stage.order, str):
        return None
    margins = [chosen - rejected for chosen, rejected in (reference.logps[pair.id] for pair in job.pairs)]
    return bands_of(job.easiness or margins, [pair.source for pair in job.pairs], job.stage.order)


def _rebuilt(job: Job, weights: Mapping[str, Tensor], end: StageEnd) -> Trained:
    """Load the policy again and give it the trained adapter: its sharded self cannot generate in one process."""
    policy = load_policy(job.model)
    model = _with_adapters(job, policy)
    with torch.no_grad():
        for name, parameter in adapters.trainable(model).items():
            parameter.copy_(weights[name])
    return Trained(policy, model, end)
