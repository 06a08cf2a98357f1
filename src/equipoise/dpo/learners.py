"""Who learns from which pairs: one adapter from all of a stage, or the adapter of each domain from its own alone.

All adapters are active in every forward pass. A step goes through its pairs domain by domain; of the gradients that
the pairs of a domain give, those of other adapters are thrown away. So each adapter gets the mean over its own
pairs, is clipped by itself, and one without a pair in a step does not move, nor does what the optimiser keeps of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from equipoise.dpo import schedule
from equipoise.dpo.distributed import Team, full
from equipoise.model.adapters import trainable
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Lora, Optim
from equipoise.recipe_lora import DomainLora, adapters_of
from equipoise.records import InputError


@dataclass(frozen=True)
class Learner:
    """The parameters of one adapter, its highest learning rate, and whose pairs it learns from: '' is everybody's."""

    domain: str
    parameters: Mapping[str, torch.nn.Parameter]
    peak: float

    def own(self, pairs: Iterable[EncodedPair]) -> list[EncodedPair]:
        """Those of `pairs` that it learns from."""
        return [pair for pair in pairs if self.domain in ("", pair.domain)]


def learners_of(
    model: Any, lora: Lora | Mapping[str, DomainLora], optim: Optim, pairs: Iterable[EncodedPair]
) -> list[Learner]:
    """The trained adapters of a model; raises InputError where nobody would learn from one of `pairs`."""
    loras = adapters_of(lora)
    for domain in sorted({pair.domain for pair in pairs}):
        if not loras.keys() & {"", domain}:
            raise InputError(f"lora: no adapter learns from the pairs of domain {domain}; add `{domain}: {{rank: 8}}`")
    rates = {domain: one.learning_rate for domain, one in loras.items() if isinstance(one, DomainLora)}
    return [Learner(name, trainable(model, name), rates.get(name) or optim.learning_rate) for name in loras]


def groups(learners: Sequence[Learner]) -> list[dict[str, Any]]:
    """The parameter groups of an optimiser, one for each learner in their order."""
    return [{"params": list(learner.parameters.values()), "lr": learner.peak} for learner in learners]


def by_learner(pairs: Sequence[EncodedPair], lora: Lora | Mapping[str, DomainLora]) -> list[list[EncodedPair]]:
    """The pairs of a step as they go through the model: those of one learner at a time."""
    found = [Learner(domain, {}, 0.0).own(pairs) for domain in adapters_of(lora)]
    return [own for own in found if own]


def in_turn(learners: Sequence[Learner], batch: Sequence[EncodedPair]) -> Iterator[list[EncodedPair]]:
    """The pairs of each learner that has any in `batch`, for who adds their gradients before the next is asked for.

    After the last one every learner has the gradients of its own turn alone, and none where it had no turn.
    """
    held: dict[torch.nn.Parameter, Tensor | None] = {}
    for learner in learning(learners, batch):
        yield learner.own(batch)
        held |= {parameter: parameter.grad for parameter in learner.parameters.values()}
        for other in learners:
            for parameter in other.parameters.values():
                parameter.grad = None
    for parameter, gradient in held.items():
        parameter.grad = gradient


def learning(learners: Sequence[Learner], batch: Sequence[EncodedPair]) -> list[Learner]:
    """The learners that have pairs in `batch`: the same in every process."""
    return [learner for learner in learners if learner.own(batch)]


def clip(accelerator: Accelerator, learners: Sequence[Learner], team: Team, most: float) -> dict[str, Tensor]:
    """Sum the gradients of all processes, and clip each learner's to the norm `most`.

    Returns the norms before that, by domain.
    """
    team.sum_gradients([parameter for learner in learners for parameter in learner.parameters.values()])
    return {
        learner.domain: full(accelerator.clip_grad_norm_(learner.parameters.values(), most)) for learner in learners
    }


def whole_norm(norms: Mapping[str, Tensor]) -> Tensor:
    """The norm of all gradients together."""
    several = list(norms.values())
    return several[0] if len(several) == 1 else torch.stack(several).norm()


def set_rates(
    optimizer: torch.optim.Optimizer, learners: Sequence[Learner], optim: Optim, step: int, steps: int
) -> dict[str, float]:
    """Give every learner's group the learning rate of a step (from 0); returns them, under '' that of the stage."""

    def rate(peak: float) -> float:
        return schedule.learning_rate(step, total=steps, peak=peak, warmup=optim.warmup, schedule=optim.schedule)

    rates = {"": rate(optim.learning_rate)}
    for group, learner in zip(optimizer.param_groups, learners, strict=True):
        group["lr"] = rates[learner.domain] = rate(learner.peak)
    return rates


def figures(norms: Mapping[str, Tensor], rates: Mapping[str, float]) -> dict[str, Any]:
    """What train.jsonl says of the adapters that a step moved, by domain; nothing where there is one for all."""
    moved = {
        domain: {"learning_rate": rates[domain], "grad_norm": round(norm.item(), 8)}
        for domain, norm in norms.items()
        if domain
    }
    return {"adapters": moved} if moved else {}
