"""The forecast of memory: against measured peaks of real processes with a tight allocator, and what follows from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from equipoise.dpo.forecast import StageForecast
from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import pack
from equipoise.dpo.recompute import recomputed
from equipoise.dpo.streams import installed, stream_logprobs
from equipoise.dpo.tracer import Tracer
from equipoise.model import adapters
from equipoise.model.live import LiveBytes
from equipoise.model.memory import MIB, PROCESS, Choice, adapter_bytes, choose, shape_of
from equipoise.recipe import Lora
from memory_worker import DEFAULTS, make_config, make_pairs, make_stage
from models import EXPERTS, SERVED, SERVED_IN_FP32, make_decoder, random_pairs

TOLERANCE = 0.15
SETTINGS: dict[str, dict[str, Any]] = {
    "qwen3": {"tokens": 2048, "pairs": 5},
    "long answers": {"config": {"vocab_size": 151936, "num_hidden_layers": 4}, "prompt": 60, "answer": 450, "pairs": 2},
    "qwen3, 1024 tokens": {"pairs": 6},
    "qwen3, 4096 tokens": {"tokens": 4096, "pairs": 8},
    "qwen3, bfloat16": {"tokens": 4096, "pairs": 8, "dtype": "bfloat16"},
    "llama, rank 64": {"kind": "Llama", "rank": 64, "tokens": 2048, "pairs": 5},
    "gemma3": {"kind": "Gemma3Text", "tokens": 2048, "pairs": 5},
    "qwen3, plain": {"plain": True, "tokens": 2048},
    "qwen3, recomputed": {"checkpointing": True, "tokens": 4096, "pairs": 8},
}
FAST = ("qwen3",)
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt-oss": ("GptOss", EXPERTS),
    "stablelm": ("StableLm", {}),
    "llama4": ("Llama4", {"layer_types": ["full_attention"] * 2}),
    "phimoe": ("Phimoe", {**EXPERTS, "sliding_window": 16}),
}


def forecast_of(setting: dict[str, Any]) -> StageForecast:
    config, (model, stage) = make_config(setting), make_stage(setting)
    dtype = getattr(torch, setting["dtype"])
    made = StageForecast(
        config,
        shape_of(config),
        model,
        stage,
        make_pairs(setting),
        seed=0,
        dtype=dtype,
        device="cpu",
        tight=setting["tight"],
    )
    if setting["plain"]:
        made.refused = "a test asks for the plain path"
    return made


def measured(setting: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).parent / "memory_worker.py"), json.dumps(setting)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS])
def test_forecast_against_a_measured_peak(name: str) -> None:
    setting = DEFAULTS | SETTINGS[name]
    parts = forecast_of(setting).parts(setting["tokens"], setting["checkpointing"])
    found = measured(setting)
    assert found["shared"] is not setting["plain"], found["said"]  # else another path was measured
    above = found["peak"] - found["start"]
    expected = parts.total - parts.process
    said = (
        f"{name}: forecast {expected / MIB:.0f} MiB above the start ({parts}), measured {above / MIB:.0f}: "
        f"{expected / above - 1:+.1%}; in all {parts.total / MIB:.0f} and {found['peak'] / MIB:.0f}: "
        f"{parts.total / found['peak'] - 1:+.1%}"
    )
    print(said)
    assert above > 300 * MIB, said
    assert abs(expected / above - 1) < TOLERANCE, said
    assert abs(parts.total / found["peak"] - 1) < TOLERANCE, said
    assert abs(PROCESS["cpu"] / found["start"] - 1) < TOLERANCE, said


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", [name for name in SETTINGS if "recomputed" not in name])
def test_forecast_against_a_process_with_glibc_as_it_comes(name: str) -> None:
    """The peak of a whole process, as `plan` prints it and as training runs."""
    setting = DEFAULTS | SETTINGS[name] | {"tight": False}
    parts = forecast_of(setting).parts(setting["tokens"], False)
    peak = measured(setting)["peak"]
    said = f"{name}: forecast {parts.total / MIB:.0f} MiB, measured {peak / MIB:.0f}: {parts.total / peak - 1:+.1%}"
    print(said)
    assert abs(parts.total / peak - 1) < TOLERANCE, said


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt2", "qwen3_moe", *REFUSED])
def test_every_kind_of_model_gets_a_forecast(name: str) -> None:
    """Also where streams are refused, or the code cannot be traced: then roughly, and never with a traceback."""
    prefix, options = {**SERVED, **SERVED_IN_FP32, **REFUSED}[name]
    config, (model, stage) = make_decoder(prefix, **options).config, make_stage(DEFAULTS)
    stage = stage.model_copy(
        update={"lora": Lora(rank=4, target_modules=["q_proj"] if name in REFUSED else "all-linear")}
    )
    made = StageForecast(config, shape_of(config), model, stage, random_pairs([(30, 9, 20)] * 4), seed=0,
                         dtype=torch.float32, device="cpu")  # fmt: skip
    found = made.forecast(available=2**40)
    assert (found.refused is not None) == (name in REFUSED), found.refused
    assert found.choice == Choice(1024, False, True) and found.parts.activations > 0


def test_layers_add_up() -> None:
    """Two and three layers are traced; seven are what seven are when all of them are."""
    setting = DEFAULTS | {"pairs": 2, "prompt": 40, "answer": 20}
    pairs = make_pairs(setting)
    config = make_config(setting | {"config": {"num_hidden_layers": 7}})
    tracer = Tracer(config, Lora(rank=4), torch.float32)
    found = tracer.step(pairs, shared=True)
    whole = tracer._trace(lambda: tracer._stream(pairs), 7, False)
    assert found.activations + found.vocabulary == whole.peak
    assert (found.made, found.calls) == (whole.made, whole.calls)


def test_the_attention_that_stands_in_keeps_what_the_real_one_keeps() -> None:
    setting = DEFAULTS | {"config": {"num_hidden_layers": 3, "vocab_size": 512}}
    pairs = make_pairs(setting)
    tracer = Tracer(make_config(setting), Lora(rank=4), torch.float32)
    found = tracer.step(pairs, shared=True)
    model = tracer._model
    with installed(model), fused(model), fused_norms(model), LiveBytes(tracer._known()) as live:
        logps = stream_logprobs(model, pack(pairs))
        (logps.chosen - logps.rejected).sum().backward()
    assert abs((found.activations + found.vocabulary) / live.peak - 1) < 0.03


def test_recomputed_layers_give_the_same_gradients() -> None:
    config = make_config(DEFAULTS | {"config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
                                                "vocab_size": 100, "head_dim": 8}})  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    model = adapters.add(model, Lora(rank=4), seed=0, base_name="")
    found = []
    for again in (False, True):
        model.zero_grad()
        tokens = torch.arange(40)[None] % 100
        if again:
            with recomputed(model) as layers:
                assert layers == 3
                model(tokens).logits[..., 3].sum().backward()
        else:
            model(tokens).logits[..., 3].sum().backward()
        found.append([p.grad.clone() for p in adapters.trainable(model).values() if p.grad is not None])
    assert found[0] and all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not any(module.training for module in model.modules())


def test_first_fewer_tokens_then_recomputation() -> None:
    """100 bytes and 10 per token; recomputed 2 per token. 90 % of what is available may be used."""

    def peak(tokens: int, checkpointing: bool) -> int:
        return 100 + (2 if checkpointing else 10) * tokens

    def at(available: int) -> Choice:
        return choose(peak, tokens=64, longest=20, available=available)

    assert at(1000) == Choice(64, False, True)  # 740 <= 900
    assert at(800) == Choice(32, False, True)  # 740 > 720, 420 <= 720
    assert at(400) == Choice(20, False, True)  # 420 > 360, 300 <= 360: the longest pair alone
    assert at(300) == Choice(64, True, True)  # 300 > 270; recomputed 228 <= 270
    assert at(160) == Choice(20, True, True)  # 140 <= 144, 164 is not
    assert at(150) == Choice(20, True, False)  # 140 > 135: nothing helps
    assert choose(peak, tokens=16, longest=20, available=1000) == Choice(16, False, True)


def test_adapters_by_hand() -> None:
    assert adapter_bytes([], "adamw") == 0
    assert adapter_bytes([100, 10], "adamw") == 110 * 4 + 10 * (4 + 8)
    assert adapter_bytes([100, 10], "paged_adamw_8bit") == 110 * 4 + 10 * (4 + 2)


def test_a_forecast_leaves_the_configuration_as_it_was() -> None:
    """The attention that stands in returns garbage: a model that is built later must not find its name."""
    config = make_config(DEFAULTS | {"config": {"num_hidden_layers": 2, "vocab_size": 512}})
    before = config.to_dict() | {"attention": config._attn_implementation}
    Tracer(config, Lora(rank=4), torch.float32).step(make_pairs(DEFAULTS | {"pairs": 1}), shared=True)
    assert config.to_dict() | {"attention": config._attn_implementation} == before
