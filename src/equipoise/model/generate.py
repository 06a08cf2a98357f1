"""Prompts in, answers out: batched by length, reproducible, and never generated twice.

The rule that makes answers reproducible: the distinct prompts are sorted by (length, token ids) and cut into
batches by a fixed number of rows and of tokens. A batch is a function of the set of prompts, not of their
order, and it is the unit that the store keeps: under the key of *all* its prompts, generated whole or taken
whole. Rounding depends on the shape of a batch and can flip a near-tie between two tokens, so a batch is never
completed with answers that were made in other company: with a full, a partial or an empty store the answers are
the same bytes. The price is that another set of prompts (a larger limit) is generated anew.

In the batch-invariant mode a batch has one of a few fixed shapes instead, and tokens are chosen by logits in 32 bits.
An answer is then a function of its prompt alone, and is kept alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Protocol

import torch

from equipoise.model.chat import answer_text, prompt_ids
from equipoise.model.load import Loaded, surroundings
from equipoise.model.write import Ids, Settings, fp32_logits, write
from equipoise.records import InputError, Message, content_id
from equipoise.store import Store

VERSION = 2
"""Raise it when the same settings come to mean other answers: kept answers are then no longer served."""
CPU_ROWS = 64
"""More rows than this do not pay on a CPU, and wait longer for the slowest answer."""
TOKENS_PER_ROW = 512
"""A batch holds at most so many tokens for each of its rows; longer prompts come in batches of fewer rows."""

Progress = Callable[[int, int], None]
"""Called with (done, all) distinct prompts."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model wrote: `tokens` counts the end token, `cut_off` means that there was none.

    `refused` is the reason why nothing was generated (the prompt is too long); the text is then empty.
    """

    text: str
    tokens: int
    cut_off: bool
    refused: str | None = None


class Generator(Protocol):
    """Whatever can answer prompts."""

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order; the same prompt gets the same answer."""
        ...


class TransformersGenerator:
    """Generates with a transformers (or PEFT) model in this process.

    Args:
        loaded: the model; `loaded.model` may carry adapters.
        identity: identity of the model *with* its adapters (`model.adapters.stack_identity`).
        batch_size: rows of a batch (at most `CPU_ROWS` on a CPU).
        store: where answers are kept; None keeps nothing.
        thinking: render prompts of thinking models with thinking on.
        batch_invariant: an answer depends on its prompt and not on what else is asked. Every forward pass has a
            shape that the length of the prompt, `max_new_tokens` and `batch_size` fix (missing rows are filled up with
            copies, finished ones stay), and logits are computed in 32 bits. It still depends on these three, the
            device, the libraries and their number of threads; it is slower where answers differ in length.
        fresh: above 0, answers are neither taken from the store nor put there, and batches are cut in another way for
            each value (in the invariant mode they stay as they are): what then differs is noise of the instrument.

    Raises InputError where a batch cannot be invariant (mixtures of experts).
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        identity: str,
        batch_size: int,
        store: Store | None,
        thinking: bool = False,
        batch_invariant: bool = False,
        fresh: int = 0,
    ) -> None:
        if batch_invariant:
            _require_no_experts(loaded.model)
        self.loaded = loaded
        self.identity = identity
        self.store = None if fresh else store
        self.thinking = thinking
        self.batch_invariant = batch_invariant
        self.fresh = fresh
        self.rows = min(batch_size, CPU_ROWS) if loaded.device.type == "cpu" else batch_size
        self.ends = end_tokens(loaded)

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        progress: Progress | None = None,
    ) -> list[Answer]:
        """Return one answer for each prompt, in order.

        Temperature 0 is greedy. Above 0, tokens are drawn from the whole softmax with a seed of their own for
        each prompt, so neither the order nor the company of a prompt decides what is drawn. A prompt that
        leaves no room for `max_new_tokens` within the model's positions is refused with the reason.
        """
        settings = Settings(max_new_tokens, temperature, seed if temperature > 0 else 0)
        encoded = [tuple(prompt_ids(self.loaded.tokenizer, prompt, thinking=self.thinking)) for prompt in prompts]
        room = positions(self.loaded.model) - max_new_tokens
        answers = {ids: _refuse(len(ids), room, max_new_tokens) for ids in encoded if len(ids) > room}
        fitting = sorted({ids for ids in encoded if len(ids) <= room}, key=lambda ids: (len(ids), ids))
        self.loaded.model.eval()
        answered = self._alone if self.batch_invariant else self._batches
        for batch, written in answered(fitting, settings):
            answers.update(zip(batch, written, strict=True))
            if progress:
                progress(len(answers), len(set(encoded)))
        return [answers[ids] for ids in encoded]

    def _batches(self, prompts: list[Ids], settings: Settings) -> Iterator[tuple[list[Ids], list[Answer]]]:
        """Every batch with its answers, from the store or generated and then put there."""
        identity = self._kept_under(settings)
        kept = self.store.get("answers", identity) if self.store else {}
        for batch in fixed_batches(prompts, self._rows_for(prompts), settings.max_new_tokens):
            key = content_id([list(ids) for ids in batch])
            if key in kept:
                yield batch, [Answer(**record) for record in kept[key]]
                continue
            rows, whole = self._written(batch, settings)
            written = [self._answer(ids) for ids in rows]
            if self.store and whole:
                self.store.put("answers", identity, {key: [asdict(answer) for answer in written]})
            yield batch, written

    def _rows_for(self, prompts: Sequence[Ids]) -> int:
        """Rows of a batch; with `fresh` fewer than there are prompts, so that every batch is another one."""
        if not self.fresh:
            return self.rows
        usual = min(self.rows, len(prompts))
        return max(1, usual - 1 - (self.fresh - 1) % max(1, usual - 1))

    def _alone(self, prompts: list[Ids], settings: Settings) -> Iterator[tuple[list[Ids], list[Answer]]]:
        """All answers, each from the store or generated in its fixed shape and then put there."""
        identity = self._kept_under(settings)
        kept = self.store.get("answers", identity) if self.store else {}
        keys = {ids: content_id(list(ids)) for ids in prompts}
        known = [ids for ids in prompts if keys[ids] in kept]
        yield known, [Answer(**kept[keys[ids]]) for ids in known]
        missing = [ids for ids in prompts if keys[ids] not in kept]
        for batch, length, rows in fixed_shapes(missing, self.rows, settings.max_new_tokens):
            written = [self._answer(ids) for ids in self._filled_up(batch, length, rows, settings)]
            if self.store:
                found = {keys[ids]: asdict(answer) for ids, answer in zip(batch, written, strict=True)}
                self.store.put("answers", identity, found)
            yield batch, written

    def _filled_up(self, batch: list[Ids], length: int, rows: int, settings: Settings) -> list[list[int]]:
        """Token ids of the answers of a batch that is filled up to `rows` rows with copies of its last prompt."""
        full = batch + batch[-1:] * (rows - len(batch))
        try:
            with fp32_logits(self.loaded.model):
                return write(self.loaded, full, settings, self.ends, length)[: len(batch)]
        except torch.OutOfMemoryError:
            raise InputError(
                f"evaluation.generation.batch_size: {rows} rows of {length} + {settings.max_new_tokens} tokens do not "
                f"fit into memory, and batch_invariant forbids to divide them; set a smaller batch_size"
            ) from None

    def _kept_under(self, settings: Settings) -> str:
        """Library versions and device belong to it: after an upgrade the base must not come from the old ones."""
        tools = [*instrument(self.loaded.device), self.rows, self.batch_invariant]
        return content_id([tools, self.identity, self.thinking, asdict(settings)])

    def _answer(self, ids: list[int]) -> Answer:
        ended = ids[-1] in self.ends
        return Answer(answer_text(self.loaded.tokenizer, ids[:-1] if ended else ids), len(ids), not ended)

    def _written(self, batch: list[Ids], settings: Settings) -> tuple[list[list[int]], bool]:
        """Token ids of the answers, and whether the batch was written whole.

        Where memory runs out each half is written by itself: other company, so such answers are not kept.
        """
        try:
            return write(self.loaded, batch, settings, self.ends), True
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
        torch.cuda.empty_cache()
        half = len(batch) // 2
        return self._written(batch[:half], settings)[0] + self._written(batch[half:], settings)[0], False


def instrument(device: torch.device) -> list[Any]:
    """What answers depend on beside model and prompts: this code, the device, the libraries."""
    return [VERSION, *surroundings(device)]


def fixed_batches(prompts: Sequence[Ids], rows: int, new: int) -> Iterator[list[Ids]]:
    """Cut prompts, sorted by length, into batches of at most `rows` rows and `TOKENS_PER_ROW * rows` tokens."""
    batch: list[Ids] = []
    for ids in prompts:
        tokens = (len(batch) + 1) * (len(ids) + new)
        if batch and (len(batch) == rows or tokens > TOKENS_PER_ROW * rows):
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def fixed_shapes(prompts: Sequence[Ids], rows: int, new: int) -> Iterator[tuple[list[Ids], int, int]]:
    """Cut prompts, sorted by length, into batches of one padded length; give each with this length and its rows.

    Both follow from the length of a prompt alone: a batch may have fewer prompts than rows. Every prompt is padded by
    one token at least: transformers drops a mask that hides nothing, and another kernel would run.
    """
    for length, found in groupby(prompts, key=lambda ids: fixed_length(len(ids) + 1)):
        some, most = list(found), max(1, min(rows, TOKENS_PER_ROW * rows // (length + new)))
        for start in range(0, len(some), most):
            yield some[start : start + most], length, most


def fixed_length(tokens: int) -> int:
    """The next of a few lengths: steps of 64 tokens, above 256 of a quarter of the power of two below."""
    step = max(64, 1 << max(0, (tokens - 1).bit_length() - 3))
    return -(-tokens // step) * step


def end_tokens(loaded: Loaded) -> frozenset[int]:
    """Tokens that end an answer: those of the model's generation configuration and of the tokenizer."""
    named = loaded.model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return frozenset(int(end) for end in [*ends, loaded.tokenizer.eos_token_id] if end is not None)


def positions(model: Any) -> int:
    """Longest sequence that the model was made for, in tokens."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _require_no_experts(model: Any) -> None:
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(
            f"evaluation.generation.batch_invariant: {config.model_type} sends tokens to experts, and how many share "
            f"an expert depends on what else is asked; leave it out"
        )


def _refuse(length: int, room: int, new: int) -> Answer:
    reason = f"prompt too long: {length} tokens, room for {max(room, 0)} beside {new} new ones"
    return Answer("", 0, False, reason)
