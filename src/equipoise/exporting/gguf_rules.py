"""Which models can be written as GGUF with certainty, and what GGUF calls their way of splitting text.

llama.cpp knows each rule by its name alone, so a tokenizer is only accepted where its rule is word for word the named
one; everything else is refused, since a wrong name gives wrong tokens without any error.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.model.load import model_config
from equipoise.records import InputError

ARCHITECTURES = {"qwen2": "QWEN2", "qwen3": "QWEN3", "llama": "LLAMA"}
"""Model types of transformers, and what gguf calls them."""
ELSE = "llama.cpp's own converter takes the folder that --merge writes, and knows more models (docs/export.md)"
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_SPLITS = {"qwen2": _QWEN2, "llama-bpe": _LLAMA3}


def require_gguf(folder: Path) -> None:
    """Raises InputError where the model in `folder` cannot be written as GGUF with certainty, or gguf is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError("--gguf: needs the package gguf: pip install 'equipoise[gguf]'")
    config = model_config(folder, "model.id")
    problem = _problem(config) or _tokenizer_problem(read_tokenizer(folder))
    if problem:
        raise InputError(f"--gguf: {problem}; {ELSE}")


def _problem(config: Any) -> str | None:
    """What about a model's configuration cannot be said in GGUF by this program."""
    if config.model_type not in ARCHITECTURES:
        return f"{config.model_type} models are not among {', '.join(ARCHITECTURES)}"
    rope = config.rope_parameters or {}
    if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        return f"positions are stretched ({rope.get('rope_type')}), which is not written here"
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "some layers attend to a window"
    return None if config.hidden_act == "silu" else f"its activation is {config.hidden_act}"


def read_tokenizer(folder: Path) -> Mapping[str, Any]:
    """The tokenizer of a model folder as it is stored; nothing where it has none."""
    path = folder / "tokenizer.json"
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def _tokenizer_problem(tokenizer: Mapping[str, Any]) -> str | None:
    """What about a tokenizer cannot be said in GGUF by this program."""
    if tokenizer.get("model", {}).get("type") != "BPE" or tokenizer["model"].get("byte_fallback"):
        return "its tokenizer is no byte-level BPE"
    if split_name(tokenizer) is None:
        return "its tokenizer splits text by a rule that has no name in GGUF"
    if any(token.get(flag) for token in tokenizer["added_tokens"] for flag in ("lstrip", "rstrip", "single_word")):
        return "its tokenizer has tokens that swallow white space"
    return None


def split_name(tokenizer: Mapping[str, Any]) -> str | None:
    """Return GGUF's name of the rule by which a tokenizer splits text before it merges; None where there is none."""
    steps = tokenizer.get("pre_tokenizer") or {}
    parts = [{key: value for key, value in part.items() if key != "trim_offsets"} for part in
             steps.get("pretokenizers", [steps])]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    plain = not tokenizer["model"].get("ignore_merges") and tokenizer.get("normalizer") is None
    if parts and parts[-1] == {**byte_level, "use_regex": True}:
        names = {"[]": "gpt-2", json.dumps([{"type": "Digits", "individual_digits": True}]): "smollm"}
        return names.get(json.dumps(parts[:-1])) if plain else None
    if len(parts) != 2 or parts[1] != {**byte_level, "use_regex": False}:
        return None
    for name, rule in _SPLITS.items():
        split = {"type": "Split", "pattern": {"Regex": rule}, "behavior": "Isolated", "invert": False}
        # llama.cpp knows no Unicode normalisation: NFC is left out by its own converter as well.
        same = tokenizer.get("normalizer") in (None, {"type": "NFC"})
        if parts[0] == split and same and bool(tokenizer["model"].get("ignore_merges")) == (name == "llama-bpe"):
            return name
    return None
