"""Log-probabilities of answers without logits, against log-softmax over all logits under autograd."""

from __future__ import annotations

from dataclasses import fields
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from equipoise.dpo import head as module
from equipoise.dpo.head import Head, answer_logprobs

ROWS, WIDTH, WORDS, RANK, ANSWERS = 11, 6, 23, 3, 4
ANSWERS_N = torch.tensor([0, 0, 0, 1, 3, 3, 3, 3, 0, 1, 3])  # out of order, and answer 2 has no tokens


def tensors(dtype: torch.dtype, *, bias: bool, adapter: bool) -> dict[str, Tensor]:
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {"hidden": (ROWS, WIDTH), "weight": (WORDS, WIDTH)}
    shapes |= {"bias": (WORDS,)} if bias else {}
    shapes |= {"a": (RANK, WIDTH), "b": (WORDS, RANK)} if adapter else {}
    return {name: torch.randn(*shape, dtype=dtype) for name, shape in shapes.items()}


def plainly(given: dict[str, Tensor], scale: float, softcap: float | None, targets: Tensor) -> Tensor:
    logits = given["hidden"] @ given["weight"].mT + given.get("bias", 0)
    if "a" in given:
        logits = logits + given["hidden"] @ given["a"].mT @ given["b"].mT
    logits = logits * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    picked = logits.log_softmax(1).gather(1, targets[:, None])[:, 0]
    return torch.zeros(ANSWERS, dtype=picked.dtype).index_add(0, ANSWERS_N, picked)


def served(given: dict[str, Tensor], scale: float, softcap: float | None, targets: Tensor) -> Tensor:
    parts: dict[str, Any] = {field.name: given.get(field.name) for field in fields(Head)}
    parts |= {"scale": scale, "softcap": softcap}
    return answer_logprobs(given["hidden"], Head(**parts), targets, ANSWERS_N, ANSWERS)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.3, None), (1.0, 2.0), (3.0, 1.5)])
@pytest.mark.parametrize(("bias", "adapter"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize(
    "trained", [("hidden",), ("weight",), ("bias", "a", "b"), ("hidden", "weight", "bias", "a", "b")]
)
def test_sums_and_gradients_equal_autograd(
    trained: tuple[str, ...], bias: bool, adapter: bool, scale: float, softcap: float | None, rows: int,
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "CHUNK_ROWS", rows)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1)
    given = tensors(dtype, bias=bias, adapter=adapter)
    learned = [given[name].requires_grad_() for name in trained if name in given] or [given["weight"].requires_grad_()]
    targets = torch.randint(WORDS, (ROWS,))
    found, expected = (way(given, scale, softcap, targets) for way in (served, plainly))
    slope = torch.tensor([0.5, -2.0, 1.0, 0.0], dtype=dtype)
    limit = 1e-10 if dtype == torch.float64 else 1e-4
    assert torch.allclose(found, expected, rtol=limit, atol=limit)
    assert found[2] == 0  # an answer without tokens has probability 1
    for own, other in zip(
        torch.autograd.grad(found, learned, slope), torch.autograd.grad(expected, learned, slope), strict=True
    ):
        assert own.dtype == dtype
        assert float((own - other).norm()) <= limit * float(other.norm())


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_vocabulary_matrix_tied_or_not(tied: bool) -> None:
    """Tied, the matrix learns from both of its places."""
    torch.manual_seed(0)
    embedding = torch.randn(WORDS, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = embedding if tied else torch.randn(WORDS, WIDTH, dtype=torch.float64, requires_grad=True)
    tokens, targets = torch.randint(WORDS, (2, ROWS))

    def gradients(way: Any) -> tuple[Tensor | None, ...]:
        sums = way({"hidden": embedding[tokens].tanh(), "weight": weight}, 1.0, None, targets)
        return torch.autograd.grad(sums.square().sum(), (embedding, weight))

    for own, other in zip(gradients(served), gradients(plainly), strict=True):
        assert own is not None and other is not None
        assert torch.allclose(own, other, rtol=1e-10)


def test_large_logits_do_not_overflow() -> None:
    given = tensors(torch.float32, bias=False, adapter=False)
    given["hidden"] *= 1e4
    targets = torch.randint(WORDS, (ROWS,))
    assert torch.allclose(served(given, 1.0, None, targets), plainly(given, 1.0, None, targets), rtol=1e-5)


def test_sixteen_bits_sum_in_full_precision() -> None:
    given = tensors(torch.bfloat16, bias=True, adapter=True)
    exact = {name: tensor.double() for name, tensor in given.items()}
    targets = torch.randint(WORDS, (ROWS,))
    found = served(given, 1.0, None, targets)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), plainly(exact, 1.0, None, targets), rtol=0.02, atol=0.1)
