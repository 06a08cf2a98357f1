"""train_stage(): the one visible training loop."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor

from equipoise.data.order import epoch_order
from equipoise.dpo import checkpoint, schedule
from equipoise.dpo.beta import Betas
from equipoise.dpo.distributed import ALONE, Team
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.guards import difference, reference_of, require_finite, stop_together
from equipoise.dpo.learners import clip, figures, groups, in_turn, learners_of, learning, set_rates, whole_norm
from equipoise.dpo.logprobs import PairLogps
from equipoise.dpo.look import look, mean_log_ratio, plateau
from equipoise.dpo.loss import REFERENCE_FREE, pair_losses
from equipoise.dpo.metrics import StepMetrics
from equipoise.dpo.optimizer import make_optimizer
from equipoise.dpo.packing import token_budget
from equipoise.dpo.room import Room
from equipoise.model.adapters import trainable
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Dpo, Lora, Optim
from equipoise.recipe_lora import DomainLora
from equipoise.run_folder import read_lines, write_lines

ONE = Lora()
"""One adapter for all pairs."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a display may show after each optimiser step."""

    step: int
    steps: int
    loss: float
    margin: float
    accuracy: float
    pairs_per_s: float
    tokens_per_s: float
    """Of the two sequences prompt + chosen and prompt + rejected, although a prompt is computed once."""


@dataclass(frozen=True, slots=True)
class StageEnd:
    """Presentations by source, ids of pairs that never came, and why the stage ended before its last step."""

    seen: dict[str, int]
    unseen: list[str]
    stopped: str | None


def train_stage(
    scorer: PairScorer,
    pairs: Sequence[EncodedPair],
    reference: Mapping[str, tuple[float, float]],
    *,
    dpo: Dpo,
    optim: Optim,
    lora: Lora | Mapping[str, DomainLora] = ONE,
    bands: Sequence[int] | None = None,
    seed: int,
    folder: Path,
    starts_at_reference: bool,
    dev: Sequence[EncodedPair] = (),
    on_step: Callable[[Progress], None] = lambda progress: None,
    trackers: Callable[[Mapping[str, Any], int], None] = lambda record, step: None,
    say: Callable[[str], None] = print,
    team: Team = ALONE,
) -> StageEnd:
    """Train the policy behind `scorer` on `pairs`; return what was seen, and why it ended.

    `reference` maps a pair's id to its chosen and rejected log-probabilities; `lora` is what the trained adapters were
    made of (several: see `learners`); `bands` puts pairs into the order of a curriculum (see `data.order`); `dev` are
    pairs that `optim.stop` looks at. `folder` receives `train.jsonl` (one line per optimiser step) and `checkpoints/`;
    a stage that was killed continues from the last checkpoint to the same bits. All processes of `team` call this
    together; the main one writes and reports. Raises TrainingStopped on a loss that is not finite, when the policy does
    not equal the reference although it starts there, or when memory does not suffice for a single pair.
    """
    accelerator = _accelerator(scorer)
    parameters = trainable(scorer.model)
    learners = learners_of(scorer.model, lora, optim, pairs)
    optimizer = make_optimizer(groups(learners), optim)
    plan = batches(
        [pair.source for pair in pairs], epochs=optim.epochs, batch_size=optim.batch_size, seed=seed, bands=bands
    )
    sources = sorted({pair.source for pair in pairs})
    torch.manual_seed(seed + team.index)  # dropout; each process draws its own

    begun = _resume(folder, parameters, optimizer, optim, team)
    budget = token_budget(optim.micro_batch_tokens, accelerator.device.type)
    room = Room(min(begun.tokens, budget), scorer, team, folder, say)
    betas, looks, stopped, ended = Betas(dpo.beta, len(plan), begun.margin), begun.looks, None, begun.step
    unmoved = 0 if starts_at_reference and dpo.loss not in REFERENCE_FREE else None
    keep = partial(checkpoint.save, folder / "checkpoints", parameters, optimizer, team)
    started, shown, seen_tokens = time.monotonic(), 0, 0
    with (folder / "train.jsonl" if team.main else Path(os.devnull)).open("a", encoding="utf-8") as log:
        for step in range(begun.step, len(plan)):
            batch = [pairs[i] for i in plan[step]]
            rates = set_rates(optimizer, learners, optim, step, len(plan))
            for attempt in room.attempts(batch, f"step {step + 1}", partial(keep, step, margin=betas.running)):
                optimizer.zero_grad()
                metrics = StepMetrics(sources, accelerator.device)
                with attempt:
                    beta, running = betas.of(step, partial(mean_log_ratio, scorer, batch, reference, team, room.tokens))
                    now = dpo.model_copy(update={"beta": beta})
                    turns = partial(team.portions, scorer, tokens=room.tokens), in_turn(learners, batch)
                    wrong = _backward(accelerator, scorer, *turns, reference, now, metrics, step == unmoved)
            if step == unmoved:
                stop_together(team, wrong)
            norms = clip(accelerator, learning(learners, batch), team, optim.max_grad_norm)
            team.sum_(metrics.sums)
            record = {"step": step + 1, "learning_rate": rates[""], "beta": beta, "micro_batch_tokens": room.tokens}
            record |= {**metrics.read(beta, grad_norm=whole_norm(norms)), **figures(norms, rates)}
            require_finite(record, batch, step)
            optimizer.step()
            betas.running, ended = running, step + 1
            if optim.stop and (step + 1) % optim.stop.every == 0:
                record |= _look(scorer, dev, reference, now, team, room, step + 1)
                looks.append((step + 1, record[optim.stop.metric]))
                stopped = plateau(looks, optim.stop)
            log.write(json.dumps(record) + "\n")
            log.flush()
            trackers(record, step + 1)
            shown, seen_tokens = shown + len(batch), seen_tokens + sum(pair.tokens for pair in batch)
            on_step(_progress(record, step + 1, len(plan), shown, seen_tokens, time.monotonic() - started))
            if stopped:
                break
            if (step + 1) % optim.checkpoint_every == 0 and step + 1 < len(plan):
                if team.main:
                    os.fsync(log.fileno())  # a checkpoint must not know of lines that a power cut takes away
                keep(step + 1, room.tokens, betas.running)
    return _end(pairs, plan[:ended], stopped)


def batches(
    sources: Sequence[str], *, epochs: float, batch_size: int, seed: int, bands: Sequence[int] | None = None
) -> list[list[int]]:
    """Positions of the pairs of every optimiser step; `sources` names the source of each pair, `bands` its band.

    Epochs follow one another, each in an order of its own in which the sources are spread evenly: so a
    fraction of an epoch holds each source in its share.
    """
    pairs = len(sources)
    total = schedule.pairs_to_see(pairs, epochs)
    places: list[int] = []
    for epoch in range(math.ceil(total / pairs)):
        places += epoch_order(pairs, seed=seed, epoch=epoch, sources=sources, bands=bands)
    return [places[start : min(start + batch_size, total)] for start in range(0, total, batch_size)]


def _accelerator(scorer: PairScorer) -> Accelerator:
    return Accelerator(
        mixed_precision="no",
        cpu=next(scorer.parameters()).device.type == "cpu",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),  # whatever a launcher's file says
    )


def _backward(
    accelerator: Accelerator,
    scorer: PairScorer,
    portions: Callable[[Sequence[EncodedPair]], Sequence[tuple[list[EncodedPair], float]]],
    turns: Iterable[Sequence[EncodedPair]],
    reference: Mapping[str, tuple[float, float]],
    dpo: Dpo,
    metrics: StepMetrics,
    at_start: bool,
) -> str | None:
    """Add the gradient of the mean loss of the pairs of each turn, and their figures to `metrics`.

    `portions` are the micro-batches of a turn with their factors. Returns, where it is asked for (`at_start`), how the
    policy differs from the reference that it should equal.
    """
    wrong = None
    exact = scorer.model.dtype.itemsize > 2
    for micro, factor in ((micro, factor / len(own)) for own in turns for micro, factor in portions(own)):
        anchor = reference_of(micro, reference, accelerator.device)
        losses, logps = _backward_micro(accelerator, scorer, micro, anchor, dpo, factor)
        if factor:
            metrics.add([pair.source for pair in micro], losses, logps, anchor)
        if at_start:
            wrong = wrong or difference(micro, logps, anchor, exact=exact)
    return wrong


def _backward_micro(
    accelerator: Accelerator,
    scorer: PairScorer,
    micro: Sequence[EncodedPair],
    anchor: tuple[Tensor, Tensor],
    dpo: Dpo,
    factor: float,
) -> tuple[Tensor, PairLogps]:
    """Add the gradient of `factor` times the losses of a micro-batch; returns the losses [batch] and what they are of.

    A function of its own, so that nothing holds the graph when memory ran out in the middle of it.
    """
    logps = scorer(micro)
    losses = pair_losses(logps, anchor, dpo)
    accelerator.backward(losses.sum() * factor)
    return losses.detach(), logps


def _look(
    scorer: PairScorer,
    dev: Sequence[EncodedPair],
    reference: Mapping[str, tuple[float, float]],
    dpo: Dpo,
    team: Team,
    room: Room,
    steps: int,
) -> dict[str, float]:
    """The figures of the pairs that are not trained on, after so many steps."""
    found: dict[str, float] = {}
    for attempt in room.attempts(dev, f"look after step {steps}"):
        with attempt:
            found = look(scorer, dev, reference, dpo, team, room.tokens)
    return found


@dataclass(frozen=True)
class _Begun:
    """Where a stage goes on: steps that are done, token budget, running margin of beta, and what was looked at."""

    step: int
    tokens: int
    margin: float | None
    looks: list[tuple[int, float]]


def _resume(
    folder: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    optim: Optim,
    team: Team,
) -> _Begun:
    """Restore the last checkpoint, if there is one, and cut the log back to it."""
    found = team.share(checkpoint.latest(folder / "checkpoints") if team.main else None)
    done = found.step if found else 0
    if found:
        checkpoint.restore(found, parameters, optimizer, team)
    log, looks = folder / "train.jsonl", []
    if team.main and log.is_file():
        records = [record for record in read_lines(log, partial=True) if record["step"] <= done]
        write_lines(log, records)
        metric = optim.stop.metric if optim.stop else ""
        looks = [(record["step"], record[metric]) for record in records if metric in record]
    return _Begun(done, found.tokens if found else sys.maxsize, found.margin if found else None, team.share(looks))


def _end(pairs: Sequence[EncodedPair], plan: Sequence[Sequence[int]], stopped: str | None) -> StageEnd:
    """What the steps of `plan` have shown of `pairs`."""
    places = [place for batch in plan for place in batch]
    seen = Counter(pairs[place].source for place in places)
    shown = {pairs[place].id for place in places}
    unseen = sorted({pair.id for pair in pairs} - shown)
    return StageEnd({source: seen[source] for source in sorted({pair.source for pair in pairs})}, unseen, stopped)


def _progress(record: Mapping[str, Any], step: int, steps: int, shown: int, tokens: int, seconds: float) -> Progress:
    seconds = max(seconds, 1e-9)
    return Progress(
        step=step,
        steps=steps,
        loss=record["loss"],
        margin=record["margin"],
        accuracy=record["accuracy"],
        pairs_per_s=shown / seconds,
        tokens_per_s=tokens / seconds,
    )
