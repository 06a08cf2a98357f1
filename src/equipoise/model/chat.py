"""Messages to token ids: one rendering for training, scoring and generation.

A prompt is rendered with the template's generation prompt and tokenised alone; an answer is what the
template puts after that, up to and including its end-of-turn token, and is tokenised alone as well. So
what is trained is token for token what is generated, and both answers of a pair have the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2.exceptions import TemplateError

from equipoise.records import InputError, Message, Pair, chat

DATE = "26 Jul 2024"
"""What templates that write a date write (the date in the published prompt of Llama 3.2)."""
Tokenizer = Any
"""A transformers tokenizer with a chat template."""


def prompt_text(tokenizer: Tokenizer, messages: Sequence[Message], *, thinking: bool = False) -> str:
    """Render a prompt that ends where the answer begins; raises InputError where the template refuses it."""
    return _prompt(tokenizer, str(tokenizer.chat_template), tuple(messages), thinking)


@lru_cache(maxsize=8)  # both answers of a pair have the same prompt, and rendering is most of the work
def _prompt(tokenizer: Tokenizer, template: str, messages: tuple[Message, ...], thinking: bool) -> str:
    return _render(tokenizer, chat(messages), add_generation_prompt=True, enable_thinking=thinking)


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Message], *, thinking: bool = False) -> list[int]:
    """Token ids of a prompt that ends where the answer begins."""
    return _ids(tokenizer, prompt_text(tokenizer, messages, thinking=thinking))


def answer_ids(tokenizer: Tokenizer, messages: Sequence[Message], answer: str, *, thinking: bool = False) -> list[int]:
    """Token ids of an answer to `messages`, end-of-turn token included.

    What a template puts behind the end-of-turn token (mostly a line break) is left out: nobody generates it.
    Where the template does not repeat the generation prompt in front of a finished answer, the answer is
    what the model would generate after it: the text and the end-of-sequence token.
    """
    start = prompt_text(tokenizer, messages, thinking=thinking)
    finished = [*chat(tuple(messages)), {"role": "assistant", "content": answer}]
    whole = _render(tokenizer, finished, enable_thinking=thinking)
    text = whole[len(start) :] if whole.startswith(start) else answer + tokenizer.eos_token
    ids = _ids(tokenizer, text)
    ends = [place for place, id in enumerate(ids) if id in control_tokens(tokenizer)]
    return ids[: ends[0] + 1] if ends else [*ids, tokenizer.eos_token_id]


def without_system(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The same conversation with the system text in front of the first user turn."""
    system = [message["content"] for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    first = next((place for place, message in enumerate(others) if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": "\n\n".join(system)}, *others]
    asked = {"role": "user", "content": "\n\n".join([*system, others[first]["content"]])}
    return [*others[:first], asked, *others[first + 1 :]]


def _render(tokenizer: Tokenizer, messages: list[dict[str, str]], **options: Any) -> str:
    """Apply the template; one that writes today's date gets a fixed one, or prompts would change over night."""
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, date_string=DATE, **options))
    except TemplateError as error:
        if any(message["role"] == "system" for message in messages):  # Gemma's template, for one, has no such turn
            return _render(tokenizer, without_system(messages), **options)
        roles = ", ".join(message["role"] for message in messages)
        raise InputError(f"the chat template refuses a conversation of the roles {roles}: {error}") from None


@lru_cache(maxsize=8)
def control_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """Ids of the tokens that mark turns and ends, and are never text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {id for id, token in added.items() if token.special}
    return frozenset(marked | set(tokenizer.all_special_ids))


def holds_control_tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Whether a text spells a control token: as data it would end the turn, or forge another one."""
    return any(
        id in control_tokens(tokenizer) for text in texts if "<" in text or "[" in text for id in _ids(tokenizer, text)
    )


def answer_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of generated ids without special tokens and surrounding white space."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip()


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def require_thinking_off(tokenizer: Tokenizer, where: str) -> None:
    """Raises InputError where the template opens a thought although thinking is off."""
    end = prompt_text(tokenizer, (Message("user", "?"),)).rpartition("<think>")
    if end[1] and "</think>" not in end[2]:
        raise InputError(
            f"{where}: this model always thinks (its template ends a prompt with <think>); set model.thinking: true, "
            "and max_new_tokens so high that a thought and an answer fit"
        )


def require_template(tokenizer: Tokenizer, where: str) -> None:
    """Raises InputError where a tokenizer has no chat template or no end-of-sequence token."""
    if not tokenizer.chat_template:
        raise InputError(f"{where}: the tokenizer has no chat template; use a chat model, or add chat_template.jinja")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{where}: the tokenizer has no end-of-sequence token; name one in tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A pair as token ids. `prompt_cut` counts tokens that the prompt lost at its beginning."""

    id: str
    source: str
    domain: str
    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt_cut: int

    @property
    def tokens(self) -> int:
        """Tokens of the two sequences prompt + chosen and prompt + rejected."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


def encode_pair(
    tokenizer: Tokenizer, pair: Pair, *, max_length: int, max_prompt_length: int, thinking: bool = False
) -> EncodedPair | str:
    """Encode a pair, or return the reason why it cannot be trained on.

    A prompt above `max_prompt_length` loses its beginning. An answer that does not fit into `max_length`
    would lose its end, so that the model would learn never to stop: such a pair is dropped.
    """
    if holds_control_tokens(tokenizer, [*(message.content for message in pair.prompt), pair.chosen, pair.rejected]):
        return "contains control tokens"
    prompt = prompt_ids(tokenizer, pair.prompt, thinking=thinking)
    chosen = answer_ids(tokenizer, pair.prompt, pair.chosen, thinking=thinking)
    rejected = answer_ids(tokenizer, pair.prompt, pair.rejected, thinking=thinking)
    cut = max(0, len(prompt) - max_prompt_length)
    prompt = prompt[cut:]
    if len(prompt) + max(len(chosen), len(rejected)) > max_length:
        return "answer too long"
    if chosen == rejected:
        return "identical after tokenising"
    return EncodedPair(pair.id, pair.source, pair.domain, tuple(prompt), tuple(chosen), tuple(rejected), cut)
