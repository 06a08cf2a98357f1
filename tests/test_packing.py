"""Streams: every pair once, within the budget, with the context that its two sequences have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from equipoise.dpo.engine import engine
from equipoise.dpo.packing import micro_batches, pack, padded_length, stream_length
from equipoise.model.chat import EncodedPair, encode_pair, prompt_ids
from equipoise.records import Message, Pair
from models import make_decoder, random_pairs, with_lora
from test_exactness import assert_same, loss_and_gradients, separately

LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=9)
quick = settings(max_examples=60, deadline=None, database=None)


@quick
@given(LENGTHS)
def test_a_stream_holds_both_sequences_of_every_pair(lengths: list[tuple[int, int, int]]) -> None:
    pairs = random_pairs(lengths)
    stream = pack(pairs)
    tokens, positions = stream.tokens_1T[0].tolist(), stream.positions_1T[0].tolist()
    assert len(tokens) == len(positions) == sum(map(stream_length, pairs))
    end = 0
    for pair, at in zip(pairs, stream.bounds, strict=True):
        assert at.start == end
        prompt, end = range(at.start, at.prompt), at.rejected
        for answer, expected in (
            (range(at.prompt, at.chosen), pair.chosen), (range(at.chosen, at.rejected), pair.rejected)
        ):  # fmt: skip
            places = [*prompt, *answer]
            assert tuple(tokens[place] for place in places) == pair.prompt + expected
            assert [positions[place] for place in places] == list(range(len(places)))


@quick
@given(LENGTHS)
def test_rows_predict_the_tokens_of_answers(lengths: list[tuple[int, int, int]]) -> None:
    pairs = random_pairs(lengths)
    stream = pack(pairs)
    found: dict[int, list[tuple[int, int]]] = {}
    for row, target, answer in zip(
        stream.rows_N.tolist(), stream.targets_N.tolist(), stream.answers_N.tolist(), strict=True
    ):
        found.setdefault(answer, []).append((row, target))
    for number, (pair, at) in enumerate(zip(pairs, stream.bounds, strict=True)):
        last = at.prompt - 1
        assert found[2 * number] == list(zip(range(last, at.chosen - 1), pair.chosen, strict=True))
        before = [last, *range(at.chosen, at.rejected - 1)]
        assert found[2 * number + 1] == list(zip(before, pair.rejected, strict=True))


@quick
@given(LENGTHS, st.integers(1, 150), st.booleans(), st.randoms())
def test_groups_keep_the_budget_and_depend_on_the_pairs_alone(
    lengths: list[tuple[int, int, int]], tokens: int, shared: bool, random: Any
) -> None:
    pairs = random_pairs(lengths)
    groups = micro_batches(pairs, tokens, shared=shared)
    assert sorted(pair.id for group in groups for pair in group) == sorted(pair.id for pair in pairs)
    for group in groups:
        taken = sum(map(stream_length, group)) if shared else 2 * len(group) * max(map(padded_length, group))
        assert len(group) == 1 or taken <= tokens
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert micro_batches(shuffled, tokens, shared=shared) == groups


def pair_of(prompt: int, chosen: int, rejected: int) -> EncodedPair:
    tokens = tuple(range(3, 3 + max(prompt, chosen, rejected)))
    return EncodedPair("0", "s", "d", tokens[:prompt], tokens[:chosen], tokens[1 : 1 + rejected], 0)


@pytest.mark.parametrize("lengths", [(4, 0, 3), (4, 3, 0), (4, 0, 0)], ids=str)
def test_an_empty_answer_has_no_rows(lengths: tuple[int, int, int]) -> None:
    stream = pack([pair_of(*lengths), pair_of(2, 1, 1)])
    assert stream.answers_N.tolist() == [0] * lengths[1] + [1] * lengths[2] + [2, 3]


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt"):
        pack([pair_of(2, 1, 1), pair_of(0, 2, 2)])


# A tokenizer whose merges cross the border between prompt and answer: ":" + "Y" is one token, ":" + "N" is not.
COLON = (
    "{% for message in messages %}{{ message['role'][0] + ':' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<end>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
)
BORDER = Pair(
    prompt=(Message("user", "Yes or No?"),), chosen="Yes", rejected="No", domain="general", source="s", group="g"
)


def crossing_tokenizer() -> Any:
    letters = pre_tokenizers.ByteLevel.alphabet()
    merges = [("a", ":"), (":", "Y"), ("a:", "Y"), ("Y", "e"), ("a:Y", "e")]
    words = [*sorted(letters), *(one + other for one, other in merges), "<end>", "<pad>"]
    backend = Tokenizer(models.BPE(vocab={word: id for id, word in enumerate(words)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = COLON
    return tokenizer


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_prompt_that_tokenises_differently_next_to_its_answers() -> None:
    tokenizer = crossing_tokenizer()
    prompt = prompt_ids(tokenizer, BORDER.prompt)
    with_chosen, with_rejected = (ids(tokenizer, "u:Yes or No?a:" + answer) for answer in ("Yes", "No"))
    assert with_chosen[: len(prompt)] != prompt  # tokenised as a whole, the border moves next to one answer
    assert with_rejected[: len(prompt)] == prompt
    pair = encode_pair(tokenizer, BORDER, max_length=64, max_prompt_length=32)
    assert isinstance(pair, EncodedPair)
    assert list(pair.prompt) == prompt  # what generation sees, for both answers
    assert tokenizer.decode(list(pair.prompt + pair.chosen)) == "u:Yes or No?a:Yes<end>"
    assert tokenizer.decode(list(pair.prompt + pair.rejected)) == "u:Yes or No?a:No<end>"
    stream = pack([pair])
    at = stream.bounds[0]
    assert stream.tokens_1T[0, : at.prompt].tolist() == prompt

    model = with_lora(make_decoder("Qwen3", torch.float64))
    expected = loss_and_gradients(model, lambda: separately(model, [pair]))
    with engine(model, [pair], say=pytest.fail) as scorer:
        assert_same(loss_and_gradients(model, lambda: scorer([pair])), expected, 1e-5)
