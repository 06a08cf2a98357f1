"""What both sides train on: sizes of the model, pairs of random token ids, and the least work that they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

MAX_LENGTH, MAX_PROMPT = 2560, 1536
SIGMA_PROMPT, SIGMA_ANSWER = 0.5, 0.4


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3 model with tied vocabulary."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    vocab: int


@dataclass(frozen=True)
class Profile:
    """Median lengths of prompts and answers in tokens."""

    prompt: int
    answer: int


@dataclass(frozen=True)
class Ids:
    """One pair as token ids."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


SHAPES = {
    "tiny": Shape(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp=128, vocab=1024),
    "small": Shape(hidden=512, layers=8, heads=8, kv_heads=4, head_dim=64, mlp=1536, vocab=32_768),
    "qwen3-1.7b": Shape(hidden=2048, layers=28, heads=16, kv_heads=8, head_dim=128, mlp=6144, vocab=151_936),
}
PROFILES = {"long": Profile(350, 90), "chat": Profile(120, 200), "short": Profile(60, 250)}


def lengths(profile: Profile, batch: int, seed: int) -> list[tuple[int, int, int]]:
    """Lengths (prompt, chosen, rejected) of one batch of pairs: the mid-quantiles of lognormals, shuffled.

    Every batch of a run has these same lengths, so that a setting that can only be given one batch is
    comparable with one that is given several.
    """
    random = np.random.default_rng(seed)
    scores = [NormalDist().inv_cdf((i + 0.5) / batch) for i in range(batch)]

    def drawn(median: int, sigma: float, longest: int) -> list[int]:
        values = [min(longest, max(2, round(median * math.exp(sigma * score)))) for score in scores]
        return [int(value) for value in random.permutation(values)]

    prompts = drawn(profile.prompt, SIGMA_PROMPT, MAX_PROMPT)
    chosen = drawn(profile.answer, SIGMA_ANSWER, MAX_LENGTH - MAX_PROMPT)
    rejected = drawn(profile.answer, SIGMA_ANSWER, MAX_LENGTH - MAX_PROMPT)
    return list(zip(prompts, chosen, rejected, strict=True))


def make_pairs(profile: Profile, count: int, batch: int, vocab: int, seed: int) -> list[Ids]:
    """`count` pairs of random ids (none of them special); pair i has the lengths of pair i modulo `batch`."""
    sizes = lengths(profile, batch, seed=0)
    random = np.random.default_rng([seed, profile.prompt, profile.answer])

    def ids(length: int) -> tuple[int, ...]:
        return tuple(random.integers(300, vocab, length).tolist())

    return [Ids(*(ids(length) for length in sizes[i % batch])) for i in range(count)]


@dataclass(frozen=True)
class Work:
    """Least floating-point operations per pair, mean of a batch."""

    training: float
    reference: float


def minimal_work(shape: Shape, profile: Profile, batch: int, rank: int) -> Work:
    """Operations that no exact implementation can save: each prompt once, the vocabulary at answers only.

    Forward and backward through frozen weights cost 2 operations per weight and token each (the weights need no
    gradient), LoRA 2 and 4, causal attention 2 matrix products forward and 4 backward. The reference pass is one
    forward without LoRA.
    """
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    linears = [(shape.hidden, query), (shape.hidden, key), (shape.hidden, key), (query, shape.hidden)]
    linears += [(shape.hidden, shape.mlp)] * 2 + [(shape.mlp, shape.hidden)]
    frozen = shape.layers * sum(a * b for a, b in linears)
    lora = shape.layers * sum(rank * (a + b) for a, b in linears)
    forward = backward = 0.0
    for prompt, chosen, rejected in lengths(profile, batch, seed=0):
        tokens, answers = prompt + chosen + rejected, chosen + rejected
        area = (prompt**2 + chosen**2 + rejected**2) / 2 + prompt * answers
        product = 2 * query * area * shape.layers
        forward += 2 * frozen * tokens + 2 * shape.vocab * shape.hidden * answers + 2 * product
        backward += 2 * frozen * tokens + 2 * shape.vocab * shape.hidden * answers + 4 * product + 6 * lora * tokens
    return Work(training=(forward + backward) / batch, reference=forward / batch)
