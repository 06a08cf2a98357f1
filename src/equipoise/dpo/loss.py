"""The preference losses: log-probabilities in, one loss per pair out.

All tensors have shape [batch]. `policy_*` and `reference_*` are sums of the log-probabilities (nats) of an
answer's tokens, end-of-turn token included; `*_tokens` are the numbers of those tokens. Losses that are
defined per token divide by them; without them the inputs are taken as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equipoise.dpo.logprobs import PairLogps
from equipoise.recipe import Dpo

Lengths = Tensor | None


def _per_token(logps: Tensor, tokens: Lengths) -> Tensor:
    return logps if tokens is None else logps / tokens.clamp(min=1)


def _log_ratio(
    policy_chosen: Tensor, policy_rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> Tensor:
    """How much more than the reference the policy prefers the chosen answer, in nats."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def sigmoid(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """DPO, Rafailov et al. 2023, eq. 7."""
    return -F.logsigmoid(beta * _log_ratio(policy_chosen, policy_rejected, reference_chosen, reference_rejected))


def hinge(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Hinge on the margin: SLiC (Zhao et al. 2023) with the normalisation of RSO (Liu et al. 2023)."""
    return torch.relu(1 - beta * _log_ratio(policy_chosen, policy_rejected, reference_chosen, reference_rejected))


def ipo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    chosen_tokens: Lengths = None,
    rejected_tokens: Lengths = None,
) -> Tensor:
    """IPO, Azar et al. 2023, eq. 17 with tau = `beta`, per token as its authors use it."""
    chosen = _per_token(policy_chosen - reference_chosen, chosen_tokens)
    rejected = _per_token(policy_rejected - reference_rejected, rejected_tokens)
    return (chosen - rejected - 1 / (2 * beta)) ** 2


def robust(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Robust DPO, Chowdhury et al. 2024, eq. 10: unbiased when a known share of the labels is flipped.

    Not bounded below: with flips a growing margin is rewarded for ever.
    """
    logits = beta * _log_ratio(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    clean, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def sigmoid_norm(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    chosen_tokens: Lengths = None,
    rejected_tokens: Lengths = None,
) -> Tensor:
    """DPO on mean instead of summed log-probabilities (Lambert et al. 2024, Tulu 3, eq. 6)."""
    chosen = _per_token(policy_chosen - reference_chosen, chosen_tokens)
    rejected = _per_token(policy_rejected - reference_rejected, rejected_tokens)
    return -F.logsigmoid(beta * (chosen - rejected))


def simpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    margin: float = 0.5,
    chosen_tokens: Lengths = None,
    rejected_tokens: Lengths = None,
) -> Tensor:
    """SimPO, Meng et al. 2024, eq. 6: needs no reference; `margin` is the paper's gamma."""
    chosen, rejected = _per_token(policy_chosen, chosen_tokens), _per_token(policy_rejected, rejected_tokens)
    return -F.logsigmoid(beta * (chosen - rejected) - margin)


def orpo(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    chosen_tokens: Lengths = None,
    rejected_tokens: Lengths = None,
) -> Tensor:
    """ORPO, Hong et al. 2024, eq. 6 and 7: needs no reference; `beta` is the paper's lambda.

    Its likelihood term is that of the chosen answer alone, each pair counting the same.
    """
    chosen, rejected = _per_token(policy_chosen, chosen_tokens), _per_token(policy_rejected, rejected_tokens)
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    return -chosen - beta * F.logsigmoid(log_odds)


def apo_zero(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """APO-zero, D'Oosterlinck et al. 2024, eq. 7 plus 1: for chosen answers better than the model's own."""
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
) -> Tensor:
    """APO-down, D'Oosterlinck et al. 2024, eq. 8 plus 1: for chosen answers worse than the model's own."""
    chosen, rejected = policy_chosen - reference_chosen, policy_rejected - reference_rejected
    return torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(beta * (chosen - rejected))


def dpop(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    penalty: float = 5.0,
) -> Tensor:
    """DPO-Positive, Pal et al. 2024, eq. 3: a chosen answer that becomes less likely costs `penalty`."""
    ratio = _log_ratio(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    return -F.logsigmoid(beta * (ratio - penalty * torch.relu(reference_chosen - policy_chosen)))


def _log1mexp(logps: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0, accurate near 0 and far below (Maechler 2012)."""
    logps = logps.clamp(max=-1e-6)
    return torch.where(logps > -0.6931, torch.log(-torch.expm1(logps)), torch.log1p(-torch.exp(logps)))


LOSSES: dict[str, Callable[..., Tensor]] = {
    "sigmoid": sigmoid,
    "ipo": ipo,
    "hinge": hinge,
    "robust": robust,
    "sigmoid_norm": sigmoid_norm,
    "simpo": simpo,
    "orpo": orpo,
    "apo_zero": apo_zero,
    "apo_down": apo_down,
    "dpop": dpop,
}
"""Every loss by its name in a recipe: (policy_chosen, policy_rejected, reference_chosen, reference_rejected,
*, beta, ...) -> losses [batch]."""

PER_TOKEN = frozenset({"ipo", "sigmoid_norm", "simpo", "orpo"})
"""Losses that need the numbers of tokens."""

REFERENCE_FREE = frozenset({"simpo", "orpo"})
"""Losses that do not look at the reference."""


def pair_losses(logps: PairLogps, reference: tuple[Tensor, Tensor], dpo: Dpo) -> Tensor:
    """The losses [batch] that the recipe asks for, the optional SFT term included; `dpo.beta` is a number."""
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
