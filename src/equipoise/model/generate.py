"""Prompts in, answers out: batched by length, reproducible, and never generated twice.

The rule that makes answers reproducible: the distinct prompts are sorted by (length, token ids) and cut into
batches by a fixed number of rows and of tokens. A batch is a function of the set of prompts, not of their
order, and it is the unit that the store keeps: under the key of *all* its prompts, generated whole or taken
whole. Rounding depends on the shape of a batch and can flip a near-tie between two tokens, so a batch is never
completed with answers that were made in other company: with a full, a partial or an empty store the answers are
the same bytes. The price is that another set of prompts (a larger limit) is generated anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from equipoise.model.cache import roomy_cache
from equipoise.model.chat import answer_text, prompt_ids
from equipoise.model.load import Loaded, surroundings
from equipoise.records import Message, content_id
from equipoise.store import Store

VERSION = 1
"""Raise it when the same settings come to mean other answers: kept answers are then no longer served."""
CPU_ROWS = 32
"""More rows than this do not pay on a CPU, and wait longer for the slowest answer."""
TOKENS_PER_ROW = 512
"""A batch holds at most so many tokens for each of its rows; longer prompts come in batches of fewer rows."""
SHRINK_AT = 0.75
"""Finished rows leave the batch once at most this share of the rows is still being written."""

Ids = tuple[int, ...]
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What an answer depends on beside the prompts and the model."""

    max_new_tokens: int
    temperature: float
    seed: int


class TransformersGenerator:
    """Generates with a transformers (or PEFT) model in this process.

    Args:
        loaded: the model; `loaded.model` may carry adapters.
        identity: identity of the model *with* its adapters (`model.adapters.stack_identity`).
        batch_size: rows of a batch (at most `CPU_ROWS` on a CPU).
        store: where answers are kept; None keeps nothing.
        thinking: render prompts of thinking models with thinking on.
    """

    def __init__(
        self, loaded: Loaded, *, identity: str, batch_size: int, store: Store | None, thinking: bool = False
    ) -> None:
        self.loaded = loaded
        self.identity = identity
        self.store = store
        self.thinking = thinking
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
        for batch, written in self._batches(fitting, settings):
            answers.update(zip(batch, written, strict=True))
            if progress:
                progress(len(answers), len(set(encoded)))
        return [answers[ids] for ids in encoded]

    def _batches(self, prompts: list[Ids], settings: Settings) -> Iterator[tuple[list[Ids], list[Answer]]]:
        """Every batch with its answers, from the store or generated and then put there."""
        identity = self._kept_under(settings)
        kept = self.store.get("answers", identity) if self.store else {}
        for batch in fixed_batches(prompts, self.rows, settings.max_new_tokens):
            key = content_id([list(ids) for ids in batch])
            if key in kept:
                yield batch, [Answer(**record) for record in kept[key]]
                continue
            rows, whole = self._written(batch, settings)
            written = [self._answer(ids) for ids in rows]
            if self.store and whole:
                self.store.put("answers", identity, {key: [asdict(answer) for answer in written]})
            yield batch, written

    def _kept_under(self, settings: Settings) -> str:
        """Library versions and device belong to it: after an upgrade the base must not come from the old ones."""
        tools = [*instrument(self.loaded.device), self.rows]
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


def end_tokens(loaded: Loaded) -> frozenset[int]:
    """Tokens that end an answer: those of the model's generation configuration and of the tokenizer."""
    named = loaded.model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return frozenset(int(end) for end in [*ends, loaded.tokenizer.eos_token_id] if end is not None)


def positions(model: Any) -> int:
    """Longest sequence that the model was made for, in tokens."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)


def _refuse(length: int, room: int, new: int) -> Answer:
    reason = f"prompt too long: {length} tokens, room for {max(room, 0)} beside {new} new ones"
    return Answer("", 0, False, reason)


@torch.inference_mode()
def write(loaded: Loaded, batch: Sequence[Ids], settings: Settings, ends: frozenset[int]) -> list[list[int]]:
    """Generate one answer for each row and return the token ids, end token included.

    Prompts are padded on the left, so that all rows write at the same place. Rows that have ended leave the
    batch when a quarter of it has; when that happens depends on the batch alone.
    """
    inputs, mask = _left_padded(batch, loaded.tokenizer.pad_token_id, loaded.device)
    place = (mask.cumsum(1) - 1).clamp(min=0)
    draws = _draws(batch, settings, loaded.device) if settings.temperature > 0 else None
    cache = roomy_cache(loaded.model)
    written: list[list[int]] = [[] for _ in batch]
    rows = list(range(len(batch)))  # which prompt each row of the tensors belongs to
    for step in range(settings.max_new_tokens):
        output = loaded.model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        tokens = _choose(output.logits[:, -1], settings.temperature, draws[:, step] if draws is not None else None)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if not _ended(written[row], ends):
                written[row].append(token)
        going = [i for i, row in enumerate(rows) if not _ended(written[row], ends)]
        if not going:
            break
        inputs, place = tokens[:, None], place[:, -1:] + 1
        if len(going) <= SHRINK_AT * len(rows):
            keep = torch.tensor(going, device=loaded.device)
            cache.batch_select_indices(keep)
            inputs, place, mask = inputs[keep], place[keep], mask[keep]
            draws = draws[keep] if draws is not None else None
            rows = [rows[i] for i in going]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return written


def _ended(ids: list[int], ends: frozenset[int]) -> bool:
    return bool(ids) and ids[-1] in ends


def _left_padded(batch: Sequence[Ids], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, [rows, longest]."""
    longest = max(map(len, batch))
    ids = [[pad] * (longest - len(row)) + list(row) for row in batch]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in batch]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _draws(batch: Sequence[Ids], settings: Settings, device: torch.device) -> torch.Tensor:
    """Uniform numbers for every token to be drawn, [rows, max_new_tokens], seeded by seed and prompt."""
    rows = []
    for ids in batch:
        source = torch.Generator().manual_seed(int(content_id([settings.seed, list(ids)])[:15], 16))
        rows.append(torch.rand(settings.max_new_tokens, generator=source, dtype=torch.float64))
    return torch.stack(rows).to(device)


def _choose(logits: torch.Tensor, temperature: float, draws: torch.Tensor | None) -> torch.Tensor:
    """Next token of each row, from logits [rows, vocabulary]: the most likely one, or drawn by inverse CDF."""
    if draws is None:
        return logits.float().argmax(-1)
    reached = (logits.double() / temperature).softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(reached, (draws * reached[:, -1])[:, None], right=True)
    return drawn[:, 0].clamp(max=logits.shape[-1] - 1)
