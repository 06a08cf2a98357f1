"""GGUF files: transformers' own reader finds the same model and tokens in them; what has no name is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from equipoise.exporting.failure import ExportFailed
from equipoise.exporting.gguf_file import write_gguf
from equipoise.exporting.gguf_rules import require_gguf, split_name
from equipoise.pocket import model_dir
from equipoise.records import InputError
from models import make_policy

gguf = pytest.importorskip("gguf")
TEXT = "What's 12.5 million?\n\n<|im_start|>user\nHé is it's?<|im_end|>"
CASES = {
    "qwen3": ("qwen3", {"head_dim": 16}, torch.float32),
    "qwen3 in bfloat16": ("qwen3", {}, torch.bfloat16),
    "qwen2 with biases": ("qwen2", {"tie_word_embeddings": False}, torch.float32),
    "llama, whose rows are interleaved": ("llama", {"tie_word_embeddings": False}, torch.float32),
    "llama in bfloat16": ("llama", {}, torch.bfloat16),
}


def make(folder: Path, case: str) -> Path:
    """A tiny model in which nothing is 0 or 1: biases and norms would hide what is done to them."""
    architecture, config, dtype = CASES[case]
    make_policy(folder, architecture=architecture, **config)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_another_reader_finds_the_same_model(case: str, tmp_path: Path) -> None:
    folder = make(tmp_path, case)
    require_gguf(folder)
    path = write_gguf(folder, "tiny")
    config = transformers.AutoConfig.from_pretrained(folder)
    there = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=path.name, config=config, dtype=torch.float32
    )
    here = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokens = torch.arange(3, 50)[None]
    with torch.no_grad():
        assert torch.equal(there(tokens).logits, here(tokens).logits)

    reader = gguf.GGUFReader(path)
    architecture = config.model_type
    values = {name: reader.get_field(name).contents() for name in reader.fields if not name.startswith("tokenizer")}
    assert values[f"{architecture}.attention.key_length"] == config.head_dim
    assert values[f"{architecture}.attention.head_count_kv"] == 2
    assert values[f"{architecture}.rope.freq_base"] == config.rope_parameters["rope_theta"]
    assert values[f"{architecture}.context_length"] == 512
    assert ("output.weight" in {tensor.name for tensor in reader.tensors}) == (not config.tie_word_embeddings)


def test_the_tokenizer_in_the_file(tmp_path: Path) -> None:
    folder = make(tmp_path, "llama in bfloat16")
    reader = gguf.GGUFReader(write_gguf(folder, "tiny"))
    plain = transformers.AutoTokenizer.from_pretrained(folder)
    found = {name.partition(".")[2]: field.contents() for name, field in reader.fields.items() if "tokenizer" in name}
    assert (found["ggml.model"], found["ggml.pre"]) == ("gpt2", "gpt-2")
    assert found["ggml.eos_token_id"] == plain.eos_token_id
    assert (found["ggml.add_bos_token"], found["ggml.add_eos_token"]) == (False, False)
    assert found["chat_template"] == plain.chat_template
    assert found["ggml.tokens"] == plain.convert_ids_to_tokens(range(len(plain)))
    special = {id for id, kind in enumerate(found["ggml.token_type"]) if kind == gguf.TokenType.CONTROL}
    assert special == set(plain.added_tokens_decoder)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    assert again(TEXT)["input_ids"] == plain(TEXT)["input_ids"]


BYTES: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+"
)


def tokenizer(*steps: dict[str, Any], normalizer: Any = None, ignore_merges: bool = False) -> dict[str, Any]:
    parts = {"type": "Sequence", "pretokenizers": list(steps)} if len(steps) > 1 else steps[0]
    return {"pre_tokenizer": parts, "normalizer": normalizer, "model": {"ignore_merges": ignore_merges}}


def split(rule: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}


def test_rules_for_splitting_text_by_name() -> None:
    digits, plain = {"type": "Digits", "individual_digits": True}, {**BYTES, "use_regex": True}
    assert split_name(tokenizer(split(QWEN), BYTES, normalizer={"type": "NFC"})) == "qwen2"
    assert split_name(tokenizer(split(LLAMA), BYTES, ignore_merges=True)) == "llama-bpe"
    assert split_name(tokenizer(digits, plain)) == "smollm"
    assert split_name(tokenizer(plain)) == "gpt-2"
    for other in (
        tokenizer(split(LLAMA), BYTES),  # llama.cpp would ignore merges
        tokenizer(split(QWEN), BYTES, ignore_merges=True),
        tokenizer(split(QWEN), BYTES, normalizer={"type": "NFKC"}),
        tokenizer(split(QWEN[:-4]), BYTES),
        tokenizer({**BYTES, "use_regex": True, "add_prefix_space": True}),
        tokenizer(plain, normalizer={"type": "NFC"}),
    ):
        assert split_name(other) is None


def test_what_cannot_be_said_is_refused(tmp_path: Path) -> None:
    folder = make_policy(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for change, said in (
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "positions are stretched"),
        ({"hidden_act": "gelu"}, "its activation is gelu"),
        ({"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}, "attend to a window"),
        ({"model_type": "olmo2"}, "olmo2 models are not among qwen2, qwen3, llama"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(InputError, match=f"^--gguf: .*{said}.*own converter") as error:
            require_gguf(folder)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="a rule that has no name in GGUF"):
        require_gguf(model_dir())


def test_a_tensor_without_a_name_is_not_left_out(tmp_path: Path) -> None:
    folder = make_policy(tmp_path, architecture="llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.model.layers[0].extra_proj = torch.nn.Linear(2, 2)
    model.save_pretrained(folder)
    with pytest.raises(ExportFailed, match=r"extra_proj\S* has no name in GGUF"):
        write_gguf(folder, "tiny")
