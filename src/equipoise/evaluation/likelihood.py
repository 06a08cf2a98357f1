"""How likely a model finds given answers, beside its base: what preference accuracy is made of. Nothing is generated.

The log-probabilities are those that DPO's loss is made of (`dpo.engine`), with the same chat rendering, the end token
included, computed pair by pair and kept by content, so they do not depend on what else is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise.dpo.engine import engine
from equipoise.dpo.packing import padded_length
from equipoise.dpo.proof import refusal
from equipoise.dpo.reference import Logps, reference_logprobs
from equipoise.evaluation.tasks.base import PairLikelihood
from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.generate import positions
from equipoise.model.load import Loaded
from equipoise.records import Item, Pair
from equipoise.store import Store

Progress = Callable[[int, int], None]
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
            found = reference_logprobs(
                scorer, stack_identity(policy, stack), pairs, store, lambda done: progress(done, len(pairs))
            )
    finally:
        detach(model)
    return found.logps


def _likelihood(pair: EncodedPair, own: tuple[float, float], base: tuple[float, float]) -> PairLikelihood:
    return PairLikelihood(own[0], own[1], base[0], base[1], len(pair.chosen), len(pair.rejected))
