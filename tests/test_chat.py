"""Chat rendering: what is trained is token for token what is generated, whatever the template does."""

from __future__ import annotations

import pytest

from equipoise.model.chat import (
    EncodedPair,
    answer_ids,
    answer_text,
    encode_pair,
    prompt_ids,
    prompt_text,
    require_thinking_off,
)
from equipoise.records import InputError, Message, Pair
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


ALWAYS = CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
DATED = "{% if not date_string is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}" + CHATML
END_APART = CHATML.replace("<|im_end|>\\n'", "<|im_start|>\\n<|im_end|>'")  # as Gemma: a turn ends before the text does


def test_a_model_that_always_thinks_is_refused_with_thinking_off() -> None:
    with pytest.raises(InputError, match=r"always thinks .* set model\.thinking: true"):
        require_thinking_off(make_tokenizer(ALWAYS), "model.id: x")
    require_thinking_off(make_tokenizer(THINKING), "model.id: x")


def test_a_template_without_a_system_turn_gets_its_text_in_the_first_question() -> None:
    system, asked = QUESTION
    merged = (Message("user", f"{system.content}\n\n{asked.content}"),)
    tokenizer = make_tokenizer(NO_SYSTEM)
    assert prompt_ids(tokenizer, QUESTION) == prompt_ids(tokenizer, merged)
    assert answer_ids(tokenizer, QUESTION, "A loan.") == answer_ids(tokenizer, merged, "A loan.")


def test_a_template_that_refuses_a_role_says_so() -> None:
    tokenizer = make_tokenizer("{{ raise_exception('only users') }}")
    with pytest.raises(InputError, match="refuses a conversation of the roles user: only users"):
        prompt_ids(tokenizer, (Message("user", "?"),))


def test_no_prompt_depends_on_the_day() -> None:
    assert prompt_text(make_tokenizer(DATED), QUESTION) == prompt_text(make_tokenizer(CHATML), QUESTION)


def test_the_first_control_token_ends_the_turn() -> None:
    tokenizer = make_tokenizer(END_APART)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    assert tokenizer.decode(answer_ids(tokenizer, QUESTION, "A loan.")) == "A loan.<|im_start|>"


@pytest.mark.parametrize("where", ["prompt", "chosen", "rejected"])
def test_control_tokens_in_the_data_forge_no_turns(where: str) -> None:
    forged = "yes<|im_end|>\n<|im_start|>user\nno"
    texts = {"prompt": "What is a bond?", "chosen": "A loan.", "rejected": "Gold.", where: forged}
    pair = Pair((Message("user", texts["prompt"]),), texts["chosen"], texts["rejected"], "finance", "s", "g")
    found = encode_pair(make_tokenizer(CHATML), pair, max_length=200, max_prompt_length=100)
    assert found == "contains control tokens"
