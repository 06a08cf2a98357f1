"""train_stage(): the one visible training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from equipoise.data.order import ORDERS
from equipoise.dpo import checkpoint, schedule
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.logprobs import PairLogps
from equipoise.dpo.loss import LOSSES, PER_TOKEN, REFERENCE_FREE
from equipoise.dpo.metrics import StepMetrics
from equipoise.model.adapters import trainable
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Dpo, Optim
from equipoise.run_folder import read_lines, write_lines


class TrainingStopped(RuntimeError):
    """Training cannot go on: the message names the step, the pairs and what to look at."""


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
    seconds_left: float


def train_stage(
    scorer: PairScorer,
    pairs: Sequence[EncodedPair],
    reference: Mapping[str, tuple[float, float]],
    *,
    dpo: Dpo,
    optim: Optim,
    order: str = "shuffle",
    seed: int,
    folder: Path,
    starts_at_reference: bool,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, int]:
    """Train the trainable parameters of the policy behind `scorer` on `pairs`; return how many pairs of each source were seen.

    `reference` maps a pair's id to its chosen and rejected log-probabilities. `folder` receives
    `train.jsonl` (one line per optimiser step) and `checkpoints/`; a stage that was killed continues from
    the last checkpoint to the same bits. Raises TrainingStopped on a loss that is not finite, or when the
    policy does not equal the reference although it starts there.
    """
    accelerator = Accelerator(mixed_precision="no", cpu=next(scorer.parameters()).device.type == "cpu")
    parameters = trainable(scorer.model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=optim.learning_rate, weight_decay=optim.weight_decay)
    policy, optimizer = accelerator.prepare(scorer, optimizer)
    plan = batches(
        [pair.source for pair in pairs], epochs=optim.epochs, batch_size=optim.batch_size, seed=seed, order=order
    )
    sources = sorted({pair.source for pair in pairs})

    first = _resume(folder, parameters, optimizer.optimizer)
    if first == 0 and starts_at_reference and dpo.loss not in REFERENCE_FREE:
        require_start(scorer, [pairs[i] for i in plan[0]], reference, optim.micro_batch_tokens)
    started, shown, tokens = time.monotonic(), 0, 0
    with (folder / "train.jsonl").open("a", encoding="utf-8") as log:
        for step in range(first, len(plan)):
            rate = schedule.learning_rate(
                step, total=len(plan), peak=optim.learning_rate, warmup=optim.warmup, schedule=optim.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = [pairs[i] for i in plan[step]]
            metrics = StepMetrics(sources, accelerator.device)
            for micro in scorer.micro_batches(batch, optim.micro_batch_tokens):
                logps = policy(micro)
                anchor = _reference_of(micro, reference, accelerator.device)
                losses = pair_losses(logps, anchor, dpo)
                accelerator.backward(losses.sum() / len(batch))
                metrics.add([pair.source for pair in micro], losses, logps, anchor)
            norm = accelerator.clip_grad_norm_(parameters.values(), optim.max_grad_norm)
            record = {"step": step + 1, "learning_rate": rate, "grad_norm": round(float(norm), 8)}
            record |= {"beta": dpo.beta, **metrics.read(dpo.beta)}
            _require_finite(record, batch, step)
            optimizer.step()
            optimizer.zero_grad()
            log.write(json.dumps(record) + "\n")
            log.flush()
            shown, tokens = shown + len(batch), tokens + sum(pair.tokens for pair in batch)
            on_step(_progress(record, step + 1, first, len(plan), shown, tokens, time.monotonic() - started))
            if (step + 1) % optim.checkpoint_every == 0 and step + 1 < len(plan):
                checkpoint.save(folder / "checkpoints", step + 1, parameters, optimizer.optimizer)
    seen = [pairs[i].source for batch in plan for i in batch]
    return {source: seen.count(source) for source in sources}


def batches(
    sources: Sequence[str], *, epochs: float, batch_size: int, seed: int, order: str = "shuffle"
) -> list[list[int]]:
    """Positions of the pairs of every optimiser step; `sources` names the source of each pair.

    Epochs follow one another, each in an order of its own in which the sources are spread evenly: so a
    fraction of an epoch holds each source in its share.
    """
    pairs = len(sources)
    total = schedule.pairs_to_see(pairs, epochs)
    places: list[int] = []
    for epoch in range(math.ceil(total / pairs)):
        places += ORDERS[order](pairs, seed=seed, epoch=epoch, sources=sources)
    return [places[start : min(start + batch_size, total)] for start in range(0, total, batch_size)]


def pair_losses(logps: PairLogps, reference: tuple[Tensor, Tensor], dpo: Dpo) -> Tensor:
    """The losses [batch] that the recipe asks for, the optional SFT term included."""
    options: dict[str, Any] = {"beta": dpo.beta}
    if dpo.loss in PER_TOKEN:
        options |= {"chosen_tokens": logps.chosen_tokens, "rejected_tokens": logps.rejected_tokens}
    if dpo.loss == "robust":
        options["label_smoothing"] = dpo.label_smoothing
    if dpo.loss == "simpo":
        options["margin"] = dpo.margin
    if dpo.loss == "dpop":
        options["penalty"] = dpo.penalty
    losses = LOSSES[dpo.loss](logps.chosen, logps.rejected, *reference, **options)
    if dpo.sft_weight:
        losses = losses - dpo.sft_weight * logps.chosen / logps.chosen_tokens
    return losses


def require_start(
    scorer: PairScorer, pairs: Sequence[EncodedPair], reference: Mapping[str, tuple[float, float]], tokens: int
) -> None:
    """Check that the policy is the reference before the first step: every margin 0, so DPO's loss is ln 2.

    Chosen and rejected are checked apart, since an equal drift of both would cancel out of the margin. The
    tolerance is rounding: 1e-4 of the log-probability in fp32, 0.1 nats * sqrt(tokens) in 16 bits (the errors of
    single tokens are independent). Raises TrainingStopped otherwise.
    """
    exact = next(scorer.parameters()).dtype in (torch.float32, torch.float64)
    for micro in scorer.micro_batches(pairs, tokens):
        with torch.no_grad():
            logps = scorer(micro)
        anchors = _reference_of(micro, reference, logps.chosen.device)
        sides = ((logps.chosen, anchors[0], logps.chosen_tokens), (logps.rejected, anchors[1], logps.rejected_tokens))
        for policy, anchor, count in sides:
            allowed = 1e-4 * (1 + anchor.abs()) if exact else 0.1 * count.sqrt()
            off = (policy - anchor).abs() - allowed
            if bool((off > 0).any()):
                worst = int(off.argmax())
                raise TrainingStopped(
                    f"before the first step the policy differs from its reference by "
                    f"{(policy - anchor)[worst].abs().item():.4g} nats on pair {micro[worst].id}; a stage must start "
                    f"where its reference is. Look at the adapter stack and at the stored reference (kind "
                    f"`reference` in the cache folder)"
                )


def _reference_of(
    pairs: Sequence[EncodedPair], reference: Mapping[str, tuple[float, float]], device: torch.device
) -> tuple[Tensor, Tensor]:
    both = torch.tensor([reference[pair.id] for pair in pairs], device=device)
    return both[:, 0], both[:, 1]


def _require_finite(record: Mapping[str, Any], batch: Sequence[EncodedPair], step: int) -> None:
    if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
        ids = ", ".join(pair.id for pair in batch[:4])
        raise TrainingStopped(
            f"step {step + 1}: the loss is {record['loss']} and the gradient norm {record['grad_norm']}; "
            f"training stops before this step. The batch has {len(batch)} pairs: {ids}, ... (ids as in pairs.parquet). "
            f"Lower the learning rate, or look at these pairs"
        )


def _resume(folder: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Restore the last checkpoint, cut the log back to it, and return the number of steps that are done."""
    found = checkpoint.latest(folder / "checkpoints")
    done = found.step if found else 0
    if found:
        checkpoint.restore(found, parameters, optimizer)
    log = folder / "train.jsonl"
    if log.is_file():
        write_lines(log, [record for record in read_lines(log, partial=True) if record["step"] <= done])
    return done


def _progress(
    record: Mapping[str, Any], step: int, first: int, steps: int, shown: int, tokens: int, seconds: float
) -> Progress:
    seconds = max(seconds, 1e-9)
    return Progress(
        step=step,
        steps=steps,
        loss=record["loss"],
        margin=record["margin"],
        accuracy=record["accuracy"],
        pairs_per_s=shown / seconds,
        tokens_per_s=tokens / seconds,
        seconds_left=seconds / (step - first) * (steps - step),
    )
