"""The batch-invariant mode: an answer depends on its prompt alone, tokens are chosen in 32 bits; fresh answers."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.model import generate
from equipoise.model.adapters import base_of
from equipoise.model.chat import prompt_ids
from equipoise.model.generate import Answer, TransformersGenerator, fixed_length, fixed_shapes
from equipoise.model.load import Loaded, load_policy
from equipoise.model.write import Settings, _read, fp32_logits, write
from equipoise.recipe import ModelSpec
from equipoise.records import InputError, Message
from equipoise.store import Store
from models import MIXED, make_decoder, make_policy, with_lora

torch.set_num_threads(1)
PROMPTS = [(Message("user", f"What is {what}? {'Please explain. ' * i}"),) for what in "abc" for i in range(6)]
ROWS = 4


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder = make_policy(tmp_path_factory.mktemp("models") / "policy")
    return load_policy(ModelSpec(id=str(folder), dtype=request.param), torch.device("cpu"))


def answers(
    loaded: Loaded,
    prompts: Any = PROMPTS,
    store: Store | None = None,
    temperature: float = 0.0,
    fresh: int = 0,
    invariant: bool = True,
) -> list[Answer]:
    made = TransformersGenerator(
        loaded, identity="policy", batch_size=ROWS, store=store, batch_invariant=invariant, fresh=fresh
    )
    return made.generate(prompts, max_new_tokens=12, temperature=temperature, seed=0)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_depends_on_its_prompt_alone(loaded: Loaded, temperature: float) -> None:
    together = dict(zip(PROMPTS, answers(loaded, temperature=temperature), strict=True))
    assert len({answer.text for answer in together.values()}) > len(PROMPTS) / 2
    for seed in range(3):
        some = random.Random(seed).sample(PROMPTS, 7)
        assert answers(loaded, some, temperature=temperature) == [together[prompt] for prompt in some]
    for prompt in PROMPTS[:3]:
        assert answers(loaded, [prompt], temperature=temperature) == [together[prompt]]


def test_not_one_bit_of_the_logits_depends_on_place_or_company(loaded: Loaded) -> None:
    ids = [tuple(prompt_ids(loaded.tokenizer, prompt)) for prompt in PROMPTS if len(prompt[0].content) < 40]
    rows: dict[Any, torch.Tensor] = {}
    for seed in range(6):
        batch = random.Random(seed).choices(ids, k=ROWS)
        with torch.inference_mode(), fp32_logits(loaded.model):
            logits, _ = _read(loaded, batch, 64, fixed=True)
        for prompt, row in zip(batch, logits, strict=True):
            assert torch.equal(rows.setdefault(prompt, row), row)
    assert len(rows) > ROWS


def shapes(loaded: Loaded, prompts: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The shapes of every forward pass of one generation."""
    seen: list[tuple[Any, ...]] = []
    forward = loaded.model.forward

    def noted(**inputs: Any) -> Any:
        assert not inputs["attention_mask"].all()  # transformers would drop it, and another kernel would run
        seen.append((inputs["input_ids"].shape, inputs["attention_mask"].shape))
        return forward(**inputs)

    with monkeypatch.context() as patched:
        patched.setattr(loaded.model, "forward", noted)
        answers(loaded, prompts)
    return seen


def test_company_changes_no_shape(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    short = [prompt for prompt in PROMPTS if len(prompt_ids(loaded.tokenizer, prompt)) < 64]
    monkeypatch.setattr(generate, "end_tokens", lambda _: frozenset())
    alone = shapes(loaded, short[:1], monkeypatch)
    assert alone[0] == ((ROWS, 64), (ROWS, 64)) and alone[-1] == ((ROWS, 1), (ROWS, 64 + 11)) and len(alone) == 12
    assert shapes(loaded, short[:3], monkeypatch) == alone
    assert shapes(loaded, short[: 2 * ROWS], monkeypatch) == alone * 2
    batch = [tuple(prompt_ids(loaded.tokenizer, prompt)) for prompt in short[:ROWS]]
    ends = {row[4] for row in write(loaded, batch, Settings(12, 0.0, 0), frozenset())[1:]}
    monkeypatch.setattr(generate, "end_tokens", lambda _: frozenset(ends))  # then rows end at different places
    ended = shapes(loaded, short[:ROWS], monkeypatch)
    assert ended == alone[: len(ended)]


def test_answers_are_kept_one_by_one(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, made = Store(tmp_path / "store"), []

    def noted(loaded: Loaded, batch: Any, *rest: Any) -> list[list[int]]:
        made.extend(batch)
        return write(loaded, batch, *rest)

    expected = answers(loaded)
    answers(loaded, PROMPTS[:7], store)
    monkeypatch.setattr(generate, "write", noted)
    assert answers(loaded, PROMPTS[::-1], store) == expected[::-1]
    first = {tuple(prompt_ids(loaded.tokenizer, prompt)) for prompt in PROMPTS[:7]}
    assert made and not first & set(made)
    made.clear()
    answers(loaded, PROMPTS, store)
    assert not made
    answers(loaded, PROMPTS[:7], store, invariant=False)  # another instrument: its answers are its own
    assert set(made) == first
    assert len(list((store.folder / "answers").iterdir())) == 2


def test_fresh_answers_are_neither_taken_nor_kept(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    answers(loaded, store=store, fresh=1)
    assert not store.folder.exists()
    kept = answers(loaded, store=store)
    monkeypatch.setattr(generate, "write", lambda *_: pytest.fail("generated"))
    assert answers(loaded, store=store) == kept
    with pytest.raises(pytest.fail.Exception, match="generated"):
        answers(loaded, store=store, fresh=1)


def test_each_fresh_repeat_cuts_other_batches(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def cuts(prompts: Any, fresh: int) -> tuple[int, ...]:
        sizes: list[int] = []

        def noted(loaded: Loaded, batch: Any, *rest: Any) -> list[list[int]]:
            sizes.append(len(batch))
            return write(loaded, batch, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(generate, "write", noted)
            answers(loaded, prompts, fresh=fresh, invariant=False)
        return tuple(sizes)

    assert [cuts(PROMPTS[:8], fresh) for fresh in range(4)] == [(4, 4), (3, 3, 2), (2, 2, 2, 2), (1,) * 8]
    assert [cuts(PROMPTS[:3], fresh) for fresh in range(3)] == [(3,), (2, 1), (1, 1, 1)]  # fewer than rows
    assert cuts(PROMPTS[:8], 4) == cuts(PROMPTS[:8], 1) and cuts(PROMPTS[:1], 5) == (1,)


def softly(logits: torch.Tensor) -> torch.Tensor:
    return 3.0 * torch.tanh(logits / 3.0)


@pytest.mark.parametrize(
    ("prefix", "options", "after"),
    [
        ("Qwen3", {}, lambda logits: logits),
        ("Gemma2", {**MIXED, "query_pre_attn_scalar": 12, "final_logit_softcapping": 3.0}, softly),
        ("Cohere", {"logit_scale": 0.3}, lambda logits: 0.3 * logits),
        ("Starcoder2", {"sliding_window": 16, "tie_word_embeddings": False}, lambda logits: logits),
    ],
)
def test_logits_of_16_bit_models_in_32_bits(
    prefix: str, options: dict[str, Any], after: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("equipoise.model.write.HEAD_ROWS", 77)  # several parts, the last one smaller
    model = make_decoder(prefix, torch.bfloat16, **options)
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        hidden = model.get_decoder()(ids).last_hidden_state[0].float()
        with fp32_logits(model):
            logits = model(ids).logits[0]
        before = model(ids).logits
    expected = after(hidden @ model.get_output_embeddings().weight.float().T)
    assert before.dtype == torch.bfloat16 and logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-6)
    assert (before[0].float() - expected).abs().max() > 1e-3  # which is what 16 bits lose


def test_an_adapter_of_the_output_layer_counts() -> None:
    model = with_lora(make_decoder("Qwen2", torch.bfloat16, tie_word_embeddings=False), target_modules=["lm_head"])
    ids = torch.arange(3, 23)[None]
    layer = base_of(model).get_output_embeddings()
    with torch.no_grad(), fp32_logits(model):
        hidden = base_of(model).get_decoder()(ids).last_hidden_state[0]
        logits = model(ids).logits[0]
        added = layer.lora_B["default"](layer.lora_A["default"](hidden)) * layer.scaling["default"]
    assert logits.dtype == torch.float32 and added.abs().max() > 0.01
    torch.testing.assert_close(logits, hidden.float() @ layer.get_base_layer().weight.float().T + added)


def test_shapes_follow_from_the_length_of_a_prompt() -> None:
    lengths = {1: 64, 64: 64, 65: 128, 256: 256, 257: 320, 512: 512, 513: 640, 1024: 1024, 1025: 1280}
    assert {tokens: fixed_length(tokens) for tokens in lengths} == lengths
    prompts = [(0,) * tokens for tokens in (10, 20, 63, 64, 1900)]
    shaped = [([len(ids) for ids in batch], length, rows) for batch, length, rows in fixed_shapes(prompts, 2, 100)]
    assert shaped == [([10, 20], 64, 2), ([63], 64, 2), ([64], 128, 2), ([1900], 2048, 1)]


def test_too_little_memory_names_the_batch_size(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> list[list[int]]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(generate, "write", full)
    with pytest.raises(InputError, match=r"evaluation\.generation\.batch_size: 4 rows of 64 \+ 12 tokens"):
        answers(loaded, PROMPTS[:1])


def test_mixtures_of_experts_are_refused(loaded: Loaded) -> None:
    model = make_decoder("Qwen3Moe", num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    with pytest.raises(InputError, match="batch_invariant: qwen3_moe sends tokens to experts"):
        answers(Loaded(model, loaded.tokenizer, "experts", loaded.device))
