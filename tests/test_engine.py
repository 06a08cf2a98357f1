"""The engine's promise: a model is served exactly, or refused in one line and trained exactly on the plain path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention

from equipoise.dpo.engine import engine
from equipoise.dpo.norms import fused_norms
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Lora
from equipoise.records import InputError
from models import EXPERTS, LATENT, SHAPE, VOCABULARY, make_decoder, random_pairs, shake, with_lora
from test_exactness import MANY, assert_same, assert_streams_are_exact, loss_and_gradients, separately

LONG = random_pairs([(90, 12, 30), (40, 7, 5), (70, 33, 9)])
"""Longer than what the engine compares before it starts."""
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 64,
}  # fmt: skip
GATED = {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_d_ssm": 64}
QV = ["q_proj", "v_proj"]


def by_layer(rope: dict[str, Any]) -> dict[str, Any]:
    """Rotation by kind of layer, as in Gemma 3; `rope` is that of layers with full attention."""
    kinds = {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": rope}
    return {"rope_parameters": kinds, "layer_types": list(kinds)}


def assert_refused_and_plain(model: Any, pairs: Sequence[EncodedPair], why: str) -> None:
    """One line says why, and the plain path gives the model's own loss and gradients."""
    expected = loss_and_gradients(model, lambda: separately(model, pairs))
    said: list[str] = []
    with engine(model, pairs, say=said.append) as scorer:
        found = loss_and_gradients(model, lambda: scorer(pairs))
    assert not scorer.shared
    assert len(said) == 1 and why in said[0] and "\n" not in said[0]
    assert_same(found, expected, 1e-4)


@pytest.mark.parametrize(
    ("prefix", "config", "targets", "why"),
    [
        pytest.param("StableLm", {}, "all-linear", "does not pass on", id="stablelm"),
        pytest.param("Bloom", {"n_head": 4, "n_layer": 2}, "all-linear", "cannot be replaced", id="bloom"),
        pytest.param("GptOss", EXPERTS, "all-linear", "sinks", id="gpt-oss"),
        pytest.param("Lfm2", {"layer_types": ["conv", "full_attention"]}, "all-linear", "conv", id="lfm2"),
        pytest.param("FalconH1", MAMBA, QV, "hybrid", id="falcon_h1"),
        pytest.param("Mamba", {}, ["x_proj"], "linear_attention", id="mamba"),
        pytest.param("Bamba", MAMBA, ["gate_proj"], "linear_attention", id="bamba"),
        pytest.param("Qwen3Next", {**GATED, **EXPERTS, "shared_expert_intermediate_size": 16, "num_hidden_layers": 4},
            QV,
            "linear_attention", id="qwen3_next"),
        pytest.param("Qwen3_5", {**GATED, "layer_types": ["linear_attention", "full_attention"]}, QV,
            "linear_attention", id="qwen3_5"),
        pytest.param("Llama4", {"layer_types": ["chunked_attention"] * 2}, QV, "chunked_attention", id="llama4"),
        pytest.param("Llama4", {"layer_types": ["chunked_attention"] * 2}, ["down_proj"], "chunked_attention",
            id="llama4 in place"),
        pytest.param("Llama4", {"layer_types": ["full_attention"] * 2}, QV, "decoder", id="llama4 without chunks"),
        pytest.param("ModernBertDecoder", {}, "all-linear", "decoder", id="modernbert-decoder"),
        pytest.param("DeepseekV2", {**EXPERTS, **LATENT, "v_head_dim": 8, "head_dim": 16, "n_routed_experts": 4,
                                    "n_group": 1, "topk_group": 1}, ["o_proj"], "width", id="deepseek_v2"),
        pytest.param("Phimoe", {**EXPERTS, "sliding_window": 64},
            QV, "window", id="phimoe"),
        pytest.param("Llama", {"rope_parameters": LONGROPE}, QV, "length of the sequence", id="longrope"),
        pytest.param("Gemma3", by_layer(LONGROPE), QV, "length of the sequence", id="longrope by layer"),
    ],
)  # fmt: skip
def test_what_streams_do_not_serve_is_refused_and_trained_plainly(
    prefix: str, config: dict[str, Any], targets: Any, why: str
) -> None:
    assert_refused_and_plain(with_lora(make_decoder(prefix, **config), target_modules=targets), LONG, why)


@pytest.mark.parametrize("rope", [{"rope_parameters": DYNAMIC}, by_layer(DYNAMIC)], ids=["dynamic", "by layer"])
def test_rotation_that_depends_on_earlier_sequences_is_refused(rope: dict[str, Any]) -> None:
    prefix = "Gemma3" if "layer_types" in rope else "Llama"
    model = with_lora(make_decoder(prefix, max_position_embeddings=64, **rope), target_modules=QV)
    with pytest.raises(InputError, match="max_length to 64"), engine(model, LONG):
        pass


@pytest.mark.parametrize("rope", [DYNAMIC, LONGROPE], ids=["dynamic", "longrope"])
def test_rotation_that_depends_on_length_is_served_where_no_pair_is_long(rope: dict[str, Any]) -> None:
    limit = {"max_position_embeddings": 64} if rope is DYNAMIC else {}
    assert_streams_are_exact(with_lora(make_decoder("Llama", rope_parameters=rope, **limit)), MANY, 1e-4)


def test_the_loss_of_a_router_is_refused() -> None:
    model = with_lora(make_decoder("Qwen3Moe", **EXPERTS, output_router_logits=True))
    with pytest.raises(InputError, match="output_router_logits"), engine(model, MANY):
        pass


class Tripled(transformers.Qwen3ForCausalLM):
    """Its logits are not what its head says."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        output = super().forward(*arguments, **options)
        output.logits = output.logits * 3
        return output


class Remembering(Qwen3Attention):
    """From row `after` on it looks at earlier tokens outside the attention interface."""

    after = 0

    def forward(self, hidden_states: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        output, weights = super().forward(hidden_states, *arguments, **options)
        late = torch.arange(hidden_states.shape[1])[:, None] >= self.after
        return output + 0.2 * late * hidden_states.cumsum(1).tanh(), weights


class RemembersLate(Remembering):
    after = 100


def custom(kind: type) -> Any:
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(0)
    config = transformers.Qwen3Config(**SHAPE, **ids)
    model = (kind if kind is Tripled else transformers.Qwen3ForCausalLM)(config).eval().requires_grad_(False)
    for layer in model.model.layers:
        if kind is not Tripled:
            layer.self_attn.__class__ = kind
    return with_lora(model)


@pytest.mark.parametrize(
    "kind",
    [Tripled, Remembering, RemembersLate],
)
def test_a_model_that_does_something_unknown_is_found_out(kind: type) -> None:
    assert_refused_and_plain(custom(kind), LONG, "differ from the model's own")


def test_answers_that_begin_alike_do_not_look_like_an_error() -> None:
    alike = [
        replace(pair, chosen=LONG[0].chosen + pair.chosen, rejected=LONG[0].chosen + pair.rejected) for pair in MANY
    ]
    assert_streams_are_exact(with_lora(make_decoder("Qwen3")), alike, 1e-4)


@pytest.mark.parametrize("lengths", [(1, 1, 1), (1, 30, 1), (300, 2, 1)], ids=str)
def test_the_first_pair_may_be_of_any_shape(lengths: tuple[int, int, int]) -> None:
    pairs = [*random_pairs([lengths], seed=1), *MANY]
    assert_streams_are_exact(with_lora(make_decoder("Llama")), pairs, 1e-4)


def test_dropout_does_not_look_like_an_error() -> None:
    model = adapters.add(make_decoder("Qwen3"), Lora(rank=4, dropout=0.2), seed=0, base_name="tiny")
    shake(model, torch.float32)
    with engine(model, MANY, say=pytest.fail) as scorer:
        assert scorer.shared
        one, other = scorer(MANY).chosen, scorer(MANY).chosen
    assert not torch.equal(one, other)  # and it is on


def test_the_engine_may_be_entered_without_gradients() -> None:
    model = with_lora(make_decoder("Qwen3"))
    with torch.no_grad(), engine(model, MANY, say=pytest.fail) as scorer:
        assert torch.allclose(scorer(MANY).chosen, separately_outside(model), rtol=1e-5)


def separately_outside(model: Any) -> torch.Tensor:
    """The oracle's values; its own forward pass is not to be had within the engine."""
    before = model.get_base_model().config._attn_implementation
    model.get_base_model().set_attn_implementation("eager")
    values = separately(model, MANY).chosen
    model.get_base_model().set_attn_implementation(before)
    return values


def test_after_the_engine_the_model_is_as_before() -> None:
    model = with_lora(make_decoder("Gemma2", attn_implementation="eager"))
    forwards = {name: vars(module).get("forward") for name, module in model.named_modules()}
    before = separately(model, MANY).chosen
    with engine(model, MANY, say=pytest.fail):
        pass
    assert torch.equal(separately(model, MANY).chosen, before)
    assert {name: vars(module).get("forward") for name, module in model.named_modules()} == forwards
    assert model.config._attn_implementation == "eager"


def test_norms_are_told_apart_however_uneven_their_weights() -> None:
    """Gemma multiplies by 1 + w: beside a weight of 200 the 1 is lost in bf16's rounding."""
    model = make_decoder("Gemma", torch.bfloat16)
    norm = model.model.norm
    norm.weight[0] = 200.0
    x = torch.randn(3, len(norm.weight)).bfloat16()
    expected = norm(x).float()
    with fused_norms(norm) as count:
        found = norm(x).float()
    assert count == 1
    assert torch.allclose(found, expected, rtol=2e-2, atol=2e-2)


class Louder(Tripled):
    """Its logits are a little larger than its head says: in 16 bits that is close to rounding."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        output = transformers.Qwen3ForCausalLM.forward(self, *arguments, **options)
        output.logits = output.logits * 1.01
        return output


def test_a_model_that_does_something_unknown_is_found_out_in_sixteen_bits() -> None:
    """Accepted, the two differ by a nat over an answer of 80 tokens."""
    model = make_decoder("Qwen3", torch.bfloat16)
    model.__class__ = Louder
    model = adapters.add(model, Lora(rank=4), seed=0, base_name="tiny")
    with engine(model, LONG, say=lambda line: None) as scorer:
        assert not scorer.shared


@pytest.mark.parametrize("prefix", ["Qwen3", "Gemma", "Llama"])
def test_sixteen_bits_cost_no_more_along_streams(prefix: str) -> None:
    """A bf16 base with fp32 adapters, both paths against the same weights in fp64: streams err no more than PEFT."""
    model = shake(with_lora(make_decoder(prefix, torch.bfloat16)), torch.float32)
    plain = loss_and_gradients(model, lambda: separately(model, LONG))
    with engine(model, LONG, say=pytest.fail) as scorer:
        shared = loss_and_gradients(model, lambda: scorer(LONG))
    model.double()
    exact = loss_and_gradients(model, lambda: separately(model, LONG))

    def error(found: Any) -> float:
        gradients = [(found[1][name] - value).norm() / value.norm() for name, value in exact[1].items()]
        return float(torch.stack(gradients).square().mean().sqrt())

    assert error(shared) <= 1.2 * error(plain)
