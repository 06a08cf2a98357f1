"""Streams, fused adapters and norms against plain Hugging Face + PEFT autograd on separate sequences.

The oracle runs every sequence alone, without padding, through the model's own code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

from equipoise.dpo import head
from equipoise.dpo.attention import BLOCK
from equipoise.dpo.engine import PairScorer, engine
from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.recompute import recomputed
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe import Lora, ModelSpec
from models import SERVED, SERVED_IN_FP32, make_decoder, make_policy, random_pairs, shake, with_lora

LIMIT = {torch.float64: 1e-5, torch.float32: 1e-4}
MANY = random_pairs([(31, 9, 14), (12, 17, 3), (1, 5, 6), (24, 1, 9), (7, 12, 1), (19, 2, 2), (40, 7, 8), (3, 1, 1)])
"""Among them a prompt of one token, and answers of one token; windows of 16 cut most, not all."""
Gradients = dict[str, Tensor]


def separately(model: Any, pairs: Sequence[EncodedPair]) -> PairLogps:
    """The oracle: one forward pass per sequence, log-softmax over all of its logits."""

    def logprob(prompt: tuple[int, ...], answer: tuple[int, ...]) -> Tensor:
        logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()

    chosen = torch.stack([logprob(pair.prompt, pair.chosen) for pair in pairs])
    rejected = torch.stack([logprob(pair.prompt, pair.rejected) for pair in pairs])
    lengths = torch.tensor([(len(pair.chosen), len(pair.rejected)) for pair in pairs])
    return PairLogps(chosen, rejected, lengths[:, 0], lengths[:, 1])


def loss_and_gradients(model: Any, score: Callable[[], PairLogps]) -> tuple[Tensor, Gradients]:
    """All log-probabilities, and the gradients of a DPO loss that weighs every answer differently."""
    logps = score()
    slopes = torch.linspace(0.2, 1.0, len(logps.chosen), dtype=logps.chosen.dtype)
    margin = slopes * (logps.chosen - 1.1 * logps.rejected) / 100
    (-torch.nn.functional.logsigmoid(margin)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return torch.stack((logps.chosen, logps.rejected)).detach(), found


def assert_same(found: tuple[Tensor, Gradients], expected: tuple[Tensor, Gradients], limit: float) -> None:
    assert float((found[0] - expected[0]).norm()) <= limit * float(expected[0].norm())
    assert found[1].keys() == expected[1].keys() and expected[1]
    for name, gradient in expected[1].items():
        assert float(gradient.norm()) > 0, name
        assert float((found[1][name] - gradient).norm()) <= limit * float(gradient.norm()), name


def groups_of(pairs: Sequence[EncodedPair], size: int) -> list[Sequence[EncodedPair]]:
    return [pairs[start : start + size] for start in range(0, len(pairs), size)]


def in_groups(scorer: PairScorer, groups: Sequence[Sequence[EncodedPair]]) -> PairLogps:
    parts = [scorer(group) for group in groups]
    fields = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")
    return PairLogps(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))


def assert_streams_are_exact(model: Any, pairs: Sequence[EncodedPair], limit: float) -> None:
    expected = loss_and_gradients(model, lambda: separately(model, pairs))
    with engine(model, pairs, say=pytest.fail) as scorer:
        assert scorer.shared
        assert_same(loss_and_gradients(model, lambda: scorer(pairs)), expected, limit)


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("name", SERVED)
def test_streams_equal_separate_sequences(name: str, dtype: torch.dtype) -> None:
    prefix, config = SERVED[name]
    assert_streams_are_exact(with_lora(make_decoder(prefix, dtype, **config)), MANY[:5], LIMIT[dtype])


@pytest.mark.parametrize("name", SERVED_IN_FP32)
def test_streams_equal_separate_sequences_with_experts(name: str) -> None:
    prefix, config = SERVED_IN_FP32[name]
    assert_streams_are_exact(with_lora(make_decoder(prefix, **config)), MANY[:5], LIMIT[torch.float32])


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "phi3"])
def test_the_plain_path_is_exact_too(name: str) -> None:
    prefix, config = SERVED[name]
    model = with_lora(make_decoder(prefix, **config))
    expected = loss_and_gradients(model, lambda: separately(model, MANY))
    assert_same(loss_and_gradients(model, lambda: pair_logprobs(model, MANY)), expected, LIMIT[torch.float32])


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("name", ["qwen3", "gemma2"])
def test_eight_times_one_is_one_times_eight(name: str, size: int, dtype: torch.dtype) -> None:
    prefix, config = SERVED[name]
    model = with_lora(make_decoder(prefix, dtype, **config))
    expected = loss_and_gradients(model, lambda: separately(model, MANY))
    with engine(model, MANY, say=pytest.fail) as scorer:
        found = loss_and_gradients(model, lambda: in_groups(scorer, groups_of(MANY, size)))
    assert_same(found, expected, LIMIT[dtype])


@pytest.mark.parametrize(
    "name",
    [
        "qwen3",
        "gemma2",
        "opt",
    ],
)
def test_layers_that_are_computed_again(name: str) -> None:
    prefix, config = SERVED[name]
    model = with_lora(make_decoder(prefix, torch.float64, **config))
    expected = loss_and_gradients(model, lambda: separately(model, MANY))
    with engine(model, MANY, say=pytest.fail) as scorer, recomputed(model):
        assert_same(loss_and_gradients(model, lambda: scorer(MANY)), expected, 1e-5)


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma2"])
def test_prompts_and_answers_longer_than_a_block(name: str) -> None:
    """The shapes that cross the borders of attention's blocks, and the window within and across them."""
    prefix, config = SERVED[name]
    config = {**config, **({"sliding_window": 70} if "sliding_window" in config else {})}
    pairs = random_pairs([(BLOCK + 1, 10, BLOCK + 3), (BLOCK, 1, 1), (5, 2 * BLOCK, 9), (BLOCK - 1, 3, 2)])
    assert_streams_are_exact(with_lora(make_decoder(prefix, torch.float64, **config)), pairs, 1e-5)


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("targets", [["q_proj", "lm_head"], ["down_proj"], ["lm_head"]], ids=str)
def test_adapters_on_single_layers_and_on_the_head(targets: list[str], tied: bool, dtype: torch.dtype) -> None:
    model = with_lora(make_decoder("Llama", dtype, tie_word_embeddings=tied), target_modules=targets)
    assert_streams_are_exact(model, MANY, LIMIT[dtype])


@pytest.mark.parametrize("rows", [1, 3, 7])
@pytest.mark.parametrize("name", ["qwen3", "cohere", "gemma2"])
def test_chunks_that_cut_answers(name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "CHUNK_ROWS", rows)
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    prefix, config = SERVED[name]
    targets = ["q_proj", "lm_head"]
    model = with_lora(make_decoder(prefix, torch.float64, **config), target_modules=targets)
    assert_streams_are_exact(model, MANY, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 100.0])
@pytest.mark.parametrize("prefix", ["Llama", "Gemma"])
def test_norms(prefix: str, size: float, dtype: torch.dtype) -> None:
    """x / rms(x) * weight, and * (1 + weight) in Gemma, against autograd in fp64; in 16 bits within their rounding."""
    layer = make_decoder(prefix, dtype).model.norm
    x = (size * torch.randn(2, 7, 32)).to(dtype)
    slope = torch.randn(2, 7, 32).to(dtype)
    exact = x.double().requires_grad_()
    weight = layer.weight.double() + (prefix == "Gemma")
    expected = exact * (exact.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight
    x.requires_grad_()
    with fused_norms(layer) as count:
        found = layer(x)
    assert count == 1 and found.dtype == dtype
    limit = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    own, other = torch.autograd.grad(found, x, slope)[0], torch.autograd.grad(expected, exact, slope.double())[0]
    assert float((found - expected).norm()) <= limit * float(expected.norm())
    assert float((own - other).norm()) <= limit * float(other.norm())


def saved_adapter(base: Path, folder: Path, seed: int, **spec: Any) -> Path:
    """An adapter of the base model, with random values, in a folder of its own."""
    policy = load_policy(ModelSpec(id=str(base)))
    model = adapters.add(policy.model, Lora(**spec), seed=seed, base_name="tiny")
    adapters.save(shake(model, torch.float32, seed), folder)
    return folder


@pytest.fixture
def stacked(tmp_path: Path) -> tuple[Loaded, list[Path]]:
    """A policy and two earlier stages of different rank, scale and place."""
    base = make_policy(tmp_path / "policy", architecture="llama")
    one = saved_adapter(base, tmp_path / "one", 1, rank=2, alpha=16, target_modules=("q_proj", "up_proj", "lm_head"))
    two = saved_adapter(base, tmp_path / "two", 2, rank=6, alpha=3)
    return load_policy(ModelSpec(id=str(base))), [one, two]


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
def test_a_stack_of_frozen_adapters_below_the_trained_one(stacked: Any, dtype: torch.dtype) -> None:
    policy, stack = stacked
    model = adapters.add(adapters.attach(policy, stack), Lora(rank=4), seed=3, base_name="tiny").to(dtype)
    for name, parameter in model.named_parameters():
        if "lora_B.default" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    assert len(model.base_model.active_adapters) == 3
    assert_streams_are_exact(model, MANY, LIMIT[dtype])
    for kind in ("previous", "base"):
        with adapters.reference(model, kind), torch.no_grad():
            expected = separately(model, MANY).chosen
        with engine(model, MANY, say=pytest.fail) as scorer, torch.no_grad():
            ends = scorer(MANY).chosen
            with adapters.reference(model, kind):
                start = scorer(MANY).chosen
            assert torch.equal(scorer(MANY).chosen, ends)
        assert torch.allclose(start, expected, rtol=LIMIT[dtype])
        assert float((start - ends).abs().max()) > 0.1


def test_an_adapter_trained_in_streams_is_a_plain_peft_adapter(stacked: Any, tmp_path: Path) -> None:
    policy, _ = stacked
    model = adapters.add(policy.model, Lora(rank=4), seed=3, base_name="tiny")
    optimizer = torch.optim.SGD(adapters.trainable(model).values(), lr=0.05)
    with engine(model, MANY, say=pytest.fail) as scorer:
        for _ in range(2):
            logps = scorer(MANY)
            (logps.rejected - logps.chosen).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        adapters.save(model, tmp_path / "trained")
        with torch.no_grad():
            ends = scorer(MANY).chosen
    base = load_policy(ModelSpec(id=str(tmp_path / "policy"))).model
    with torch.no_grad():
        starts = separately(base, MANY).chosen
        plain = separately(PeftModel.from_pretrained(base, str(tmp_path / "trained")), MANY).chosen
    assert torch.allclose(plain, ends, rtol=1e-5)
    assert float((plain - starts).abs().max()) > 0.1
