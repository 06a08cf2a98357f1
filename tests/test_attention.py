"""Attention over streams against dense softmax attention with the mask written out."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from equipoise.dpo.attention import BLOCK, Scoring, StreamAttention
from equipoise.dpo.attention_flex import visible
from equipoise.dpo.packing import Bounds, pack
from models import random_pairs

CPU = torch.device("cpu")
SMALL = [(3, 4, 5), (1, 1, 1), (6, 1, 2)]
STREAMS = {
    "small": SMALL,
    "one pair": [(5, 3, 4)],
    "longer than a block": [(BLOCK + 2, 3, BLOCK + 1), (2, BLOCK, 1)],
    "a whole block": [(BLOCK, 1, BLOCK)],
}
SCORINGS = {
    "plain": Scoring(0.4),
    "window": Scoring(0.4, window=3),
    "window of one": Scoring(0.4, window=1),
    "long window": Scoring(0.4, window=BLOCK + 3),
    "cap": Scoring(0.7, softcap=1.5),
    "cap and window": Scoring(0.7, softcap=1.5, window=4),
}


def bounds_of(lengths: list[tuple[int, int, int]]) -> tuple[Bounds, ...]:
    return pack(random_pairs(lengths)).bounds


def mask_of(bounds: tuple[Bounds, ...], window: int | None) -> Tensor:
    """[T, T]: what each row sees, by walking over both sequences of every pair."""
    mask = torch.zeros(bounds[-1].rejected, bounds[-1].rejected, dtype=torch.bool)
    for at in bounds:
        prompt = list(range(at.start, at.prompt))
        for answer in (range(at.prompt, at.chosen), range(at.chosen, at.rejected)):
            sequence = [*prompt, *answer]
            for place, row in enumerate(sequence):
                first = 0 if window is None else max(0, place - window + 1)
                mask[row, sequence[first : place + 1]] = True
    return mask


def dense(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, how: Scoring) -> Tensor:
    repeat = query.shape[0] // key.shape[0]
    key, value = key.repeat_interleave(repeat, 0), value.repeat_interleave(repeat, 0)
    scores = how.scale * query @ key.mT
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ value


def inputs(rows: int, heads: int, groups: int, dtype: torch.dtype = torch.float64, width: int = 5) -> list[Tensor]:
    torch.manual_seed(rows + heads)
    shapes = ((heads, rows, width), (groups, rows, width), (groups, rows, width))
    return [torch.randn(*shape, dtype=dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (3, 3), (4, 1)])
@pytest.mark.parametrize("how", SCORINGS.values(), ids=SCORINGS)
@pytest.mark.parametrize("lengths", STREAMS.values(), ids=STREAMS)
def test_output_and_gradients_equal_dense_attention(
    lengths: list[tuple[int, int, int]], how: Scoring, heads: int, groups: int
) -> None:
    bounds = bounds_of(lengths)
    tensors = inputs(bounds[-1].rejected, heads, groups)
    found = StreamAttention.apply(*tensors, bounds, how)
    expected = dense(*tensors, mask_of(bounds, how.window), how)
    slope = torch.randn_like(expected)
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)
    for own, other in zip(
        torch.autograd.grad(found, tensors, slope), torch.autograd.grad(expected, tensors, slope), strict=True
    ):
        assert float((own - other).norm()) <= 1e-10 * float(other.norm()) + 1e-13


@pytest.mark.parametrize("how", SCORINGS.values(), ids=SCORINGS)
def test_gradients_equal_finite_differences(how: Scoring) -> None:
    bounds = bounds_of([(2, 2, 3), (1, 1, 1)])
    tensors = inputs(bounds[-1].rejected, 2, 1, width=2)
    assert torch.autograd.gradcheck(lambda *qkv: StreamAttention.apply(*qkv, bounds, how), tensors)


@pytest.mark.parametrize("how", [SCORINGS["plain"], SCORINGS["cap and window"]], ids=["plain", "cap and window"])
def test_sixteen_bits_stay_near_the_exact_values(how: Scoring) -> None:
    bounds = bounds_of(STREAMS["longer than a block"])
    tensors = inputs(bounds[-1].rejected, 4, 2, torch.bfloat16, width=16)
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found = StreamAttention.apply(*tensors, bounds, how)
    expected = dense(*exact, mask_of(bounds, how.window), how)
    slope = torch.randn_like(expected)
    gradients = torch.autograd.grad(found, tensors, slope.bfloat16())
    for own, other in zip((found, *gradients), (expected, *torch.autograd.grad(expected, exact, slope)), strict=True):
        assert float((own - other).norm()) <= 0.02 * float(other.norm())


def random_streams(count: int) -> list[list[tuple[int, int, int]]]:
    generator = random.Random(0)
    return [
        [(generator.randint(1, 60), generator.randint(1, 30), generator.randint(1, 30)) for _ in range(size)]
        for size in (generator.randint(1, 5) for _ in range(count))
    ]


@pytest.mark.parametrize("window", [None, 1, 7, 40])
def test_the_block_mask_of_flex_attention_is_the_same_mask(window: int | None) -> None:
    for lengths in random_streams(8):
        bounds = bounds_of(lengths)
        rows = torch.arange(bounds[-1].rejected)
        zero = torch.zeros((), dtype=torch.long)
        found = visible(bounds, window, CPU)(zero, zero, rows[:, None], rows[None, :])
        assert torch.equal(found, mask_of(bounds, window))


@pytest.mark.parametrize("how", [SCORINGS["plain"], SCORINGS["cap and window"]], ids=["plain", "cap and window"])
def test_flex_attention_with_this_mask_equals_streams(how: Scoring) -> None:
    bounds = bounds_of([(BLOCK, 9, 12), (3, 5, 2)])
    rows = bounds[-1].rejected
    query, key, value = (tensor.detach() for tensor in inputs(rows, 4, 2, torch.float32, width=16))

    def cap(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return score if how.softcap is None else how.softcap * torch.tanh(score / how.softcap)

    mask = create_block_mask(visible(bounds, how.window, CPU), None, None, rows, rows, device="cpu")
    found = flex_attention(
        query[None], key[None], value[None], score_mod=cap, block_mask=mask, scale=how.scale, enable_gqa=True
    )
    assert torch.allclose(found[0], StreamAttention.apply(query, key, value, bounds, how), atol=1e-5)
