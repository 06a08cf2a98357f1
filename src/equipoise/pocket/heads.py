"""Initial weights that hold the idea of copying: heads that look back a few places, and heads that match.

From stock initial weights the same model finds such heads by itself only after an unpredictable number of tokens.
Layer 0 gets three heads that write what stood one, two and three places before into hidden dimensions kept free for
it; layer 1 gets heads that look for the place whose last one (or last three) tokens are the present ones and say what
stands there. One hidden dimension is constant in every embedding, since a query for a place, not for a content,
needs something constant to come from. All of it stays trainable.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

CONSTANT = 0.06
OFFSETS = (1, 2, 3)
FREE = 16  # hidden dimensions that each offset writes to; they follow dimension 0, the constant
NEAR_PLANES, FAR_PLANES = range(0, 4), range(6, 16)  # rotary planes that turn fast (place) and slowly (content)
PLACE_GAIN, MATCH_GAIN = 2.0, 1.7
WRITE_PREVIOUS, WRITE_COPY = 0.04, 0.06
QUIET = 0.4  # factor on what the other heads and the MLPs add at first


@torch.no_grad()
def shape_heads(model: Qwen3ForCausalLM) -> None:
    """Write the heads into layers 0 and 1 of a fresh model, in place."""
    width = model.config.hidden_size
    first = 1 + FREE * len(OFFSETS)
    embedding = model.model.embed_tokens.weight
    embedding[:, 0] = CONSTANT
    embedding[:, 1:first] = 0.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= QUIET
        layer.mlp.down_proj.weight *= QUIET
    content = torch.zeros(FREE, width)
    content[:, first:] = _directions(FREE, width - first)
    for head, offset in enumerate(OFFSETS):
        _looking_back(model, head, offset, content)
    _matching(model, 0, content, (20,))
    _matching(model, 1, content, (4, 8, 8))


def _directions(rows: int, columns: int) -> Tensor:
    """`rows` orthonormal random directions."""
    directions: Tensor = torch.linalg.qr(torch.randn(columns, rows))[0].T
    return directions


def _looking_back(model: Qwen3ForCausalLM, head: int, offset: int, content: Tensor) -> None:
    """A head of layer 0 that looks `offset` places back and writes that token's content into free dimensions."""
    attention = model.model.layers[0].self_attn
    size, half = model.config.head_dim, model.config.head_dim // 2
    speed = model.config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    query, key = torch.zeros(size), torch.zeros(size)
    for plane in NEAR_PLANES:
        query[plane] = 1.0
        key[plane], key[plane + half] = torch.cos(offset * speed[plane]), torch.sin(offset * speed[plane])
    mine = slice(head * size, (head + 1) * size)
    for projection, vector in ((attention.q_proj, query), (attention.k_proj, key)):
        projection.weight[mine] = 0.0
        projection.weight[mine, 0] = vector
    attention.q_norm.weight.fill_(PLACE_GAIN)
    attention.k_norm.weight.fill_(PLACE_GAIN)
    attention.v_proj.weight[mine] = 0.0
    attention.v_proj.weight[head * size : head * size + FREE] = content
    attention.o_proj.weight[:, mine] = 0.0
    for i in range(FREE):
        attention.o_proj.weight[_free(offset) + i, head * size + i] = WRITE_PREVIOUS


def _free(offset: int) -> int:
    """First hidden dimension that holds what stood `offset` places before."""
    return 1 + FREE * OFFSETS.index(offset)


def _matching(model: Qwen3ForCausalLM, head: int, content: Tensor, parts: tuple[int, ...]) -> None:
    """A head of layer 1: query (now, one before, ...), key (one before, two before, ...), `parts` dimensions each.

    It looks where the last `len(parts)` tokens were the present ones, and says the token that stands there.
    """
    attention = model.model.layers[1].self_attn
    size, width = model.config.head_dim, content.shape[1]
    rows = [head * size + plane + half for plane in FAR_PLANES for half in (0, size // 2)]
    mine = slice(head * size, (head + 1) * size)
    attention.q_norm.weight.fill_(MATCH_GAIN)
    attention.k_norm.weight.fill_(MATCH_GAIN)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight[mine] = 0.0
    for back, count in enumerate(parts):
        for i in range(count):
            row = rows.pop(0)
            mix = torch.randn(FREE) / FREE**0.5 if count > FREE else torch.eye(FREE)[i]
            query = torch.zeros(width)
            if back == 0:
                query = mix @ content
            else:
                query[_free(back) : _free(back) + FREE] = mix
            attention.q_proj.weight[row] = query
            attention.k_proj.weight[row, _free(back + 1) : _free(back + 1) + FREE] = mix
    said = torch.zeros(size, width)
    first = _free(OFFSETS[-1]) + FREE
    said[:, first:] = _directions(size, width - first)
    attention.v_proj.weight[mine] = said
    attention.o_proj.weight[:, mine] = WRITE_COPY * said.T
