"""Fused adapters against PEFT's own forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from equipoise.dpo.engine import engine
from equipoise.dpo.lora import fused
from equipoise.dpo.packing import pack
from equipoise.dpo.streams import Unsupported, installed, stream_logprobs
from models import VOCABULARY, make_decoder, shake, with_lora
from test_exactness import MANY, assert_same, loss_and_gradients, separately

TOKENS = torch.arange(3, 43).view(2, 20) % VOCABULARY
LIMIT = {torch.float64: 1e-5, torch.float32: 1e-4}


def output(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradients of a sum of them."""
    logits = model(input_ids=TOKENS, use_cache=False).logits
    (logits * torch.linspace(-1, 1, logits.shape[-1], dtype=logits.dtype)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return logits.detach(), found


def assert_fused_equals_peft(model: Any, limit: float = 1e-4) -> int:
    expected = output(model)
    with fused(model) as layers:
        found = output(model)
    assert_same(found, expected, limit)
    again = output(model)
    assert torch.equal(again[0], expected[0])
    return layers


@pytest.mark.parametrize("dtype", LIMIT, ids=str)
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("biases", [False, True])
def test_one_adapter(biases: bool, rslora: bool, dtype: torch.dtype) -> None:
    model = with_lora(make_decoder("Llama", dtype, attention_bias=biases, mlp_bias=biases), use_rslora=rslora)
    assert assert_fused_equals_peft(model, LIMIT[dtype]) == 14


@pytest.mark.parametrize("active", [["default"], ["default", "other"], ["other", "third", "default"]], ids=str)
def test_several_adapters(active: list[str]) -> None:
    model = with_lora(make_decoder("Qwen2"))  # biases in the attention
    model.add_adapter("other", LoraConfig(r=7, lora_alpha=3, target_modules=["q_proj", "down_proj"]))
    model.add_adapter("third", LoraConfig(r=1, lora_alpha=9, target_modules=["up_proj"], use_rslora=True))
    shake(model, torch.float32)
    model.base_model.set_adapter(active)
    assert assert_fused_equals_peft(model) == 14


def disabled(model: Any) -> None:
    model.base_model.disable_adapter_layers()


def merged(model: Any) -> None:
    model.merge_adapter()


def without_gradients_below(model: Any) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.1.mlp.down_proj.lora_" in name)


@pytest.mark.parametrize("change", [disabled, merged, without_gradients_below])
def test_changes_while_it_is_fused(change: Callable[[Any], None]) -> None:
    """Whatever is done to the adapters within the context holds at once."""
    model = with_lora(make_decoder("Llama"))
    with fused(model):
        change(model)
        with torch.no_grad():
            found = model(input_ids=TOKENS).logits
    with torch.no_grad():
        assert torch.allclose(found, model(input_ids=TOKENS).logits, atol=1e-4)


def test_disable_adapter() -> None:
    model = with_lora(make_decoder("Llama"))
    with torch.no_grad():
        with fused(model), model.disable_adapter():
            found = model(input_ids=TOKENS).logits
        with model.disable_adapter():
            assert torch.allclose(found, model(input_ids=TOKENS).logits, atol=1e-5)
        assert not torch.allclose(found, model(input_ids=TOKENS).logits, atol=1e-2)


def test_dropout_falls_back() -> None:
    model = with_lora(make_decoder("Llama"), lora_dropout=0.3).train()
    torch.manual_seed(0)
    expected = output(model)
    with fused(model):
        torch.manual_seed(0)
        found = output(model)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())


def test_variants_fall_back() -> None:
    assert assert_fused_equals_peft(with_lora(make_decoder("Llama"), use_dora=True)) == 0


def test_adapters_with_a_bias() -> None:
    model = with_lora(make_decoder("Llama"), lora_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B.default.bias"):
            torch.nn.init.normal_(parameter)
    assert_fused_equals_peft(model)


def test_what_is_refused_is_not_fused() -> None:
    model = with_lora(make_decoder("Llama"), lora_bias=True)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B.default.bias"):
            torch.nn.init.normal_(parameter)
    expected = loss_and_gradients(model, lambda: separately(model, MANY))
    with engine(model, MANY, say=lambda line: None) as scorer:
        assert_same(loss_and_gradients(model, lambda: scorer(MANY)), expected, 1e-4)


def test_a_model_may_change_the_output_in_place() -> None:
    layer = with_lora(make_decoder("Llama")).base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(2, 3, 64, requires_grad=True)
    with fused(layer):
        layer(x).add_(1.0).sum().backward()
    assert x.grad is not None


def test_contexts_may_be_nested() -> None:
    model = with_lora(make_decoder("Llama"))
    with fused(model), fused(model):
        output(model)
    output(model)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.5}], ids=str)
def test_variants_on_the_head_are_refused_by_streams(options: dict[str, Any]) -> None:
    model = with_lora(make_decoder("Llama", tie_word_embeddings=False), target_modules=["lm_head"], **options).train()
    with fused(model), installed(model), pytest.raises(Unsupported, match="output layer"):
        stream_logprobs(model, pack(MANY[:1]))


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 3, 5)], ids=str)
def test_inputs_of_any_shape(shape: tuple[int, ...]) -> None:
    layer = with_lora(make_decoder("Llama")).base_model.model.model.layers[0].mlp.down_proj
    x = torch.randn(*shape[:-1], 64, requires_grad=True)
    expected = layer(x)
    slope = torch.randn_like(expected)
    own = torch.autograd.grad(expected, x, slope)[0]
    with fused(layer):
        found = layer(x)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(torch.autograd.grad(found, x, slope)[0], own, atol=1e-5)
