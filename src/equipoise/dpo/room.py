"""Room in memory: a step that does not fit is done again with half the tokens per forward pass."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

import torch

from equipoise.dpo import checkpoint
from equipoise.dpo.distributed import Team, TrainingStopped
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.guards import forward_tokens
from equipoise.model.chat import EncodedPair
from equipoise.model.memory import out_of_memory
from equipoise.run_folder import write_json

NOTE = "checkpoints/memory.json"
"""Where a process leaves the halved budget that it could not tell the others."""


class Attempt:
    """A context that swallows an error of memory, and remembers it."""

    failed = False

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.failed = out_of_memory(error)
        return self.failed


class Room:
    """The token budget of a forward pass: `tokens`, halved whenever memory runs out in any process."""

    def __init__(self, tokens: int, scorer: PairScorer, team: Team, folder: Path, say: Callable[[str], None]) -> None:
        self.tokens = min(tokens, _noted(folder))
        self._scorer, self._team, self._folder, self._say = scorer, team, folder, say

    def attempts(
        self, batch: Sequence[EncodedPair], where: str, halved: Callable[[int], None] = lambda tokens: None
    ) -> Iterator[Attempt]:
        """Attempts at the work on `batch`, until one has found room; each is a context for the whole work.

        Random numbers begin at the same place in each. `halved` gets every new budget before the next attempt.
        Raises TrainingStopped where a smaller budget would not help.
        """
        random = checkpoint.random_state()
        while True:
            attempt = Attempt()
            yield attempt
            if attempt.failed and self._team.sharded:
                self._leave_note(batch, where)
            if not self._team.any(attempt.failed):
                return
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.tokens = self._halved(batch, where)
            self._say(
                f"{where}: out of memory; from here on {self.tokens} tokens per forward pass "
                f"(the batch stays {len(batch)} pairs)"
            )
            checkpoint.set_random_state(random)
            halved(self.tokens)

    def _halved(self, batch: Sequence[EncodedPair], where: str) -> int:
        longest = max(batch, key=lambda pair: (forward_tokens(self._scorer, pair), pair.id))
        least = forward_tokens(self._scorer, longest)
        if self.tokens <= least:
            raise no_room(longest, least, where)
        # A budget above the batch's sum does nothing, so that halving begins where it has an effect.
        return max(least, min(self.tokens, sum(forward_tokens(self._scorer, pair) for pair in batch)) // 2)

    def _leave_note(self, batch: Sequence[EncodedPair], where: str) -> None:
        """Sharded layers are gathered by all processes together: the others wait in one, and none can go on."""
        try:
            tokens = self._halved(batch, where)
        except TrainingStopped as stopped:
            raise TrainingStopped(str(stopped), alone=True) from None
        write_json(self._folder / NOTE, {"micro_batch_tokens": tokens})
        raise TrainingStopped(
            f"{where}: out of memory in process {self._team.index}; sharded layers cannot try again in place. "
            f"Continue with --resume: the run then takes {tokens} tokens per forward pass",
            alone=True,
        )


def no_room(pair: EncodedPair, tokens: int, where: str) -> TrainingStopped:
    """What to say when a pair does not fit by itself."""
    return TrainingStopped(
        f"{where}: out of memory, and no smaller forward pass is possible: pair {pair.id} alone takes {tokens} tokens. "
        f"Lower dpo.max_length, load the model in fewer bits (model.dtype, model.quantization), or use more memory"
    )


def _noted(folder: Path) -> int:
    path = folder / NOTE
    return int(json.loads(path.read_text())["micro_batch_tokens"]) if path.is_file() else 2**63
