"""Training figures of one optimiser step, in all and by source; kept on the device until they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.dpo.logprobs import PairLogps

FIGURES = ("loss", "margin", "accuracy", "chosen_drift", "rejected_drift", "chosen_tokens", "rejected_tokens")


class StepMetrics:
    """Sums of the figures over the pairs of one step, one row for each source."""

    def __init__(self, sources: Sequence[str], device: torch.device) -> None:
        self.sources = list(sources)
        self._sums_SF = torch.zeros(len(self.sources), len(FIGURES) + 1, device=device)

    def add(self, sources: Sequence[str], losses: Tensor, logps: PairLogps, reference: tuple[Tensor, Tensor]) -> None:
        """Add the pairs of a micro-batch; `losses` and the log-probabilities have shape [batch]."""
        chosen_drift = (logps.chosen - reference[0]).detach()
        rejected_drift = (logps.rejected - reference[1]).detach()
        margin = chosen_drift - rejected_drift
        right = (margin > 0).float()
        columns = [losses.detach(), margin, right, chosen_drift, rejected_drift]
        columns += [logps.chosen_tokens.float(), logps.rejected_tokens.float(), torch.ones_like(margin)]
        rows = torch.tensor([self.sources.index(source) for source in sources], device=margin.device)
        self._sums_SF.index_add_(0, rows, torch.stack(columns, dim=1))

    def read(self, beta: float) -> dict[str, Any]:
        """Means over all pairs and by source: one transfer from the device.

        `margin` is in reward units (beta times nats); drifts from the reference are in nats per answer.
        """
        sums_SF = self._sums_SF.tolist()
        total = [sum(column) for column in zip(*sums_SF, strict=True)]
        by_source = {name: _means(row, beta) for name, row in zip(self.sources, sums_SF, strict=True) if row[-1]}
        return {**_means(total, beta), "sources": by_source}


def _means(row: list[float], beta: float) -> dict[str, float]:
    pairs = row[-1]
    means = {name: value / pairs for name, value in zip(FIGURES, row, strict=False)}
    means["margin"] *= beta
    means["pairs"] = pairs
    return {name: round(value, 8) for name, value in means.items()}
