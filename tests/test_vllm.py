"""The engine in a process of its own, with a stand-in for vLLM, and stacks of adapters summed into one.

vLLM itself needs a GPU and is not installed where these tests run: `tests/stand_in/vllm` has the names and signatures
that are used, on top of transformers. So these tests prove everything up to the call of the library, and not that
the library keeps what its documentation says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.combined import adapter_rank, combine
from equipoise.model.generate import Answer, TransformersGenerator
from equipoise.model.load import Loaded, load_policy
from equipoise.model.vllm_engine import VllmEngine, VllmGenerator
from equipoise.model.vllm_process import reason
from equipoise.recipe_parts import ModelSpec
from equipoise.records import InputError, Message
from equipoise.store import Store
from models import make_policy, shake

torch.set_num_threads(1)
STAND_IN = Path(__file__).parent / "stand_in"
POCKET = ModelSpec(id="pocket")
SCALES = (24 / 4, 9 / 3**0.5)
"""alpha / r of the first stage, alpha / sqrt(r) of the second."""
PROMPTS = [
    (Message("user", "Should I pay off my loans first or put the money into an index fund?"),),
    (Message("user", "What is a bond?"),),
    (Message("system", "You are a helpful assistant."), Message("user", "Write a short letter to the bank.")),
    (Message("user", "Who?"), Message("assistant", "The bank."), Message("user", "Say it in more words.")),
]


def save_adapter(folder: Path, seed: int, **settings: Any) -> Path:
    """A plain adapter of the embedded model that changes its answers."""
    loaded = load_policy(POCKET, torch.device("cpu"))
    torch.manual_seed(seed)
    values = {"r": 4, "lora_alpha": 24, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **settings}
    shake(get_peft_model(loaded.model, LoraConfig(**values)), torch.float32, seed).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stages' adapters of other ranks, scales and layers."""
    folder = tmp_path_factory.mktemp("stages")
    return [
        save_adapter(folder / "1", 1),
        save_adapter(folder / "2", 2, r=3, lora_alpha=9, target_modules=["q_proj", "down_proj"], use_rslora=True),
    ]


@pytest.fixture(scope="module")
def pocket() -> Loaded:
    return load_policy(POCKET, torch.device("cpu"))


def logits(loaded: Loaded, stack: list[Path]) -> torch.Tensor:
    model = attach(loaded, stack).double()
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.arange(3, 60)[None]).logits
    detach(model)
    return found


def test_a_combined_adapter_computes_what_its_stack_computes(stages: list[Path], tmp_path: Path) -> None:
    loaded = load_policy(POCKET, torch.device("cpu"))
    combine(stages, tmp_path / "sum")
    whole, plain = logits(loaded, stages), logits(loaded, [])
    assert (whole - plain).abs().max() > 0.1
    assert (whole - logits(loaded, stages[:1])).abs().max() > 0.1
    assert (logits(loaded, [tmp_path / "sum"]) - whole).abs().max() < 1e-4 * (whole - plain).abs().max()
    assert adapter_rank(tmp_path / "sum") == 7
    tensors = load_file(tmp_path / "sum" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    for layer, parts in (("q_proj", 2), ("o_proj", 1)):
        name = f"base_model.model.model.layers.1.self_attn.{layer}"
        products = [scale * product(stage, name) for stage, scale in list(zip(stages, SCALES, strict=True))[:parts]]
        torch.testing.assert_close(product(tmp_path / "sum", name), sum(products), rtol=0, atol=1e-6)


def product(folder: Path, layer: str) -> torch.Tensor:
    """B A of a layer in float64, without the scale."""
    tensors = load_file(folder / "adapter_model.safetensors")
    return tensors[f"{layer}.lora_B.weight"].double() @ tensors[f"{layer}.lora_A.weight"].double()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"alpha_pattern": {"q_proj": 9}}, "alpha_pattern"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
    ],
)
def test_adapters_that_cannot_be_summed_are_refused(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    folder = save_adapter(tmp_path / "odd", 1, **settings)
    with pytest.raises(InputError, match=rf"odd: not a plain LoRA \({named}\); use .*transformers"):
        combine([folder], tmp_path / "sum")


def test_a_damaged_adapter_is_named(stages: list[Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((stages[0] / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="the adapter cannot be read"):
        combine([tmp_path], tmp_path / "sum")


def use_stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the stand-in what the worker imports, and known as installed here; return the file of its notes."""
    (folder / "vllm-0.0.0.dist-info").mkdir()
    (folder / "vllm-0.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.0.0\n")
    monkeypatch.syspath_prepend(str(folder))
    source = Path(__file__).parents[1] / "src"
    monkeypatch.setenv("PYTHONPATH", f"{STAND_IN}:{source}")
    monkeypatch.setenv("VLLM_STAND_IN_NOTES", str(folder / "notes"))
    return folder / "notes"


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield use_stand_in(monkeypatch, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def engine(notes: Path) -> Iterator[VllmEngine]:
    with VllmEngine(POCKET, engine_args={"gpu_memory_utilization": 0.5}, lora_rank=7) as running:
        yield running


def write(generator: Any, prompts: Any = PROMPTS, *, longest: int = 8, **settings: Any) -> list[Answer]:
    values = {"temperature": 0.0, "seed": 0, **settings}
    answers: list[Answer] = generator.generate(prompts, max_new_tokens=longest, **values)
    return answers


def here(loaded: Loaded, stack: list[Path]) -> list[Answer]:
    with_adapters = replace(loaded, model=attach(loaded, stack))
    answers = write(TransformersGenerator(with_adapters, identity="here", batch_size=1, store=None))
    detach(with_adapters.model)
    return answers


def test_one_engine_serves_the_model_and_every_stack(
    engine: VllmEngine, stages: list[Path], pocket: Loaded, notes: Path, tmp_path: Path
) -> None:
    stacks = [[], stages[:1], stages, stages[:1], []]
    said = [write(VllmGenerator(engine, stack, store=None)) for stack in stacks]
    expected = [here(pocket, stack) for stack in stacks[:3]]
    assert said[:3] == expected
    assert said[3:] == [said[1], said[0]]
    assert len({tuple(answer.text for answer in answers) for answers in expected}) == 3
    assert {answer.cut_off for answers in expected for answer in answers} == {True, False}
    arguments = [json.loads(line) for line in notes.read_text().splitlines()]
    assert len(arguments) == 1
    assert arguments[0].items() >= {"dtype": "float32", "enable_lora": True, "max_lora_rank": 8, "seed": 0}.items()


def test_kept_answers_need_no_engine(engine: VllmEngine, stages: list[Path], notes: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "answers")
    seen: list[tuple[int, int]] = []
    half = write(VllmGenerator(engine, stages, store=store), PROMPTS[:2])
    whole = VllmGenerator(engine, stages, store=store).generate(
        [*PROMPTS, PROMPTS[0]], max_new_tokens=8, temperature=0.0, seed=5, progress=lambda *step: seen.append(step)
    )
    assert whole == write(VllmGenerator(engine, stages, store=None), [*PROMPTS, PROMPTS[0]])
    assert whole[:2] == half and seen == [(4, 4)]
    starts = notes.read_text()
    with VllmEngine(POCKET, engine_args={"gpu_memory_utilization": 0.5}) as other:
        assert write(VllmGenerator(other, stages, store=store)) == whole[:4]
    assert notes.read_text() == starts
    identities = {VllmGenerator(engine, stack, store=None).identity for stack in ([], stages[:1], stages)}
    assert identities == {stack_identity(engine.loaded, stack) for stack in ([], stages[:1], stages)}


def test_sampling_follows_the_seed_and_not_the_company(engine: VllmEngine) -> None:
    generator = VllmGenerator(engine, store=None)
    first = write(generator, temperature=1.5, seed=1)
    assert first == list(reversed(write(generator, PROMPTS[::-1], temperature=1.5, seed=1)))
    assert first != write(generator, temperature=1.5, seed=2)
    assert first != write(generator)


def test_a_prompt_without_room_is_refused(engine: VllmEngine) -> None:
    generator = VllmGenerator(engine, store=None)
    long, fine = write(generator, [(Message("user", "bond " * 3000),), PROMPTS[1]])
    assert long.text == "" and long.refused is not None and long.refused.startswith("prompt too long: ")
    assert fine == write(generator)[1]
    with VllmEngine(POCKET, engine_args={"max_model_len": 30}) as small:
        refused = write(VllmGenerator(small, store=None), longest=29)
    assert {answer.refused is not None for answer in refused} == {True}


def test_a_larger_adapter_starts_the_engine_anew(
    stages: list[Path], notes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("VLLM_STAND_IN_MODE", "echo")
    monkeypatch.setenv("VLLM_STAND_IN_NOTES", str(tmp_path / "notes"))
    large = save_adapter(tmp_path / "large", 3, r=9)
    with VllmEngine(POCKET, engine_args={}) as engine:
        assert [write(VllmGenerator(engine, stack, store=None))[0].tokens for stack in ([], [large], stages, [])] == [
            0, 1, 1, 0,
        ]  # fmt: skip
        written = engine.adapter(stages)
        assert written is not None and written.number == 2 and written.folder.is_dir()
    assert not written.folder.exists()
    starts = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert [start.get("max_lora_rank") for start in starts] == [None, 16]
    for start in starts:
        with pytest.raises(ProcessLookupError):
            os.kill(start["pid"], 0)


def test_an_engine_that_does_not_start_says_why(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_STAND_IN_MODE", "dies at the start")
    with VllmEngine(POCKET, engine_args={}) as engine, pytest.raises(InputError) as stopped:
        write(VllmGenerator(engine, store=None))
    message = str(stopped.value)
    assert message.startswith(
        "evaluation.generation.vllm: vLLM ended (exit status 1: ValueError: Free memory on device"
    )
    assert "lower gpu_memory_utilization" in message and "\n" not in message
    log = Path(message.rpartition("its log is ")[2])
    assert "Traceback" in log.read_text() and "must not disturb" in log.read_text()
    log.unlink()


def test_an_interruption_while_it_starts_leaves_nothing_behind(notes: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, threading\n"
        "from equipoise.model.vllm_process import WorkerProcess\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "WorkerProcess({'model': 'x'}, where='here')\n"
    )
    begun = {**os.environ, "VLLM_STAND_IN_MODE": "slow to start", "VLLM_STAND_IN_NOTES": str(tmp_path / "notes")}
    ended = subprocess.run([sys.executable, "-c", code], env=begun, capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in ended.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads((tmp_path / "notes").read_text())["pid"], 0)


def test_an_engine_that_is_killed_stops_the_evaluation(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_STAND_IN_MODE", "dies when asked")
    with VllmEngine(POCKET, engine_args={}) as engine, pytest.raises(InputError, match="killed by signal 9") as stopped:
        write(VllmGenerator(engine, store=None))
    Path(str(stopped.value).rpartition("its log is ")[2]).unlink()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["INFO ready", "torch.OutOfMemoryError: CUDA out of memory. Tried 2", "done"], "memory. Tried 2: lower gpu_"),
        (
            ["(EngineCore pid=8) ERROR 06-01 [core.py:3] ValueError: LoRA rank 64 is too large", "[rank0]: gone",
             "RuntimeError: Engine core initialization failed. See root cause above."],
            "ValueError: LoRA rank 64 is too large",
        ),
        (["Killed"], "Killed"),
        ([], "no message"),
    ],
)  # fmt: skip
def test_the_line_that_says_why(lines: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(lines))
    assert expected in reason(tmp_path / "log")


def test_without_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> str:
        import importlib.metadata

        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(InputError, match="vllm is not installed: pip install vllm"):
        VllmEngine(POCKET, engine_args={})


def test_arguments_that_the_recipe_decides_elsewhere(notes: Path) -> None:
    with pytest.raises(InputError, match=r"^evaluation\.generation\.vllm\.max_lora_rank: follows from"):
        VllmEngine(POCKET, engine_args={"max_lora_rank": 64})


def test_a_4_bit_model_is_4_bit_there_too(notes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VLLM_STAND_IN_MODE", "echo")
    spec = ModelSpec(id=str(make_policy(tmp_path / "tiny")), quantization="nf4", dtype="bfloat16")
    with VllmEngine(spec, engine_args={}) as engine:
        write(VllmGenerator(engine, store=None))
    last = json.loads(notes.read_text().splitlines()[-1])
    assert (last["quantization"], last["dtype"]) == ("bitsandbytes", "bfloat16")
