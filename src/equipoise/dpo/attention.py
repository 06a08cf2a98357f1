"""Attention over streams, registered with transformers: exact for any decoder that asks for it by name.

Every row of a stream sees the rows before it of its own pair, and a rejected answer does not see the chosen
one. No mask is built: each pair is two causal problems, `[prompt | chosen]` on itself, and the rejected answer on
`[prompt | rejected]`. The backward pass forms the probabilities again, block by block, from the log-sum-exp of
each row (Dao et al. 2022, FlashAttention, algorithm 4).

Shapes: G key-value heads, each read by R query heads; S query rows, K keys, D the width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equipoise.dpo.packing import Bounds

BLOCK = 128
"""Query rows of one block: small enough to skip most of what causality hides, large enough for matrix products."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """How scores are formed: `scale` * q k, then `softcap` * tanh(score / softcap); `window` as in Mistral."""

    scale: float
    softcap: float | None = None
    window: int | None = None

    def plain(self, keys: int) -> bool:
        """Whether nothing but the scale applies to sequences of up to `keys` keys."""
        return self.softcap is None and (self.window is None or self.window >= keys)


class StreamAttention(torch.autograd.Function):
    """Attention of query [H, T, D] over key and value [G, T, D] of a stream; returns [H, T, D]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bounds: tuple[Bounds, ...], how: Scoring
    ) -> Tensor:
        """Solve both causal problems of every pair; keep inputs, output and the log-sum-exp of each row."""
        q, k, v = _grouped(query, key), key, value
        # [T, H, D] in memory, as the output projection reads it: so that no copy is needed there.
        out = query.new_empty(query.shape[1], query.shape[0], query.shape[2]).transpose(0, 1)
        lse = torch.empty(q.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32), device=query.device)
        grouped = _grouped(out, key)
        for at in bounds:
            main, answer = slice(at.start, at.chosen), slice(at.chosen, at.rejected)
            grouped[:, :, main], lse[:, :, main] = _forward(q[:, :, main], k[:, main], v[:, main], 0, how)
            if at.rejected > at.chosen:
                keys, values = _branch(k, at), _branch(v, at)
                grouped[:, :, answer], lse[:, :, answer] = _forward(
                    q[:, :, answer], keys, values, at.prompt - at.start, how
                )
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.bounds, ctx.how = bounds, how
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value; a prompt's keys and values collect those of both problems."""
        query, key, value, out, lse = ctx.saved_tensors
        q, o, do = (_grouped(tensor, key) for tensor in (query, out, grad))
        dq = torch.empty_like(q)
        dk = torch.zeros(key.shape, dtype=lse.dtype, device=key.device)
        dv = torch.zeros_like(dk)
        for at in ctx.bounds:
            main, answer = slice(at.start, at.chosen), slice(at.chosen, at.rejected)
            rows = (q[:, :, main], o[:, :, main], do[:, :, main], lse[:, :, main])
            dq[:, :, main] = _backward(*rows, key[:, main], value[:, main], dk[:, main], dv[:, main], 0, ctx.how)
            if at.rejected > at.chosen:
                prompt = at.prompt - at.start
                keys, values = _branch(key, at), _branch(value, at)
                dkeys, dvalues = torch.zeros_like(keys, dtype=lse.dtype), torch.zeros_like(values, dtype=lse.dtype)
                rows = (q[:, :, answer], o[:, :, answer], do[:, :, answer], lse[:, :, answer])
                dq[:, :, answer] = _backward(*rows, keys, values, dkeys, dvalues, prompt, ctx.how)
                for total, part in ((dk, dkeys), (dv, dvalues)):
                    total[:, at.start : at.prompt] += part[:, :prompt]
                    total[:, answer] += part[:, prompt:]
        return dq.view(query.shape), dk.to(key.dtype), dv.to(value.dtype), None, None


def _grouped(tensor: Tensor, key: Tensor) -> Tensor:
    """[H, T, D] as [G, R, T, D]: query head h reads key-value head h // R."""
    heads, rows, width = tensor.shape
    return tensor.view(key.shape[0], heads // key.shape[0], rows, width)


def _branch(tensor: Tensor, at: Bounds) -> Tensor:
    """Keys or values [G, K, D] that the rejected answer sees: the prompt's and its own."""
    return torch.cat((tensor[:, at.start : at.prompt], tensor[:, at.chosen : at.rejected]), dim=1)


def _forward(q: Tensor, k: Tensor, v: Tensor, before: int, how: Scoring) -> tuple[Tensor, Tensor]:
    """Output [G, R, S, D] and log-sum-exp [G, R, S] of rows that see `before` keys and then themselves causally."""
    if q.device.type == "cpu" and how.plain(k.shape[1]):
        return _flash(q, k, v, before, how.scale)
    out, lse = (
        torch.empty_like(q),
        torch.empty(q.shape[:3], dtype=torch.promote_types(q.dtype, torch.float32), device=q.device),
    )
    for rows, keys in _blocks(q.shape[2], before, how.window):
        scores = _scores(q[:, :, rows], k[:, keys], how)[0]
        _hide(scores, before + rows.start - keys.start, how.window)
        lse[:, :, rows] = scores.logsumexp(-1)
        probabilities = (scores - lse[:, :, rows, None]).exp_().to(v.dtype)
        out[:, :, rows] = _apart(_together(probabilities) @ v[:, keys], q)
    return out, lse


def _flash(q: Tensor, k: Tensor, v: Tensor, before: int, scale: float) -> tuple[Tensor, Tensor]:
    """The same by PyTorch's flash kernel; two calls, merged by their log-sum-exp, where keys stand before the rows."""
    attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    k, v = (tensor[:, None].expand(-1, q.shape[1], -1, -1) for tensor in (k, v))
    out, lse = attend(q, k[:, :, before:], v[:, :, before:], 0.0, True, scale=scale)
    if not before:
        return out, lse
    context, lse_context = attend(q, k[:, :, :before], v[:, :, :before], 0.0, False, scale=scale)
    total = torch.logaddexp(lse, lse_context)
    merged = out * (lse - total).exp_()[..., None] + context * (lse_context - total).exp_()[..., None]
    return merged.to(q.dtype), total


def _backward(
    q: Tensor,
    o: Tensor,
    do: Tensor,
    lse: Tensor,
    k: Tensor,
    v: Tensor,
    dk: Tensor,
    dv: Tensor,
    before: int,
    how: Scoring,
) -> Tensor:
    """Gradient of the rows [G, R, S, D]; adds those of keys and values to `dk` and `dv` [G, K, D]."""
    dq = torch.empty_like(q)
    delta = (do * o).sum(-1, dtype=lse.dtype)
    for rows, keys in _blocks(q.shape[2], before, how.window):
        scores, slope = _scores(q[:, :, rows], k[:, keys], how)
        _hide(scores, before + rows.start - keys.start, how.window)
        probabilities = scores.sub_(lse[:, :, rows, None]).exp_()
        grad = _together(do[:, :, rows])
        dv[:, keys] += _together(probabilities.to(v.dtype)).mT @ grad
        dscores = _apart(grad @ v[:, keys].mT, q).to(lse.dtype)
        dscores = dscores.sub_(delta[:, :, rows, None]).mul_(probabilities).mul_(how.scale)
        if slope is not None:
            dscores *= slope
        dscores = _together(dscores.to(k.dtype))
        dk[:, keys] += dscores.mT @ _together(q[:, :, rows])
        dq[:, :, rows] = _apart(dscores @ k[:, keys], q)
    return dq


def _together(rows: Tensor) -> Tensor:
    """[G, R, S, X] as [G, R * S, X]: the query heads of one key-value head in one matrix product."""
    return rows.flatten(1, 2)


def _apart(rows: Tensor, like: Tensor) -> Tensor:
    groups, product, width = rows.shape
    return rows.view(groups, like.shape[1], product // like.shape[1], width)


def _blocks(rows: int, before: int, window: int | None) -> Iterator[tuple[slice, slice]]:
    """Blocks of query rows, and the keys that any row of the block sees."""
    for first in range(0, rows, BLOCK):
        last = min(first + BLOCK, rows)
        oldest = max(0, before + first - window + 1) if window else 0
        yield slice(first, last), slice(oldest, before + last)


def _scores(q: Tensor, k: Tensor, how: Scoring) -> tuple[Tensor, Tensor | None]:
    """Scores [G, R, S, K] in fp32 or better, and the slope of the soft cap where there is one."""
    scores = _apart(_together(q) @ k.mT, q).to(torch.promote_types(q.dtype, torch.float32)).mul_(how.scale)
    if how.softcap is None:
        return scores, None
    capped = torch.tanh(scores / how.softcap)
    return capped * how.softcap, 1 - capped.square()


def _hide(scores: Tensor, offset: int, window: int | None) -> None:
    """Put -inf where a row must not look: row i stands at key `offset + i`."""
    rows, keys = scores.shape[-2:]
    if window is None:  # only the square above the diagonal
        square = torch.ones(rows, keys - offset, dtype=torch.bool, device=scores.device).triu_(1)
        scores[..., offset:].masked_fill_(square, -torch.inf)
        return
    distance = torch.arange(rows, device=scores.device)[:, None] + offset - torch.arange(keys, device=scores.device)
    scores.masked_fill_((distance < 0) | (distance >= window), -torch.inf)
