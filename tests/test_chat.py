"""Chat rendering: what is trained is token for token what is generated, whatever the template does."""

from __future__ import annotations

import pytest

from equipoise.model.chat import EncodedPair, answer_ids, answer_text, encode_pair, prompt_ids, prompt_text
from equipoise.records import Message, Pair
from models import CHATML, make_tokenizer

TURN = "{{ '<|im_start|>' + message['role'] + '\\n' }}"
THINKING = (  # as Qwen3 does: an empty thought before a finished answer, and in the prompt when thinking is off
    "{% for message in messages %}" + TURN + "{% if message['role'] == 'assistant' and loop.last %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
FORGETFUL = CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<answer>'")
QUESTION = (Message("system", "Be brief."), Message("user", "What is a bond?"))


def test_the_answer_follows_the_prompt_as_the_template_writes_it() -> None:
    tokenizer = make_tokenizer(CHATML)
    prompt, answer = prompt_ids(tokenizer, QUESTION), answer_ids(tokenizer, QUESTION, "A loan.")
    assert tokenizer.decode(prompt + answer).endswith("<|im_start|>assistant\nA loan.<|im_end|>")
    assert answer[-1] == tokenizer.eos_token_id and answer.count(tokenizer.eos_token_id) == 1
    assert answer_text(tokenizer, answer) == "A loan."


def test_thinking_is_off_on_both_sides() -> None:
    tokenizer = make_tokenizer(THINKING)
    assert prompt_text(tokenizer, QUESTION).endswith("<think>\n\n</think>\n\n")
    assert tokenizer.decode(answer_ids(tokenizer, QUESTION, "A loan.")) == "A loan.<|im_end|>"
    on = prompt_text(tokenizer, QUESTION, thinking=True)
    assert on.endswith("assistant\n")
    said = tokenizer.decode(answer_ids(tokenizer, QUESTION, "A loan.", thinking=True))
    assert said == "<think>\n\n</think>\n\nA loan.<|im_end|>"


def test_a_template_that_writes_finished_answers_differently() -> None:
    """Then the answer is what the model would generate: the text and the end token."""
    tokenizer = make_tokenizer(FORGETFUL)
    assert tokenizer.decode(answer_ids(tokenizer, QUESTION, "A loan.")) == "A loan.<|im_end|>"


@pytest.mark.parametrize("template", [CHATML, THINKING, FORGETFUL])
def test_both_sides_of_a_pair_have_the_same_prompt(template: str) -> None:
    tokenizer = make_tokenizer(template)
    pair = Pair(QUESTION, "A loan.", " It is\n\n", "finance", "s", "g")
    encoded = encode_pair(tokenizer, pair, max_length=200, max_prompt_length=100)
    assert isinstance(encoded, EncodedPair)
    assert list(encoded.prompt) == prompt_ids(tokenizer, QUESTION)
    assert encoded.chosen[-1] == encoded.rejected[-1] == tokenizer.eos_token_id
