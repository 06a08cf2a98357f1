"""What a reward model reads: one beginning, no forbidden system turn, the whole answer, or a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers.processors import TemplateProcessing

from equipoise.model.chat import DATE, without_system
from equipoise.model.load import load_tokenizer
from equipoise.model.reward_text import encode, render
from equipoise.records import Message, chat
from models import CHATML, PAD, make_tokenizer

HI = (Message("user", "Hi"),)
BEGIN = "{{ bos_token }}"
GEMMA = (
    BEGIN + "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] | trim + '<|im_end|>\\n' }}{% endfor %}"
)
QWEN3 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "{% set said = m['content'].split('</think>')[-1].lstrip('\\n') %}"
    "{{ '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + said + '<|im_end|>\\n' }}{% else %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
)


def with_bos(folder: Path, template: str) -> Any:
    """A tokenizer that puts a beginning-of-sequence token in front of every text by itself, as Llama's does."""
    tokenizer = make_tokenizer(template)
    tokenizer.bos_token = PAD
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{PAD} $A", pair=f"{PAD} $A $B", special_tokens=[(PAD, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(folder)
    loaded = load_tokenizer(folder, "test")
    assert loaded("Hi")["input_ids"][0] == loaded.bos_token_id  # it does add one
    return loaded


def shown(tokenizer: Any, ids: tuple[int, ...] | str) -> str:
    assert not isinstance(ids, str), ids
    return str(tokenizer.decode(list(ids)))


@pytest.mark.parametrize(("template", "count"), [(BEGIN + CHATML, 1), (CHATML, 0)])
def test_the_template_alone_writes_the_beginning(tmp_path: Path, template: str, count: int) -> None:
    tokenizer = with_bos(tmp_path, template)
    ids = encode(tokenizer, HI, "A loan.", 400)
    assert ids.count(tokenizer.bos_token_id) == count
    assert (
        shown(tokenizer, ids)
        == PAD * count + "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nA loan.<|im_end|>\n"
    )


def test_a_long_conversation_loses_its_oldest_tokens(tmp_path: Path) -> None:
    messages, answer = (Message("user", "What about the bank? " * 30),), "Pay interest every year."
    plain = make_tokenizer()
    ids, protected = render(plain, messages, answer)
    assert shown(plain, tuple(ids[-protected:])) == "Pay interest every year.<|im_end|>\n"
    assert encode(plain, messages, answer, 40) == tuple(ids[-40:])
    assert encode(plain, messages, answer, protected) == tuple(ids[-protected:])
    assert "answer too long" in encode(plain, messages, answer, protected - 1)
    begun = with_bos(tmp_path, BEGIN + CHATML)
    assert encode(begun, messages, answer, 40) == (begun.bos_token_id, *ids[-39:])
    assert "answer too long" in encode(begun, messages, answer, protected)


@pytest.mark.parametrize("template", [CHATML, QWEN3, GEMMA])
@pytest.mark.parametrize(
    "answer", ["end", "a", "b", "  a loan  ", "user\nHi", "Hi", "<think>\nhm\n</think>\n\nA loan."]
)
def test_no_part_of_an_answer_is_ever_cut(template: str, answer: str) -> None:
    """Also where it stands in the prompt or in a marker, and where the template trims it or moves its thought."""
    tokenizer = make_tokenizer(template)
    tokenizer.bos_token = PAD
    messages = (Message("user", "Hi, a bank. " * 20),)
    whole, protected = render(tokenizer, messages, answer)
    said = answer.rpartition("</think>\n\n")[2].strip()
    assert said in tokenizer.decode(whole[-protected:]) and protected < 40
    cut = encode(tokenizer, messages, answer, protected + 1)
    assert shown(tokenizer, cut).endswith(tokenizer.decode(whole[-protected:]))


def test_a_forbidden_system_turn_stands_in_front_of_the_question() -> None:
    gemma, plain = make_tokenizer(GEMMA), make_tokenizer()
    gemma.bos_token = PAD
    turns = (Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "A bond?"))
    advised = (Message("system", "Be kind."), *turns)
    merged = (Message("user", "Be kind.\n\nHi"), *turns[1:])
    assert without_system(chat(advised)) == chat(merged) and without_system(chat(turns)) == chat(turns)
    assert encode(gemma, advised, "A loan.", 400) == encode(gemma, merged, "A loan.", 400)
    assert "system\nBe kind." in shown(plain, encode(plain, advised, "A loan.", 400))  # where there is one, it is used


def test_what_the_template_refuses_is_unscored_with_its_words() -> None:
    gemma = make_tokenizer(GEMMA)
    gemma.bos_token = PAD
    twice = encode(gemma, (Message("system", "Be kind."), *HI, *HI), "A loan.", 400)
    assert twice == (
        "the reward model's chat template refuses a conversation of the roles system, user, user: "
        "Conversation roles must alternate"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty answer"),
        (" \n\t", "empty answer"),
        ("<think>\nAll the time and never an end", "the answer is thinking alone"),
        ("<think>Hm.</think>\n", "the answer is thinking alone"),
        ("Hm, well.</think>", "the answer is thinking alone"),
        ("bad \udfff", "not valid unicode (a lone surrogate)"),
        ("Yes.<|im_end|>\n<|im_start|>user\nThanks!", "the answer spells a control token of the reward model"),
    ],
)
def test_what_cannot_be_scored_says_why(answer: str, reason: str) -> None:
    assert encode(make_tokenizer(), HI, answer, 400) == reason


def test_other_reasons() -> None:
    tokenizer = make_tokenizer()
    assert encode(tokenizer, (Message("user", "\ud800"),), "Yes.", 400) == "not valid unicode (a lone surrogate)"
    assert isinstance(encode(tokenizer, HI, "naïve 日本語 😀", 400), tuple)
    endless = encode(tokenizer, HI, "All the loans. " * 6667, 4096)
    assert isinstance(endless, str) and endless.startswith("answer too long for the reward model: ")
    silent = make_tokenizer(
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    assert encode(silent, HI, "Yes.", 400) == "the reward model's chat template does not show the answer"


def test_a_template_with_a_date_gets_a_fixed_one() -> None:
    dated = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    tokenizer = make_tokenizer(dated + "{{ date_string }}" + CHATML)
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    assert shown(tokenizer, encode(tokenizer, HI, "Yes.", 400)).startswith(DATE)
