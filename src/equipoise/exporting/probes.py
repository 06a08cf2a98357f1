"""The proof of an export: log-probabilities of a few of the run's own pairs, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from equipoise.data.tables import read_pairs
from equipoise.dpo.logprobs import pair_logprobs
from equipoise.exporting.choice import Chosen
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.records import InputError

PAIRS = 8
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
"""Largest difference in nats per answer token, by the precision of the base model's weights. Sums in another order
differ in the last digits; a merged matrix in bfloat16 is rounded to 8 significant bits, which is the larger part."""


@dataclass(frozen=True)
class Check:
    """Figures in nats per answer token, over the answers of the probe pairs.

    `largest` and `mean` are absolute differences between the run's stack and the export. `moved` is the largest
    difference between the base model and the run's stack: what the training did to the same answers.
    """

    pairs: int
    tokens: int
    dtype: str
    largest: float
    mean: float
    moved: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the export is the model that was evaluated."""
        return self.largest <= self.tolerance  # False as well where a log-probability is no number

    def record(self) -> dict[str, Any]:
        """The JSON object in `export.json`."""
        return {**asdict(self), "passed": self.passed}

    def words(self) -> str:
        """One sentence with the figures."""
        little = ": less than is allowed, so this says little" if self.moved <= self.tolerance else ""
        return (
            f"log-probabilities of {2 * self.pairs} answers ({self.tokens} tokens) differ by at most "
            f"{self.largest:.2g} nats per token ({self.mean:.2g} on average; {self.tolerance:g} is allowed in "
            f"{self.dtype}, and training itself moved them by up to {self.moved:.2g}{little})"
        )


def probe_pairs(chosen: Chosen, tokenizer: Any, count: int = PAIRS) -> list[EncodedPair]:
    """Return pairs that the exported stages were trained on, in turn from each stage, spread over its file.

    Raises InputError where a stage's pairs cannot be read, or none of them can be encoded.
    """
    found: list[list[EncodedPair]] = []
    for stage in chosen.stages:
        pairs, dpo = read_pairs(chosen.pairs(stage)), chosen.settings(stage).dpo
        spread = pairs[:: max(1, len(pairs) // count)]
        rows = [
            encode_pair(
                tokenizer,
                pair,
                max_length=dpo.max_length,
                max_prompt_length=dpo.max_prompt_length,
                thinking=chosen.recipe.model.thinking,
            )
            for pair in spread
        ]
        found.append([row for row in rows if isinstance(row, EncodedPair)])
    in_turn = [rows[place] for place in range(count) for rows in found if place < len(rows)]
    if not in_turn:
        raise InputError(f"{chosen.run.folder}: no pair of {', '.join(chosen.stages)} can be encoded for the check")
    return in_turn[:count]


def logps(model: Any, pairs: Sequence[EncodedPair]) -> list[float]:
    """Return the log-probability in nats per token of every answer: all chosen ones, then all rejected ones."""
    with torch.no_grad():
        found = pair_logprobs(model, pairs, alone=True)
    sums = torch.cat([found.chosen, found.rejected]).double()
    counts = torch.cat([found.chosen_tokens, found.rejected_tokens]).double()
    return [float(value) for value in sums / counts]


def check(
    pairs: Sequence[EncodedPair], base: Sequence[float], before: Sequence[float], after: Sequence[float], dtype: str
) -> Check:
    """Compare what `logps` gave for the base model, the run's stack and the export."""
    apart = [abs(one - other) for one, other in zip(before, after, strict=True)]
    moved = max(abs(one - other) for one, other in zip(base, before, strict=True))
    largest = max(apart) if all(value == value for value in apart) else float("inf")
    tokens = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return Check(len(pairs), tokens, dtype, largest, sum(apart) / len(apart), moved, TOLERANCE[dtype])
