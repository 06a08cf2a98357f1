"""A merged model as one GGUF file, for llama.cpp and what is built on it; `gguf_rules` says which models are served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from equipoise.exporting.failure import ExportFailed
from equipoise.exporting.gguf_rules import ARCHITECTURES, ELSE, read_tokenizer, split_name
from equipoise.model.load import model_config


def write_gguf(folder: Path, name: str) -> Path:
    """Write the merged model of `folder` to `model.gguf` in it, in its own precision, and return the path.

    Reads the file back; raises ExportFailed where a tensor or a token is not what was meant.
    """
    import gguf

    config = model_config(folder, "--gguf")
    architecture = gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]]
    path = folder / "model.gguf"
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    half = next(tensor.dtype for _, tensor in _weights(folder)) != torch.float32
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if half else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    tokens = _add_tokenizer(writer, folder, config.vocab_size)
    for place, tensor in _tensors(folder, config):
        if tensor.dtype == torch.float32 or tensor.ndim == 1:
            writer.add_tensor(place, tensor.float().numpy())
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(place, gguf.quants.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    _read_back(path, folder, config, tokens)
    return path


def _add_shape(writer: Any, config: Any) -> None:
    """The model's dimensions under the names of GGUF."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, folder: Path, size: int) -> list[str]:
    """Vocabulary, merges, special tokens and chat template; returns the tokens by id."""
    import gguf
    import transformers

    stored = read_tokenizer(folder)
    tokens = [f"[PAD{id}]" for id in range(size)]  # rows of the matrix that no token uses
    kinds = [gguf.TokenType.UNUSED] * size
    for token, id in stored["model"]["vocab"].items():
        tokens[id], kinds[id] = token, gguf.TokenType.NORMAL
    for token in stored["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        tokens[token["id"]], kinds[token["id"]] = token["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(stored))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("a")["input_ids"]
    special.add_special_token = {"bos": ids[0] == tokenizer.bos_token_id, "eos": ids[-1] == tokenizer.eos_token_id}
    special.add_to_gguf(writer, quiet=True)
    return tokens


def _weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                yield name, file.get_tensor(name)


def _tensors(folder: Path, config: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its name in GGUF, in the order of its values there."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[ARCHITECTURES[config.model_type]], config.num_hidden_layers)
    for name, tensor in _weights(folder):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            raise ExportFailed(f"--gguf: the tensor {name} has no name in GGUF; {ELSE}")
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        yield place, _interleaved(tensor, heads) if config.model_type == "llama" and heads else tensor


def _interleaved(tensor: Tensor, heads: int) -> Tensor:
    """Rows of a query or key matrix in the order of llama.cpp's rotation for Llama.

    transformers turns row i of a head together with row i + half of it, llama.cpp rows 2i and 2i + 1.
    """
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape).contiguous()


def _read_back(path: Path, folder: Path, config: Any, tokens: list[str]) -> None:
    """Raises ExportFailed unless the file holds every tensor bit for bit, and every token."""
    import gguf

    reader = gguf.GGUFReader(path)
    found = {tensor.name: tensor for tensor in reader.tensors}
    meant = dict.fromkeys(found, False)
    for place, tensor in _tensors(folder, config):
        there = found.get(place)
        values = None if there is None else gguf.quants.dequantize(there.data, there.tensor_type)
        meant[place] = values is not None and torch.equal(torch.from_numpy(values.copy()), tensor.float())
    wrong = sorted(name for name, same in meant.items() if not same)
    stored = reader.get_field("tokenizer.ggml.tokens")
    if wrong or stored is None or stored.contents() != tokens:
        raise ExportFailed(f"--gguf: the file does not hold what was written ({', '.join(wrong[:3]) or 'tokens'})")
