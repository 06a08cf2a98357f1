"""One batch: prompts are read in groups, then all answers are written token by token.

Reading costs a CPU most where its intermediate results do not fit into the caches, and every padded place is work
for nothing; so prompts are read in small groups of nearly equal lengths. Writing costs most where few rows share a
step; so all rows of the batch write together.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor

from equipoise.model.adapters import base_of
from equipoise.model.cache import join, joinable, roomy_cache
from equipoise.model.load import Loaded
from equipoise.records import content_id

READ_TOKENS_CPU, READ_TOKENS = 1024, 16_384
"""Prompts are read in groups of about so many tokens: on a CPU what stays in its caches."""
SHRINK_AT = 0.75
"""Finished rows leave the batch once at most this share of the rows is still being written."""
HEAD_ROWS = 16_384
"""Tokens of the vocabulary whose weights are held in 32 bits at a time."""

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What an answer depends on beside the prompts and the model."""

    max_new_tokens: int
    temperature: float
    seed: int


@torch.inference_mode()
def write(
    loaded: Loaded, batch: Sequence[Ids], settings: Settings, ends: frozenset[int], length: int | None = None
) -> list[list[int]]:
    """Generate one answer for each row and return the token ids, end token included.

    Prompts are padded on the left, so that all rows write at the same place. Rows that have ended leave the
    batch when a quarter of it has; when that happens depends on the batch alone. With `length`, prompts are padded to
    it and rows stay to the end, so that the shape of every step is fixed by `length` and the number of rows.
    """
    draws = _draws(batch, settings, loaded.device) if settings.temperature > 0 else None
    longest = length or max(map(len, batch))
    logits, cache = _read(loaded, batch, longest, fixed=length is not None)
    mask = _mask(batch, longest, settings.max_new_tokens, loaded.device)
    place = mask[:, :longest].sum(1, keepdim=True)
    written: list[list[int]] = [[] for _ in batch]
    rows = list(range(len(batch)))  # which prompt each row of the tensors belongs to
    for step in range(settings.max_new_tokens):
        tokens = _choose(logits, settings.temperature, draws[:, step] if draws is not None else None)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not _ended(written[row], ends):
                written[row].append(token)
        going = [i for i, row in enumerate(rows) if not _ended(written[row], ends)]
        if not going or step + 1 == settings.max_new_tokens:
            break
        if length is None and len(going) <= SHRINK_AT * len(rows):
            keep = torch.tensor(going, device=loaded.device)
            cache.batch_select_indices(keep)
            tokens, place, mask = tokens[keep], place[keep], mask[keep]
            draws = draws[keep] if draws is not None else None
            rows = [rows[i] for i in going]
        logits = _forward(loaded.model, tokens[:, None], mask[:, : longest + step + 1], place + step, cache)
    return written


def _read(loaded: Loaded, batch: Sequence[Ids], longest: int, *, fixed: bool) -> tuple[Tensor, Any]:
    """Logits [rows, vocabulary] of the first token of each answer, and the cache of the prompts."""
    tokens = READ_TOKENS_CPU if loaded.device.type == "cpu" else READ_TOKENS
    parts = _equal_groups(batch, max(1, tokens // longest)) if fixed else _groups(batch, tokens)
    if not joinable(roomy_cache(loaded.model)):
        parts = [list(batch)]
    logits, caches = [], []
    for part in parts:
        length = longest if fixed else max(map(len, part))
        mask = _mask(part, length, 0, loaded.device)
        place = (mask.cumsum(1) - 1).clamp(min=0)
        pad = loaded.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (length - len(row)) + list(row) for row in part], device=loaded.device)
        caches.append(roomy_cache(loaded.model))
        logits.append(_forward(loaded.model, ids, mask, place, caches[-1]))
    return torch.cat(logits), join(caches)


def _forward(model: Any, ids: Tensor, mask: Tensor, place: Tensor, cache: Any) -> Tensor:
    """Logits [rows, vocabulary] of the next token."""
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=place,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _groups(batch: Sequence[Ids], tokens: int) -> list[list[Ids]]:
    """The batch cut into groups, in order, that take up to `tokens` tokens when padded (one row may be longer)."""
    groups: list[list[Ids]] = []
    for ids in batch:
        wider = [*groups[-1], ids] if groups else []
        if wider and len(wider) * max(map(len, wider)) <= tokens:
            groups[-1].append(ids)
        else:
            groups.append([ids])
    return groups


def _equal_groups(batch: Sequence[Ids], most: int) -> list[list[Ids]]:
    """The batch cut into groups of one size, at most `most` rows: no row may be read in another shape than others."""
    size = next(size for size in range(min(most, len(batch)), 0, -1) if len(batch) % size == 0)
    return [list(batch[start : start + size]) for start in range(0, len(batch), size)]


def _mask(batch: Sequence[Ids], length: int, new: int, device: torch.device) -> Tensor:
    """Attention mask [rows, length + new]: 0 where a prompt is padded on its left."""
    return torch.tensor([[0] * (length - len(ids)) + [1] * (len(ids) + new) for ids in batch], device=device)


def _ended(ids: list[int], ends: frozenset[int]) -> bool:
    return bool(ids) and ids[-1] in ends


def _draws(batch: Sequence[Ids], settings: Settings, device: torch.device) -> Tensor:
    """Uniform numbers for every token to be drawn, [rows, max_new_tokens], seeded by seed and prompt."""
    rows = []
    for ids in batch:
        source = torch.Generator().manual_seed(int(content_id([settings.seed, list(ids)])[:15], 16))
        rows.append(torch.rand(settings.max_new_tokens, generator=source, dtype=torch.float64))
    return torch.stack(rows).to(device)


def _choose(logits: Tensor, temperature: float, draws: Tensor | None) -> Tensor:
    """Next token of each row, from logits [rows, vocabulary]: the most likely one, or drawn by inverse CDF."""
    if draws is None:
        return logits.argmax(-1)
    reached = (logits.double() / temperature).softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(reached, (draws * reached[:, -1])[:, None], right=True)
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)


def fp32_logits(model: Any) -> AbstractContextManager[object]:
    """Within this context a model of 16 bits computes its logits in 32 bits.

    The last hidden state is projected again with the output layer's weights in 32 bits, some of the vocabulary at a
    time; what the model does to its logits (scales, soft caps) it then does itself, in 32 bits as well. An output
    layer that is quantised stays as it is.
    """
    layer = base_of(model).get_output_embeddings()
    linear = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer

    def project(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        hidden = inputs[0].float()
        parts = [hidden @ weight.float().T for weight in module.weight.split(HEAD_ROWS)]
        return torch.cat(parts, dim=-1) + (0 if module.bias is None else module.bias.float())

    halved = isinstance(linear, torch.nn.Linear) and linear.weight.dtype in (torch.float16, torch.bfloat16)
    return linear.register_forward_hook(project) if halved else nullcontext()
