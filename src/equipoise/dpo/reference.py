"""Reference log-probabilities: computed once per pair and reference model, and kept in the store.

The key is the pair's token ids; the identity is the content of the base weights and of every adapter that
is active. So another learning rate, beta, rank, seed, mix or stage order reuses them, and a changed model,
template or truncation cannot be served a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from equipoise.dpo.engine import PairScorer
from equipoise.model.chat import EncodedPair
from equipoise.records import content_id
from equipoise.store import Store

SAVE_EVERY = 512


@dataclass(frozen=True, slots=True)
class Reference:
    """Chosen and rejected log-probability (nats) per pair id, and how many of them came from the store."""

    logps: dict[str, tuple[float, float]]
    reused: int
    computed: int


def reference_logprobs(
    scorer: PairScorer,
    identity: str,
    pairs: Sequence[EncodedPair],
    store: Store,
    progress: Callable[[int], None] = lambda done: None,
) -> Reference:
    """Look up or compute the reference log-probabilities of `pairs` (the policy behind `scorer` already is the
    reference).

    Each pair is computed in a forward pass of its own: so its value does not depend, not even in the last
    bit, on which other pairs happened to be in the store or in the mix.
    """
    keys = {pair.id: content_id([pair.prompt, pair.chosen, pair.rejected]) for pair in pairs}
    known = store.get("reference", identity)
    missing = [pair for pair in {pair.id: pair for pair in pairs}.values() if keys[pair.id] not in known]
    fresh: dict[str, tuple[float, float]] = {}
    for number, pair in enumerate(missing, 1):
        with torch.no_grad():
            logps = scorer([pair])
        fresh[keys[pair.id]] = (logps.chosen.item(), logps.rejected.item())
        if number % SAVE_EVERY == 0 or number == len(missing):
            store.put("reference", identity, fresh)
            known |= fresh
            fresh = {}
        progress(number)
    logps_by_id = {id: (float(known[key][0]), float(known[key][1])) for id, key in keys.items()}
    return Reference(logps_by_id, reused=len(logps_by_id) - len(missing), computed=len(missing))
