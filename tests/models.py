"""Tiny models with random weights in the hub's layout, for tests: real architectures, real tokenizer files.

The tokenizer is a byte-level BPE trained here on a few sentences, with the ChatML template; every text can be
encoded. Nothing is downloaded.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END, START, PAD = "<|im_end|>", "<|im_start|>", "<|endoftext|>"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEXT = (
    "What was the revenue of the company in 2019 and in 2018, in million? Answer: 12.5 million",
    "You are a helpful assistant. Please explain what a bond is in two short sentences.",
    "A bond is a loan to a company or a state. It pays interest every year until it is paid back.",
    "Should I pay off my loans first or put the money into an index fund? I have 300 a month left.",
    "Write a short letter to the bank and ask for a lower rate. Then say it again in fewer words.",
)
ARCHITECTURES = {
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
}


@cache
def _bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[PAD, START, END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return str(tokenizer.to_str())


def make_tokenizer(template: str = CHATML) -> Any:
    """Byte-level BPE of about 400 tokens with a chat template."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_bpe()), eos_token=END, pad_token=PAD, model_max_length=100_000
    )
    tokenizer.chat_template = template
    return tokenizer


def settings(tokenizer: Any, **config: Any) -> dict[str, Any]:
    """Configuration values of a tiny model with grouped-query attention; `config` overrides them."""
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,  # large, so that random models say different things to different prompts
    }
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return {"vocab_size": len(tokenizer), **shape, **ids, **config}


def make_policy(folder: Path, architecture: str = "qwen3", seed: int = 0, **config: Any) -> Path:
    """Save a causal LM with random weights under `folder` and return it."""
    tokenizer = make_tokenizer()
    make_config, make_model = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    model = make_model(make_config(**settings(tokenizer, **config)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_reward(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Save a Qwen3 sequence classifier with one logit (num_labels=1) under `folder` and return it."""
    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    values = {"num_labels": 1, "tie_word_embeddings": False, **config}
    model = transformers.Qwen3ForSequenceClassification(transformers.Qwen3Config(**settings(tokenizer, **values)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
