"""Training figures of one optimiser step, in all and by source; kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.dpo.logprobs import PairLogps

FIGURES = (
    "loss",
    "margin",
    "accuracy",
    "chosen_drift",
    "rejected_drift",
    "data_kl",
    "chosen_tokens",
    "rejected_tokens",
)


class StepMetrics:
    """Sums of the figures over the pairs of one step, one row for each source.

    `sums` [sources, figures + 1] holds everything, the last column the number of pairs. Sums of several processes
    add up to those of one: give each process the same list of sources and replace `sums` by their sum before `read`.
    They are fp64, so that the order of additions does not show in the 8 decimals of a record.
    """

    def __init__(self, sources: Sequence[str], device: torch.device) -> None:
        self.sources = list(sources)
        self.sums = torch.zeros(len(self.sources), len(FIGURES) + 1, device=device, dtype=torch.float64)

    def add(self, sources: Sequence[str], losses: Tensor, logps: PairLogps, reference: tuple[Tensor, Tensor]) -> None:
        """Add the pairs of a micro-batch; `losses` and the log-probabilities (nats) have shape [batch]."""
        chosen_drift = (logps.chosen - reference[0]).detach()
        rejected_drift = (logps.rejected - reference[1]).detach()
        margin = chosen_drift - rejected_drift
        kl = (data_kl(chosen_drift, logps.chosen_tokens) + data_kl(rejected_drift, logps.rejected_tokens)) / 2
        columns = [losses.detach(), margin, margin > 0, chosen_drift, rejected_drift, kl]
        columns += [logps.chosen_tokens, logps.rejected_tokens, torch.ones_like(margin)]
        rows_BF = torch.stack([column.double() for column in columns], dim=1)
        places = torch.tensor([self.sources.index(source) for source in sources], device=margin.device)
        which_SB = torch.arange(len(self.sources), device=margin.device)[:, None] == places
        # Not index_add_, which adds in any order on a GPU; and a source without the bad pair stays free of its NaN.
        self.sums = self.sums + torch.where(which_SB[:, :, None], rows_BF, 0.0).sum(1)

    def read(self, beta: float, **also: Tensor) -> dict[str, Any]:
        """Means over all pairs and by source, and the scalars `also`: one transfer from the device.

        `margin` is in reward units (beta times nats); drifts from the reference are in nats per answer, `data_kl`
        in nats per token, lengths in tokens.
        """
        scalars = [value.detach().to(self.sums).reshape(1) for value in also.values()]
        numbers = torch.cat([*scalars, self.sums.flatten()]).tolist()
        first = {name: round(value, 8) for name, value in zip(also, numbers, strict=False)}
        width = len(FIGURES) + 1
        sums_SF = [numbers[start : start + width] for start in range(len(also), len(numbers), width)]
        total = [sum(column) for column in zip(*sums_SF, strict=True)]
        by_source = {name: _means(row, beta) for name, row in zip(self.sources, sums_SF, strict=True) if row[-1]}
        return {**first, **_means(total, beta), "sources": by_source}


def data_kl(drift: Tensor, tokens: Tensor) -> Tensor:
    """How far the policy is from the reference on given answers, in nats per token; >= 0, and 0 at the start.

    With d = drift / tokens, the mean of log(policy / reference) over the answer's tokens, this is exp(d) - 1 - d:
    the k3 estimator of Schulman ("Approximating KL Divergence", 2020) for KL(reference || policy). On tokens that
    the reference had sampled it would be unbiased for each token. Here the tokens are those of the training pairs,
    which somebody else wrote, and one mean stands for all tokens of an answer, which can only lower the value
    (Jensen), to 0 where rises and falls within an answer cancel. So it says how far the policy has moved on these
    texts; it is not the divergence on the policy's own.
    `drift` and `tokens` have shape [batch].
    """
    d = (drift / tokens.clamp(min=1)).clamp(max=80.0)  # beyond 88 fp32 has no exponential
    return torch.expm1(d) - d


def _means(row: list[float], beta: float) -> dict[str, float]:
    pairs = row[-1]
    means = {name: value / pairs for name, value in zip(FIGURES, row, strict=False)}
    means["margin"] *= beta
    means["pairs"] = pairs
    return {name: round(value, 8) for name, value in means.items()}
