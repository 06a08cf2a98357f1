"""Reward models: conversations in, raw rewards out; the raw value is primary.

A conversation is rendered whole by the reward model's own chat template, which is what reward models are trained
on, and tokenised without adding special tokens (the template writes its own; there is no second BOS). Too long
a conversation loses its oldest tokens, never any of the answer.

The reward of a conversation does not depend on what else is scored: every forward pass has one of a few fixed
shapes (rows x length), and a row of a fixed shape comes out the same beside any other rows. So rewards are kept
one by one, and equal answers of two models get equal rewards to the last bit.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers

from equipoise.model.chat import Tokenizer, prompt_text
from equipoise.model.generate import Progress, positions
from equipoise.model.load import load_classifier
from equipoise.model.sanity import BUILT_IN, read_cases
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, Message, chat, content_id
from equipoise.run_folder import read_json
from equipoise.store import Store

VERSION = 1
"""Raise it when rendering or scoring changes: kept rewards are then no longer served."""
CPU_ROWS, GPU_ROWS = 8, 32
PUT_EVERY = 32
"""Batches between two writings to the store."""

Conversation = tuple[Sequence[Message], str]
"""A prompt and the answer that is to be scored."""
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """The one monotone map from raw rewards to 0-10, frozen for a reward model."""

    centre: float = 0.0
    scale: float = 1.0
    calibrated: bool = False
    """Whether the constants come with the reward model; else the map is uncalibrated and only an order."""

    def to_ten(self, raw: float) -> float:
        """10 * sigmoid((raw - centre) / scale)."""
        x = (raw - self.centre) / self.scale
        small = math.exp(-abs(x))  # never overflows
        return 10.0 * (1.0 if x >= 0 else small) / (1.0 + small)


class Reward(Protocol):
    """Whatever can score answers."""

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


class RewardModel:
    """A sequence-classification model with one logit.

    Args:
        spec: which model, and how long conversations may be.
        store: where rewards are kept; None keeps nothing.
        device: where it runs; default: CUDA where there is one.
        rows: conversations per forward pass; default 8 on a CPU, 32 elsewhere.

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
        self.rows = rows or (CPU_ROWS if self.loaded.device.type == "cpu" else GPU_ROWS)
        self.longest = min(spec.max_length, positions(self.loaded.model))
        self.calibration = read_calibration(folder)
        self.cases = read_cases(folder) or BUILT_IN
        self._sane = False

    @property
    def identity(self) -> str:
        """Identity of the reward model's content and of its calibration."""
        return content_id([VERSION, self.loaded.identity, self.calibration.centre, self.calibration.scale])

    def score(self, conversations: Sequence[Conversation], progress: Progress | None = None) -> list[float | str]:
        """Return for each conversation the raw reward, or the reason why there is none.

        An empty answer is scored like any other, unless the template shows nothing of it. The first call
        checks the model's sanity (see `require_sanity`).
        """
        self.require_sanity()
        return self._score(conversations, progress)

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
        """Stop (InputError) or warn, as `reward.sanity` says, unless the model is right more often than not."""
        if self._sane:
            return
        failures = self.sanity_check()
        self._sane = True
        if 2 * len(failures) < len(self.cases):
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
        encoded = [self._encode(messages, answer) for messages, answer in conversations]
        wanted = sorted({ids for ids in encoded if not isinstance(ids, str)}, key=lambda ids: (len(ids), ids))
        rewards = self._rewards(wanted, progress)
        return [ids if isinstance(ids, str) else rewards[ids] for ids in encoded]

    def _encode(self, messages: Sequence[Message], answer: str) -> Ids | str:
        """Token ids that fit, or the reason why they cannot be scored."""
        ids, protected = render(self.loaded.tokenizer, messages, answer)
        if not protected:
            return "empty answer"
        if protected > self.longest:
            return f"answer too long for the reward model: {protected} tokens, at most {self.longest}"
        return tuple(ids[-self.longest :])

    def _rewards(self, wanted: list[Ids], progress: Progress | None) -> dict[Ids, float | str]:
        """Rewards of distinct conversations, from the store or computed and then put there."""
        identity = content_id([VERSION, self.loaded.identity, self.longest, self.rows, _instrument(self.loaded.device)])
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

    def _batches(self, wanted: list[Ids]) -> Iterator[list[Ids]]:
        """At most `rows` conversations of one padded length, shortest first."""
        batch: list[Ids] = []
        for ids in wanted:
            if batch and (len(batch) == self.rows or padded_length(len(ids)) != padded_length(len(batch[0]))):
                yield batch
                batch = []
            batch.append(ids)
        if batch:
            yield batch

    @torch.inference_mode()
    def _forward(self, batch: list[Ids]) -> list[float]:
        """Raw rewards of a batch, computed in its fixed shape: rows are filled up and padded on the right."""
        length = min(padded_length(len(batch[0])), self.longest)
        rows = batch + [batch[-1]] * (self.rows - len(batch))
        pad = self._pad_token(rows)
        ids = torch.tensor([list(row) + [pad] * (length - len(row)) for row in rows], device=self.loaded.device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.loaded.device)
        logits = self.loaded.model(input_ids=ids, attention_mask=mask).logits
        return [float(value) for value in logits[: len(batch), 0].float().tolist()]

    def _pad_token(self, rows: list[Ids]) -> int:
        """A token that ends no row.

        Classifiers read the reward at the last token that is not the padding token. Where the padding token is
        the end-of-turn token, as it is by default in many tokenizers, they would read one too early.
        """
        last = {row[-1] for row in rows}
        usable: list[int] = [int(self.loaded.tokenizer.pad_token_id), *range(len(last) + 1)]
        pad = next(pad for pad in usable if pad not in last)
        self.loaded.model.config.get_text_config().pad_token_id = pad
        return pad


def render(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> tuple[list[int], int]:
    """Token ids of a whole conversation, and how many at its end belong to the answer (0: it is not shown).

    Text that is not valid unicode (lone surrogates) is written as `?`, because tokenizers refuse it.
    """
    prompt = [Message(message.role, _valid(message.content)) for message in messages]
    said = _valid(answer)
    start = prompt_text(tokenizer, prompt)
    whole = str(
        tokenizer.apply_chat_template(
            chat((*prompt, Message("assistant", said))), tokenize=False, enable_thinking=False
        )
    )
    begins = len(start) if whole.startswith(start) else whole.rfind(said.strip())
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    protected = len(tokenizer(whole[begins:], add_special_tokens=False)["input_ids"]) if begins >= 0 else len(ids)
    return list(ids), min(protected, len(ids))


def padded_length(tokens: int) -> int:
    """The next of a few lengths: steps of 16 tokens, above 256 of an eighth of the power of two below."""
    step = max(16, 1 << max(0, tokens.bit_length() - 4))
    return -(-tokens // step) * step


def read_calibration(folder: Path) -> Calibration:
    """The constants of `calibration.json` (`centre`, `scale`) beside a reward model, or the uncalibrated map."""
    path = folder / "calibration.json"
    if not path.is_file():
        return Calibration()
    value = read_json(path)
    given = [value.get(name) for name in ("centre", "scale")] if isinstance(value, dict) else []
    constants = [float(one) for one in given if isinstance(one, int | float) and math.isfinite(one)]
    if len(constants) != 2 or constants[1] <= 0:
        raise InputError(f"{path}: needs `centre`, a number, and `scale`, a number above 0")
    return Calibration(constants[0], constants[1], calibrated=True)


def _valid(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _instrument(device: torch.device) -> list[Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return [name, torch.__version__, transformers.__version__]


def _show(reward: float | str) -> str:
    return reward if isinstance(reward, str) else f"{reward:.3f}"
