"""4-bit weights: what nf4 loads is what is trained on, and gradients flow through it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.dpo.engine import engine
from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.loss import sigmoid
from equipoise.dpo.optimizer import make_optimizer
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair, encode_pair
from equipoise.model.load import Loaded, load_policy
from equipoise.recipe import Lora, ModelSpec, Optim
from equipoise.records import InputError, Message, Pair
from models import make_policy

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (the [quant] extra)"
)
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_policy(tmp_path / "policy", **SHAPE)


def some_pairs(loaded: Loaded) -> list[EncodedPair]:
    words = ["a", "bond", "pays", "interest", "every", "year", "until", "it", "is", "paid", "back"]
    found = []
    for number in range(4):
        pair = Pair(
            prompt=(Message("user", f"What is bond {number}?"),),
            chosen=" ".join(words[: 3 + number]),
            rejected=" ".join(words[-(2 + number) :]),
            domain="finance",
            source="s",
            group=str(number),
        )
        found.append(encode_pair(loaded.tokenizer, pair, max_length=200, max_prompt_length=100))
    return [pair for pair in found if isinstance(pair, EncodedPair)]


def adapted(loaded: Loaded) -> Any:
    """The model with an adapter that already says something, so that every LoRA matrix has a gradient."""
    model = adapters.add(adapters.attach(loaded, []), Lora(rank=4), seed=0, base_name="tiny")
    torch.manual_seed(1)
    for name, parameter in adapters.trainable(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def gradients(model: Any, logps: PairLogps) -> dict[str, torch.Tensor]:
    (logps.chosen - logps.rejected).sum().backward()
    found = {name: parameter.grad.clone() for name, parameter in adapters.trainable(model).items()}
    model.zero_grad()
    return found


def test_without_the_package_one_line_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"model\.quantization: nf4 needs bitsandbytes: pip install") as caught:
        load_policy(ModelSpec(id=str(folder), quantization="nf4"))
    assert "\n" not in str(caught.value)


@needs_bitsandbytes
def test_linear_layers_are_in_4_bits_and_the_rest_is_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import bitsandbytes as bnb

    plain, small = (load_policy(ModelSpec(id=str(folder), quantization=kind)).model for kind in (None, "nf4"))
    if not torch.cuda.is_available():
        assert "slower" in capsys.readouterr().err
    layers = dict(small.named_modules())
    for name, module in plain.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert isinstance(layers[name], bnb.nn.Linear4bit) == (name != "lm_head"), name
    layer, was = layers["model.layers.0.mlp.up_proj"], plain.model.layers[0].mlp.up_proj.weight
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.numel() == was.numel() / 2
    back = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(was)
    # NF4's widest gap between two values is 0.30 of a block's largest weight; the middle of it is the worst case.
    assert 0.01 < float((back - was).abs().mean() / was.abs().mean()) < 0.15
    assert float((back - was).abs().max()) <= 0.155 * float(was.abs().max())
    assert not any(parameter.requires_grad for parameter in small.parameters())


@needs_bitsandbytes
def test_gradients_are_those_of_the_unpacked_weights_also_after_a_pass_without_gradient(folder: Path) -> None:
    """Truth is a plain model that holds the unpacked weights. The pass for the reference comes first, as in training:
    bitsandbytes' packing for inference would stop the gradient there."""
    import bitsandbytes as bnb

    spec = {"id": str(folder), "dtype": "float32"}
    small, plain = load_policy(ModelSpec(**spec, quantization="nf4")), load_policy(ModelSpec(**spec))
    layers = dict(plain.model.named_modules())
    for name, module in small.model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            weight = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            layers[name].weight.data = weight.to(layers[name].weight)
    pairs = some_pairs(small)
    quantised, truth = adapted(small), adapted(plain)
    with torch.no_grad(), adapters.reference(quantised, "previous"):
        pair_logprobs(quantised, pairs)
    found, expected = pair_logprobs(quantised, pairs), pair_logprobs(truth, pairs)
    assert torch.allclose(found.chosen, expected.chosen, rtol=1e-5)
    slopes = gradients(truth, expected)
    for name, slope in gradients(quantised, found).items():
        assert float((slope - slopes[name]).norm()) <= 1e-4 * float(slopes[name].norm()), name


@needs_bitsandbytes
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_adapters_on_4_bits_learn_along_streams(folder: Path, optimizer: Any) -> None:
    loaded = load_policy(ModelSpec(id=str(folder), dtype="float32", quantization="nf4"))
    pairs, said = some_pairs(loaded), list[str]()
    model = adapters.add(adapters.attach(loaded, []), Lora(rank=4), seed=0, base_name="tiny")
    with engine(model, pairs, said.append) as scorer:
        assert scorer.shared, said
        with torch.no_grad():
            anchor = scorer(pairs)
        adam = make_optimizer(adapters.trainable(model).values(), Optim(learning_rate=1e-2, optimizer=optimizer))
        losses = []
        for _ in range(6):
            logps = scorer(pairs)
            loss = sigmoid(logps.chosen, logps.rejected, anchor.chosen, anchor.rejected, beta=0.1).mean()
            loss.backward()
            adam.step()
            adam.zero_grad()
            losses.append(loss.item())
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < 0.5
    assert not any(parameter.requires_grad for parameter in adapters.detach(model).parameters())
