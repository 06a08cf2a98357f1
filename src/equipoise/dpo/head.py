"""Log-probabilities of answers without keeping logits: the vocabulary meets answer rows only, a chunk at a time.

The loss looks at each answer's summed log-probability s alone, so all rows of an answer share one coefficient
dL/ds. The forward pass therefore forms the gradient of s itself from the logits that it has at hand, and the
backward pass only multiplies it: logits are neither kept nor computed again. A vocabulary matrix that is itself
trained is the exception: its gradient mixes the rows of all answers before the coefficients are known, so the
backward pass computes its logits a second time.

Shapes: N answer rows, H hidden width, V vocabulary, R rank of an adapter of the head, K answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 32 * 2**20
"""Size of a chunk's logits in fp32."""
CHUNK_ROWS = 128
"""Rows of a chunk at least: fewer would leave matrix units idle."""


@dataclass(frozen=True, slots=True)
class Head:
    """The output projection: `weight` [V, H], `bias` [V], an adapter's `a` [R, H] and `b` [V, R], and what the model
    does to the product: z -> softcap * tanh(scale * z / softcap)."""

    weight: Tensor
    bias: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor, thin: Tensor | None) -> tuple[Tensor, Tensor | float]:
        """Logits [N, V] in fp32 or better, and their slope with respect to the product."""
        z = hidden @ self.weight.mT if self.bias is None else torch.addmm(self.bias, hidden, self.weight.mT)
        if thin is not None and self.b is not None:
            z.addmm_(thin, self.b.mT)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        if self.scale != 1.0:
            z.mul_(self.scale)
        if self.softcap is None:
            return z, self.scale
        capped = torch.tanh(z / self.softcap)
        return capped * self.softcap, (1 - capped.square()) * self.scale


def answer_logprobs(hidden: Tensor, head: Head, targets: Tensor, answers: Tensor, count: int) -> Tensor:
    """Sum of the log-probabilities (nats) of each answer's tokens, [count] in fp32 or better.

    `hidden` [N, H] are the rows that predict `targets` [N]; `answers` [N] names the answer of each row.
    """
    thin = None if head.a is None else hidden @ head.a.mT
    arguments = (hidden, head.weight, head.bias, thin, head.b, head, targets, answers, count)
    return AnswerLogprobs.apply(*arguments)  # type: ignore[no-untyped-call,no-any-return]


class AnswerLogprobs(torch.autograd.Function):
    """The function behind `answer_logprobs`; what autograd must see stands before `head`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        thin: Tensor | None,
        b: Tensor | None,
        head: Head,
        targets: Tensor,
        answers: Tensor,
        count: int,
    ) -> Tensor:
        """See `answer_logprobs`; `thin` [N, R] is what the adapter of the head makes of `hidden`."""
        exact = torch.promote_types(hidden.dtype, torch.float32)
        sums = torch.zeros(count, dtype=exact, device=hidden.device)
        wanted = ctx.needs_input_grad
        unit = torch.empty_like(hidden) if wanted[0] else None
        unit_thin = torch.empty_like(thin) if thin is not None and wanted[3] else None
        unit_b = torch.zeros(count, *b.shape, dtype=exact, device=b.device) if b is not None and wanted[4] else None
        for rows in _chunks(hidden, weight):
            thin_rows = None if thin is None else thin[rows]
            logits, slope = head.logits(hidden[rows], thin_rows)
            right = targets[rows, None]
            logps, probabilities = _softmax(logits, right)
            sums.index_add_(0, answers[rows], logps)
            if unit is None and unit_thin is None and unit_b is None:
                continue
            dz = _unit_gradient(probabilities, right, slope).to(hidden.dtype)
            if unit is not None:
                unit[rows] = dz @ weight
            if unit_thin is not None and b is not None:
                unit_thin[rows] = dz @ b
            if unit_b is not None and thin_rows is not None:
                _add_by_answer(unit_b, dz, thin_rows, answers[rows])
        ctx.save_for_backward(hidden, thin, b, targets, answers, unit, unit_thin, unit_b)
        ctx.head = head
        return sums

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Multiply the unit gradients by each answer's coefficient, `grad` [K]."""
        hidden, thin, b, targets, answers, unit, unit_thin, unit_b = ctx.saved_tensors
        rows = grad[answers, None]
        dhidden = None if unit is None else (unit * rows).to(hidden.dtype)
        dthin = None if unit_thin is None else (unit_thin * rows).to(hidden.dtype)
        db = None if unit_b is None else torch.einsum("k,kvr->vr", grad, unit_b).to(b.dtype)
        dweight = dbias = None
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            dweight, dbias = _weight_gradient(ctx.head, hidden, thin, targets, rows)
        return dhidden, dweight, dbias, dthin, db, None, None, None, None


def _chunks(hidden: Tensor, weight: Tensor) -> Iterator[slice]:
    rows = max(CHUNK_ROWS, CHUNK_BYTES // (4 * weight.shape[0]))
    for start in range(0, len(hidden), rows):
        yield slice(start, min(start + rows, len(hidden)))


def _softmax(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """log p(target) [n], and all probabilities [n, V] in place of the logits."""
    target, largest = logits.gather(1, right), logits.amax(1, keepdim=True)
    total = logits.sub_(largest).exp_().sum(1, keepdim=True)
    return (target - largest - total.log())[:, 0], logits.div_(total)


def _unit_gradient(probabilities: Tensor, right: Tensor, slope: Tensor | float) -> Tensor:
    """Gradient [n, V] of each row's log p(target) with respect to the product: (1[target] - p) * slope; in place."""
    dz = probabilities.neg_()
    dz.scatter_add_(1, right, torch.ones_like(right, dtype=dz.dtype))
    return dz if isinstance(slope, float) and slope == 1.0 else dz.mul_(slope)


def _add_by_answer(unit_b: Tensor, dz: Tensor, thin: Tensor, answers: Tensor) -> None:
    for answer in sorted(set(answers.tolist())):
        own = answers == answer
        unit_b[answer] += dz[own].mT @ thin[own]


def _weight_gradient(
    head: Head, hidden: Tensor, thin: Tensor | None, targets: Tensor, coefficients: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Gradients of a trained vocabulary matrix and bias; `coefficients` [N, 1] are dL/ds of each row's answer."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    dweight = torch.zeros_like(head.weight, dtype=exact)
    dbias = None if head.bias is None else torch.zeros_like(head.bias, dtype=exact)
    for rows in _chunks(hidden, head.weight):
        logits, slope = head.logits(hidden[rows], None if thin is None else thin[rows])
        right = targets[rows, None]
        dz = _unit_gradient(_softmax(logits, right)[1], right, slope).mul_(coefficients[rows])
        dweight.addmm_(dz.mT, hidden[rows].to(exact))
        if dbias is not None:
            dbias += dz.sum(0)
    return dweight.to(head.weight.dtype), None if dbias is None else dbias.to(head.weight.dtype)
