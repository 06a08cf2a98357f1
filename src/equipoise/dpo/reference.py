"""Reference log-probabilities: computed once per pair and reference model, and kept in the store.

The key is the pair's token ids; the identity is the content of the base weights and of every adapter that is
active, and the way and place of the computation, which round differently. So another learning rate, beta, rank,
seed, mix or stage order reuses them, and a changed model, template or truncation cannot be served a wrong one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from equipoise.dpo.distributed import ALONE, Team, TrainingStopped
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.guards import forward_tokens, stop_together
from equipoise.dpo.room import Attempt, no_room
from equipoise.model.chat import EncodedPair
from equipoise.model.load import surroundings
from equipoise.records import content_id
from equipoise.store import Store

VERSION = 1
"""Of this computation: a change of the engine that changes values raises it, and old values are not served."""
SAVE_EVERY = 512
"""Pairs after which every process hands over what it has computed."""
Logps = dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Reference:
    """Chosen and rejected log-probability (nats) per pair id, and how many of them came from the store."""

    logps: Logps
    reused: int
    computed: int


def reference_logprobs(
    scorer: PairScorer,
    identity: str,
    pairs: Sequence[EncodedPair],
    store: Store,
    progress: Callable[[int], None] = lambda done: None,
    *,
    team: Team = ALONE,
) -> Reference:
    """Look up or compute the reference log-probabilities of `pairs` (the policy behind `scorer` already is the
    reference).

    Each pair is computed in a forward pass of its own: so its value does not depend, not even in the last
    bit, on which other pairs happened to be in the store or in the mix, or on the number of processes. The main
    process reads and writes the store. Raises TrainingStopped where the memory does not suffice for a pair.
    """
    keys = {pair.id: content_id([pair.prompt, pair.chosen, pair.rejected]) for pair in pairs}
    identity = content_id([identity, VERSION, scorer.way, *surroundings(next(scorer.parameters()).device)])
    known = store.get("reference", identity) if team.main else {}
    missing = team.share([pair for pair in {pair.id: pair for pair in pairs}.values() if keys[pair.id] not in known])
    for start in range(0, len(missing), SAVE_EVERY):
        some = missing[start : start + SAVE_EVERY]
        fresh, failed = _computed(scorer, some, team, partial(_later, progress, start))
        stop_together(team, failed)
        found = {keys[id]: logps for part in team.gather(fresh) for id, logps in part.items()}
        if team.main:
            store.put("reference", identity, found)
            known |= found
    looked_up = team.share({id: _both(known, key) for id, key in keys.items()} if team.main else {})
    return Reference(looked_up, reused=len(looked_up) - len(missing), computed=len(missing))


def _computed(
    scorer: PairScorer, pairs: Sequence[EncodedPair], team: Team, progress: Callable[[int], None]
) -> tuple[Logps, str | None]:
    """This process's part of `pairs`: their log-probabilities by id, and why it stopped before the end."""
    fresh: Logps = {}
    wrong: str | None = None
    own = pairs[team.index :: team.size]
    rounds = -(-len(pairs) // team.size)
    # Sharded layers are gathered in every forward pass, so every process must run the same number of them.
    idle = [pairs[0]] * (rounds - len(own)) if team.sharded else []
    for number, pair in enumerate([*own, *idle], 1):
        attempt = Attempt()
        with attempt, torch.no_grad():
            logps = scorer([pair])
            fresh |= {pair.id: (logps.chosen.item(), logps.rejected.item())} if number <= len(own) else {}
        if attempt.failed and team.sharded:
            raise TrainingStopped(str(no_room(pair, forward_tokens(scorer, pair), "reference")), alone=True)
        if attempt.failed:
            return fresh, str(no_room(pair, forward_tokens(scorer, pair), "reference"))
        if wrong is None and not all(map(math.isfinite, fresh.get(pair.id, ()))):
            wrong = (
                f"reference: the log-probabilities of pair {pair.id} are {fresh[pair.id]}: no numbers to train on. "
                f"Try model.dtype: float32, or look at this pair"
            )
        progress(min(number * team.size, len(pairs)))
    return fresh, wrong


def _later(progress: Callable[[int], None], start: int, done: int) -> None:
    progress(start + done)


def _both(known: Mapping[str, Sequence[float]], key: str) -> tuple[float, float]:
    return float(known[key][0]), float(known[key][1])
