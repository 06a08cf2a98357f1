"""How likely a model finds given answers, beside its base: what preference accuracy is made of. Nothing is generated.

The log-probabilities are those that DPO's loss is made of (`dpo.engine`), with the same chat rendering, the end token
included, and kept by content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from equipoise.dpo.engine import PairScorer, engine
from equipoise.dpo.packing import padded_length, stream_length, token_budget
from equipoise.dpo.proof import refusal
from equipoise.dpo.reference import Logps
from equipoise.evaluation.tasks.base import PairLikelihood
from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.generate import positions
from equipoise.model.load import Loaded, surroundings
from equipoise.records import Item, Pair, content_id
from equipoise.store import Store

Progress = Callable[[int, int], None]
VERSION = 1
"""Raise it when values change: kept ones are then no longer served."""
KIND = "likelihoods"
DEFAULT_LENGTH = 4096
"""Longest prompt and answer in tokens where the task does not say."""


def likelihoods(
    policy: Loaded,
    stack: Sequence[Path],
    items: Sequence[Item],
    store: Store,
    *,
    thinking: bool,
    max_length: int = DEFAULT_LENGTH,
    progress: Progress = lambda done, total: None,
) -> dict[str, PairLikelihood | str]:
    """For each item with `gold["pair"]` (better, worse answer), by id, its likelihood or the reason why there is none.

    The reference is the policy without adapters. Leaves the policy without adapters.
    """
    longest = min(max_length, positions(policy.model))
    asked = {item.id: _encoded(policy, item, longest, thinking) for item in items if item.gold.get("pair")}
    pairs = [pair for pair in asked.values() if isinstance(pair, EncodedPair)]
    if not pairs:
        return {id: reason for id, reason in asked.items() if isinstance(reason, str)}
    base = _logprobs(policy, [], pairs, store, progress)
    own = _logprobs(policy, stack, pairs, store, progress) if stack else base
    return {
        id: found if isinstance(found, str) else _likelihood(found, own[found.id], base[found.id])
        for id, found in asked.items()
    }


def _encoded(policy: Loaded, item: Item, longest: int, thinking: bool) -> EncodedPair | str:
    chosen, rejected = item.gold["pair"]
    pair = Pair(item.prompt, chosen, rejected, domain=item.task, source=item.task, group=item.group)
    encoded = encode_pair(policy.tokenizer, pair, max_length=longest, max_prompt_length=longest, thinking=thinking)
    if encoded != "answer too long":
        return encoded
    # Then the prompt gives way, down to half of the room.
    return encode_pair(policy.tokenizer, pair, max_length=longest, max_prompt_length=longest // 2, thinking=thinking)


def _logprobs(
    policy: Loaded, stack: Sequence[Path], pairs: Sequence[EncodedPair], store: Store, progress: Progress
) -> Logps:
    model = attach(policy, stack)
    model.eval()
    try:
        refusal(model, longest=max(map(padded_length, pairs)))
        with engine(model, pairs, say=lambda text: None) as scorer:
            return pair_logprobs(scorer, stack_identity(policy, stack), pairs, store, progress)
    finally:
        detach(model)


def pair_logprobs(
    scorer: PairScorer,
    identity: str,
    pairs: Sequence[EncodedPair],
    store: Store,
    progress: Progress = lambda done, total: None,
) -> Logps:
    """Log-probabilities of both answers of every pair by id, from the store where they are there.

    Distinct pairs, sorted by length and content, are cut into forward passes of a fixed number of tokens; such a group
    is kept whole under the key of all its pairs, as answers are. So the values are a function of the set of pairs.
    """
    distinct = sorted({pair.id: pair for pair in pairs}.values(), key=lambda pair: (stream_length(pair), _ids(pair)))
    device = next(scorer.parameters()).device
    identity = content_id([VERSION, identity, scorer.way, *surroundings(device)])
    known = store.get(KIND, identity)
    found: Logps = {}
    for group in scorer.micro_batches(distinct, token_budget(None, device.type)):
        key = content_id([_ids(pair) for pair in group])
        if key not in known:
            with torch.no_grad():
                logps = scorer(group)
            known[key] = [logps.chosen.tolist(), logps.rejected.tolist()]
            store.put(KIND, identity, {key: known[key]})
        found |= {pair.id: values for pair, *values in zip(group, *known[key], strict=True)}
        progress(len(found), len(distinct))
    return {id: (chosen, rejected) for id, (chosen, rejected) in found.items()}


def _ids(pair: EncodedPair) -> list[list[int]]:
    return [list(pair.prompt), list(pair.chosen), list(pair.rejected)]


def _likelihood(pair: EncodedPair, own: tuple[float, float], base: tuple[float, float]) -> PairLikelihood:
    return PairLikelihood(own[0], own[1], base[0], base[1], len(pair.chosen), len(pair.rejected))
