"""Generation: reproducible in any order and from the store, continued after a kill, refused when too long."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from equipoise.model import generate
from equipoise.model.chat import answer_text, prompt_ids
from equipoise.model.generate import Answer, TransformersGenerator, fixed_batches
from equipoise.model.load import Loaded, load_policy
from equipoise.model.write import Settings, _draws, write
from equipoise.recipe import ModelSpec
from equipoise.records import Message
from equipoise.store import Store
from models import make_policy

torch.set_num_threads(1)
QUESTIONS = ["bond", "loan", "a fund in 2019", "the bank", "interest and the rate", "a state", "12 million", "letter"]
PROMPTS = [(Message("user", f"What is {what}? {'Please explain. ' * i}"),) for i, what in enumerate(QUESTIONS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("models") / "policy")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load_policy(ModelSpec(id=str(folder)), torch.device("cpu"))


def generator(loaded: Loaded, store: Store | None = None, **more: Any) -> TransformersGenerator:
    return TransformersGenerator(loaded, identity=loaded.identity, batch_size=3, store=store, **more)


def answers(
    loaded: Loaded, prompts: Any = PROMPTS, store: Store | None = None, temperature: float = 0.0, seed: int = 0
) -> list[Answer]:
    made = generator(loaded, store)
    return made.generate(prompts, max_new_tokens=12, temperature=temperature, seed=seed)


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_the_same_as_the_generation_of_transformers(tmp_path: Path, architecture: str) -> None:
    loaded = load_policy(ModelSpec(id=str(make_policy(tmp_path / "m", architecture))), torch.device("cpu"))
    for prompt, answer in zip(PROMPTS, answers(loaded), strict=True):
        ids = torch.tensor([prompt_ids(loaded.tokenizer, prompt)])
        whole = loaded.model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert answer.text == answer_text(loaded.tokenizer, whole.tolist())
        assert answer.tokens == len(whole)
        assert answer.cut_off == (loaded.tokenizer.eos_token_id not in whole)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_order_and_duplicates_do_not_matter(loaded: Loaded, temperature: float) -> None:
    first = answers(loaded, temperature=temperature)
    backwards = answers(loaded, [*PROMPTS[::-1], *PROMPTS], temperature=temperature)
    assert backwards == first[::-1] + first


def test_every_prompt_has_draws_of_its_own() -> None:
    draws = _draws([(1, 2), (1, 3)], Settings(8, 1.0, 0), torch.device("cpu"))
    assert not torch.equal(draws[0], draws[1])


def test_a_seed_moves_samples_and_nothing_else(loaded: Loaded) -> None:
    assert answers(loaded, temperature=1.0, seed=1) != answers(loaded, temperature=1.0, seed=2)
    assert answers(loaded, seed=1) == answers(loaded, seed=2)


def test_kept_answers_are_served_without_the_model(
    loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    first = answers(loaded, store=store)
    monkeypatch.setattr(generate, "write", lambda *_: pytest.fail("generated twice"))
    assert answers(loaded, PROMPTS[::-1], store) == first[::-1]
    other = TransformersGenerator(loaded, identity="with another adapter", batch_size=3, store=store)
    with pytest.raises(pytest.fail.Exception, match="generated twice"):
        other.generate(PROMPTS, max_new_tokens=12, temperature=0.0, seed=0)


def test_a_killed_evaluation_continues(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, batches = Store(tmp_path / "store"), itertools.count()

    def killed(*arguments: Any) -> list[list[int]]:
        if next(batches) == 2:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(generate, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        answers(loaded, store=store)
    assert answers(loaded, store=store) == answers(loaded)
    # 2 batches and the kill; 1 batch with the store; 3 without
    assert next(batches) == 3 + 1 + 3


def test_a_batch_is_taken_whole_or_generated_whole(loaded: Loaded, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    answers(loaded, PROMPTS[:5], store)
    assert answers(loaded, PROMPTS, store) == answers(loaded, PROMPTS)


def test_batches_hold_few_rows_of_long_prompts() -> None:
    prompts = [(0,) * length for length in (10, 20, 30, 1900, 2000)]
    sizes = [[len(ids) for ids in batch] for batch in fixed_batches(prompts, 4, 100)]
    assert sizes == [[10, 20, 30], [1900], [2000]]
    assert [len(batch) for batch in fixed_batches([(0,)] * 9, 4, 100)] == [4, 4, 1]


def test_a_prompt_that_is_too_long_is_refused_with_the_reason(loaded: Loaded) -> None:
    long = (Message("user", "bond " * 600),)
    refused, fine = answers(loaded, [long, PROMPTS[0]])
    assert refused.text == "" and refused.refused is not None and refused.refused.startswith("prompt too long")
    assert fine == answers(loaded, [PROMPTS[0]])[0]


def test_ended_rows_leave_the_batch_and_change_nothing(loaded: Loaded) -> None:
    batch = [tuple(prompt_ids(loaded.tokenizer, prompt)) for prompt in PROMPTS]
    settings = Settings(12, 0.0, 0)
    whole = write(loaded, batch, settings, frozenset())
    assert {len(row) for row in whole} == {12}
    ends = frozenset({row[i] for i, row in enumerate(whole)})  # so that rows end at different places
    for ids, row, free in zip(batch, write(loaded, batch, settings, ends), whole, strict=True):
        stop = next((i for i, token in enumerate(free) if token in ends), 11)
        assert row == free[: stop + 1], ids


def test_out_of_memory_halves_the_batch(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(loaded: Loaded, batch: Any, *rest: Any) -> list[list[int]]:
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return write(loaded, batch, *rest)

    expected = answers(loaded)
    monkeypatch.setattr(generate, "write", small)
    store = Store(tmp_path / "halves")
    assert answers(loaded, store=store) == expected
    assert not (tmp_path / "halves").exists()  # halves are other company: their answers are not kept


def test_a_model_with_adapters(folder: Path) -> None:
    loaded = load_policy(ModelSpec(id=str(folder)), torch.device("cpu"))
    plain = answers(loaded)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = Loaded(get_peft_model(loaded.model, config), loaded.tokenizer, "adapted", loaded.device)
    assert answers(adapted) != plain
    with adapted.model.disable_adapter():
        assert answers(adapted) == plain


def test_progress_reaches_the_end(loaded: Loaded) -> None:
    seen: list[tuple[int, int]] = []
    made = generator(loaded)
    made.generate(PROMPTS, max_new_tokens=2, temperature=0.0, seed=0, progress=lambda *p: seen.append(p))
    assert seen == [(3, 8), (6, 8), (8, 8)]
