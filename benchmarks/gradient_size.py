"""How long pairs' gradients are at the start of a stage, against what a mix `by: gradient` expects.

    python benchmarks/gradient_size.py

Prints, for each domain of the embedded world: answer tokens of a pair (mean), the length of the gradient of
log pi(chosen) - log pi(rejected) with respect to a fresh adapter (mean), the mean that `expected_gradient` predicts
after one factor is fitted to all pairs together, and how far that is off.
"""

from __future__ import annotations

import math
from statistics import fmean

import torch

from equipoise.data.mix import expected_gradient
from equipoise.data.sources import build
from equipoise.dpo.logprobs import pair_logprobs
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.load import load_policy
from equipoise.recipe import Lora, ModelSpec, PocketSource

PAIRS = 200
DOMAINS = ("general", "finance", "reddit")


def gradient_length(model: torch.nn.Module, pair: EncodedPair) -> float:
    parameters = adapters.trainable(model).values()
    for parameter in parameters:
        parameter.grad = None
    logps = pair_logprobs(model, [pair])
    (logps.chosen - logps.rejected).sum().backward()
    return math.sqrt(sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None))


def main() -> None:
    policy = load_policy(ModelSpec(id="pocket"))
    model = adapters.add(policy.model, Lora(), seed=0, base_name="pocket")
    pairs: dict[str, list[EncodedPair]] = {}
    for domain in DOMAINS:
        built = build(domain, PocketSource(kind="pocket", domain=domain, rows=4 * PAIRS))
        rows = [encode_pair(policy.tokenizer, pair, max_length=512, max_prompt_length=384) for pair in built.pairs]
        pairs[domain] = [row for row in rows if not isinstance(row, str)][:PAIRS]
    measured = {domain: [gradient_length(model, row) for row in rows] for domain, rows in pairs.items()}
    expected = {
        domain: [expected_gradient(len(row.chosen), len(row.rejected), per_token=False) for row in rows]
        for domain, rows in pairs.items()
    }
    factor = sum(map(sum, measured.values())) / sum(map(sum, expected.values()))
    print("| domain | answer tokens | measured | expected | off by |\n|---|---|---|---|---|")
    for domain, rows in pairs.items():
        found, predicted = fmean(measured[domain]), factor * fmean(expected[domain])
        tokens = fmean(len(row.chosen) + len(row.rejected) for row in rows)
        print(f"| {domain} | {tokens:.1f} | {found:.2f} | {predicted:.2f} | {predicted / found - 1:+.0%} |")


if __name__ == "__main__":
    main()
