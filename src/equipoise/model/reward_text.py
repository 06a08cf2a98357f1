"""A conversation as a reward model reads it: token ids of the whole, or the reason why it cannot be scored.

The whole conversation is rendered by the reward model's own chat template and tokenised without adding special tokens:
the template writes its own, so there is never a second beginning-of-sequence token. Where the template has no system
turn (Gemma's raises an error), the system text stands in front of the first user turn. A conversation that is too long
loses its oldest tokens, never any of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from jinja2.exceptions import TemplateError

from equipoise.model.chat import DATE, Tokenizer, holds_control_tokens, without_system
from equipoise.model.generate import Answer
from equipoise.model.thinking import without_thinking
from equipoise.records import Message, chat

Ids = tuple[int, ...]


def encode(tokenizer: Tokenizer, messages: Sequence[Message], answer: str, longest: int) -> Ids | str:
    """Return at most `longest` token ids of the conversation, or the reason why it cannot be scored.

    A beginning-of-sequence token stays when tokens are cut: models rest their attention on it.
    """
    if reason := _unusable(tokenizer, messages, answer):
        return reason
    try:
        ids, protected = render(tokenizer, messages, answer)
    except TemplateError as error:
        roles = ", ".join(message.role for message in messages)
        return f"the reward model's chat template refuses a conversation of the roles {roles}: {error}"
    if not protected:
        return "the reward model's chat template does not show the answer"
    kept = ids[:1] if ids[0] == tokenizer.bos_token_id else []
    if len(kept) + protected > longest:
        return f"answer too long for the reward model: {protected} tokens, at most {longest - len(kept)}"
    return tuple(ids if len(ids) <= longest else [*kept, *ids[len(ids) - longest + len(kept) :]])


def render(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> tuple[list[int], int]:
    """Token ids of a whole conversation, and how many at its end belong to the answer (0: it is not shown).

    The answer begins where the same conversation with another answer begins to differ. Raises TemplateError where the
    template refuses the conversation.
    """
    whole = _text(tokenizer, messages, answer)
    other = "b" if answer.lstrip()[:1] == "a" else "a"
    begins = _shared(whole, _text(tokenizer, messages, other))
    ids = _ids(tokenizer, whole)
    if begins == len(whole):
        return ids, 0
    return ids, len(ids) - _shared(ids, _ids(tokenizer, whole[:begins]))


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """How many elements at their beginning are the same."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _unusable(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> str | None:
    """Why no reward of this answer would mean anything, whatever number the model returned."""
    if not answer.strip():
        return "empty answer"
    if not without_thinking(Answer(answer, 0, cut_off=False)).text:
        return "the answer is thinking alone"
    if not all(_valid(text) for text in (answer, *(message.content for message in messages))):
        return "not valid unicode (a lone surrogate)"
    if holds_control_tokens(tokenizer, [answer]):
        return "the answer spells a control token of the reward model"
    return None


def _valid(text: str) -> bool:
    return text.isascii() or text.encode("utf-8", "replace").decode("utf-8") == text


def _text(tokenizer: Tokenizer, messages: Sequence[Message], answer: str) -> str:
    """Templates that write today's date get a fixed one, or rewards would change over night."""
    said = chat((*messages, Message("assistant", answer)))
    try:
        return str(tokenizer.apply_chat_template(said, tokenize=False, date_string=DATE, enable_thinking=False))
    except TemplateError:
        if not any(message.role == "system" for message in messages):
            raise
    said = without_system(said)
    return str(tokenizer.apply_chat_template(said, tokenize=False, date_string=DATE, enable_thinking=False))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
