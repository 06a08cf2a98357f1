"""Reward models: conversations in, raw rewards out; the raw value is primary.

The reward of a conversation does not depend on what else is scored: every forward pass has one of a few fixed
shapes (rows x length), and a row of a fixed shape comes out the same beside any other rows. So rewards are kept
one by one, and equal answers of two models get equal rewards to the last bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch

from equipoise.model.calibration import Calibration, calibration_set, fit, read_calibration
from equipoise.model.generate import Progress, positions
from equipoise.model.load import load_classifier, surroundings
from equipoise.model.reward_text import Ids, encode
from equipoise.model.sanity import BUILT_IN, FORGIVEN, read_cases
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, Message, content_id
from equipoise.store import Store

VERSION = 2
"""Raise it when rendering or scoring changes: kept rewards are then no longer served."""
CPU_ROWS, GPU_ROWS = 8, 32
TOKENS_PER_ROW = 1024
"""A batch holds at most so many tokens for each of its rows; longer conversations come in batches of fewer rows."""
PUT_EVERY = 32
"""Batches between two writings to the store."""

Conversation = tuple[Sequence[Message], str]
"""A prompt and the answer that is to be scored."""


class Reward(Protocol):
    """Whatever can score answers: one reward model, or several together."""

    @property
    def identity(self) -> str:
        """Identity of the reward model's content and of its calibration."""
        ...

    @property
    def calibration(self) -> Calibration:
        """The map to 0-10."""
        ...

    def score(self, conversations: Sequence[Conversation], progress: Progress | None = None) -> list[float | str]:
        """Return for each conversation the raw reward, or the reason why there is none."""
        ...

    def details(self, conversations: Sequence[Conversation]) -> list[dict[str, float]]:
        """Return for each conversation further figures of its reward by name; none for one without a reward."""
        ...

    def require_sanity(self) -> None:
        """Raises InputError where obviously bad answers are preferred, unless the recipe asks for a warning only."""
        ...

    def record(self) -> dict[str, Any]:
        """Return the JSON object that says in a run's calibration.json which maps were used."""
        ...


class RewardModel:
    """A sequence-classification model with one logit.

    Args:
        spec: which model, and how long conversations may be.
        store: where rewards are kept; None keeps nothing.
        device: where it runs; default: CUDA where there is one.
        rows: conversations per forward pass, fewer for long ones; default 8 on a CPU, 32 elsewhere.

    Raises InputError where the folder holds no reward model, or its calibration or sanity file is malformed.
    """

    def __init__(
        self,
        spec: RewardSpec,
        *,
        store: Store | None = None,
        device: torch.device | None = None,
        rows: int | None = None,
    ) -> None:
        self.spec = spec
        self.store = store
        self.loaded, folder = load_classifier(spec, device)
        self.loaded.model.config.get_text_config().use_cache = False  # keys and values of all layers, never read
        self.rows = rows or (CPU_ROWS if self.loaded.device.type == "cpu" else GPU_ROWS)
        self.longest = min(spec.max_length, positions(self.loaded.model))
        self._given = read_calibration(folder)
        self.cases = read_cases(folder) or BUILT_IN
        self._sane = False

    @property
    def identity(self) -> str:
        """Identity of the reward model's content and of its calibration."""
        return content_id([VERSION, self.loaded.identity, self.calibration.centre, self.calibration.scale])

    @cached_property
    def calibration(self) -> Calibration:
        """The map to 0-10: of `calibration.json` beside the model, else of the built-in set.

        The set is scored at the first use. Its constants are then kept in the store, so that they stay as they are for
        this model on this instrument. Raises InputError where the model does not tell the set's answers apart.
        """
        if self._given:
            return self._given
        version, graded = calibration_set()
        identity = content_id([self._kept_under(), version])
        kept = self.store.get("calibrations", identity) if self.store else {}
        if kept:
            return Calibration.from_record(kept["map"])
        rewards = self._score([(one.messages, one.answer) for one in graded], None)
        found = fit(rewards, version, f"reward.id: {self.spec.id}")
        if self.store:
            self.store.put("calibrations", identity, {"map": found.record()})
        return found

    def score(self, conversations: Sequence[Conversation], progress: Progress | None = None) -> list[float | str]:
        """Return for each conversation the raw reward, or the reason why there is none.

        The first call checks the model's sanity (see `require_sanity`).
        """
        self.require_sanity()
        return self._score(conversations, progress)

    def details(self, conversations: Sequence[Conversation]) -> list[dict[str, float]]:
        """Return nothing for each conversation: one model's reward has no parts."""
        return [{} for _ in conversations]

    def record(self) -> dict[str, Any]:
        """Return `{"members": [{id, revision, centre, scale, source, version, n}]}`, with this one model."""
        named = {"id": self.spec.id, "revision": self.spec.revision}
        return {"members": [{**named, **self.calibration.record()}]}

    def sanity_check(self) -> list[str]:
        """Return one line for each obviously better answer that did not get the higher reward."""
        pairs = [(case.prompt, answer) for case in self.cases for answer in (case.good, case.bad)]
        rewards = self._score(pairs, None)
        return [
            f"{case.good!r} ({_show(good)}) is not above {case.bad!r} ({_show(bad)})"
            for case, good, bad in zip(self.cases, rewards[::2], rewards[1::2], strict=True)
            if isinstance(good, str) or isinstance(bad, str) or good <= bad
        ]

    def require_sanity(self) -> None:
        """Stop (InputError) or warn, as `reward.sanity` says, where too many cases go wrong."""
        if self._sane:
            return
        failures = self.sanity_check()
        self._sane = True
        if len(failures) <= FORGIVEN * len(self.cases):
            return
        message = (
            f"reward.id: {self.spec.id}: prefers the obviously worse answer in {len(failures)} of "
            f"{len(self.cases)} sanity cases, such as {failures[0]}"
        )
        if self.spec.sanity == "stop":
            self._sane = False
            raise InputError(f"{message}; take another reward model, or set reward.sanity: warn")
        print(f"equipoise: warning: {message}", file=sys.stderr)

    def _score(self, conversations: Sequence[Conversation], progress: Progress | None) -> list[float | str]:
        tokenizer = self.loaded.tokenizer
        encoded = [encode(tokenizer, messages, answer, self.longest) for messages, answer in conversations]
        wanted = sorted({ids for ids in encoded if not isinstance(ids, str)}, key=lambda ids: (len(ids), ids))
        rewards = self._rewards(wanted, progress)
        return [ids if isinstance(ids, str) else rewards[ids] for ids in encoded]

    def _rewards(self, wanted: list[Ids], progress: Progress | None) -> dict[Ids, float | str]:
        """Rewards of distinct conversations, from the store or computed and then put there."""
        identity = self._kept_under()
        kept = self.store.get("rewards", identity) if self.store else {}
        keys = {ids: content_id(list(ids)) for ids in wanted}
        rewards: dict[Ids, float | str] = {ids: kept[keys[ids]] for ids in wanted if keys[ids] in kept}
        fresh: dict[str, float] = {}
        for number, batch in enumerate(self._batches([ids for ids in wanted if ids not in rewards]), 1):
            for ids, value in zip(batch, self._forward(batch), strict=True):
                rewards[ids] = value if math.isfinite(value) else f"the reward model returned {value}"
                if math.isfinite(value):
                    fresh[keys[ids]] = value
            if self.store and number % PUT_EVERY == 0:
                self.store.put("rewards", identity, fresh)
                fresh = {}
            if progress:
                progress(len(rewards), len(wanted))
        if self.store:
            self.store.put("rewards", identity, fresh)
        return rewards

    def _kept_under(self) -> str:
        """Library versions and device belong to it, since the last bits of a reward depend on them."""
        return content_id([VERSION, self.loaded.identity, self.longest, self.rows, surroundings(self.loaded.device)])

    def _shape(self, tokens: int) -> tuple[int, int]:
        """Rows and length of the batch that a conversation of so many tokens comes in."""
        length = padded_length(tokens)
        return min(self.rows, max(1, TOKENS_PER_ROW * self.rows // length)), min(length, self.longest)

    def _batches(self, wanted: list[Ids]) -> Iterator[list[Ids]]:
        """Conversations of one shape together, shortest first."""
        batch: list[Ids] = []
        shape = (0, 0)
        for ids in wanted:
            if batch and (len(batch) == shape[0] or self._shape(len(ids)) != shape):
                yield batch
                batch = []
            shape = self._shape(len(ids))
            batch.append(ids)
        yield from [batch] if batch else []

    @torch.inference_mode()
    def _forward(self, batch: list[Ids]) -> list[float]:
        """Raw rewards of a batch, computed in its fixed shape: rows are filled up and padded on the right."""
        count, length = self._shape(len(batch[0]))
        rows = batch + [batch[-1]] * (count - len(batch))
        pad = self._pad_token(rows)
        ids = torch.tensor([list(row) + [pad] * (length - len(row)) for row in rows], device=self.loaded.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.loaded.device)
        logits = self.loaded.model(input_ids=ids, attention_mask=mask).logits
        return [float(value) for value in logits[: len(batch), 0].float().tolist()]

    def _pad_token(self, rows: list[Ids]) -> int:
        """A token that ends no row.

        Classifiers read the reward at the last token that is not the padding token: one too early where that is also
        the end-of-turn token, as in many tokenizers.
        """
        last = {row[-1] for row in rows}
        usable: list[int] = [int(self.loaded.tokenizer.pad_token_id), *range(len(last) + 1)]
        known = self.loaded.model.get_input_embeddings().num_embeddings  # some tokenizers pad with a token beyond
        pad = next(pad for pad in usable if pad not in last and pad < known)
        self.loaded.model.config.get_text_config().pad_token_id = pad
        return pad


def padded_length(tokens: int) -> int:
    """The next of a few lengths: steps of 16 tokens, above 256 of an eighth of the power of two below."""
    step = max(16, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step


def _show(reward: float | str) -> str:
    return reward if isinstance(reward, str) else f"{reward:.3f}"
