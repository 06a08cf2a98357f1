"""Tiny models with random weights in the hub's layout, for tests: real architectures, real tokenizer files.

The tokenizer is a byte-level BPE trained here on a few sentences, with the ChatML template; every text can be
encoded. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from equipoise.model.chat import EncodedPair

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
SHAPE: dict[str, Any] = {
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
VOCABULARY = 300
"""Tokens of a decoder that has no tokenizer (`make_decoder`); ids below 3 are special."""
MIXED = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "num_key_value_heads": 4}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3", {}),
    "qwen3 with windows": ("Qwen3", {**MIXED, "use_sliding_window": True}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False}),
    "llama": ("Llama", {"tie_word_embeddings": False}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "smollm2": ("Llama", {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 24}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 4}),  # every fourth layer without rotation
    "mistral": ("Mistral", {"sliding_window": 16}),
    "ministral3": (
        "Ministral3",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e4,
                "factor": 16.0,
                "original_max_position_embeddings": 32,
                "llama_4_scaling_beta": 0.5,
            }
        },
    ),
    "gemma": ("Gemma", {}),
    "gemma2": (
        "Gemma2",
        {**MIXED, "query_pre_attn_scalar": 12, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("Gemma3", {**MIXED, "query_pre_attn_scalar": 12}),
    "phi3": ("Phi3", {"sliding_window": 16}),
    "cohere": ("Cohere", {"logit_scale": 0.3}),
    "cohere2": ("Cohere2", MIXED),
    "granite": ("Granite", {"logits_scaling": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5}),
    "olmo2": ("Olmo2", {}),
    "olmo3": ("Olmo3", MIXED),
    "starcoder2": ("Starcoder2", {"sliding_window": 16}),
    "glm4": ("Glm4", {}),
    "exaone4": ("Exaone4", MIXED),
    "gpt2": ("GPT2", {}),
    "opt": ("OPT", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    "gpt_neox": ("GPTNeoX", {}),
}
"""Decoders that streams serve: the prefix of their classes in transformers, and their configuration. Windows are
shorter than most pairs of a test, longer than some answers."""
SERVED_IN_FP32: dict[str, tuple[str, dict[str, Any]]] = {  # their experts have no fp64 kernel
    "qwen3_moe": ("Qwen3Moe", EXPERTS),
    "mixtral": ("Mixtral", {**EXPERTS, "sliding_window": 16}),
    "olmoe": ("Olmoe", EXPERTS),
    "deepseek_v3": (
        "DeepseekV3",
        {**EXPERTS, **LATENT, "v_head_dim": 16, "n_routed_experts": 4, "n_group": 1, "topk_group": 1,
         "first_k_dense_replace": 1},
    ),
}  # fmt: skip


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
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return {"vocab_size": len(tokenizer), **SHAPE, **ids, **config}


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


def make_decoder(prefix: str, dtype: torch.dtype = torch.float32, seed: int = 0, **config: Any) -> Any:
    """A frozen causal LM with random weights: transformers' class `prefix`ForCausalLM, no tokenizer."""
    make_model = getattr(transformers, f"{prefix}ForCausalLM", None) or getattr(transformers, f"{prefix}LMHeadModel")
    ids = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(seed)
    model = make_model(make_model.config_class(**{**SHAPE, **ids, **config})).to(dtype).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # 0 and 1 would hide what is done to them
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def with_lora(model: Any, **options: Any) -> Any:
    """The model with one adapter, in the model's precision, that is far from 0."""
    values = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options}
    return shake(get_peft_model(model, LoraConfig(**values)).eval(), model.dtype)


def shake(model: Any, dtype: torch.dtype, seed: int = 0) -> Any:
    """Random values for every B of every adapter."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.to(dtype)
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def random_pairs(lengths: Sequence[tuple[int, int, int]], seed: int = 0) -> list[EncodedPair]:
    """Pairs of random tokens; `lengths` are those of prompt, chosen and rejected answer."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, VOCABULARY, (count,), generator=generator).tolist())

    return [
        EncodedPair(str(number), "source", "domain", tokens(prompt), tokens(chosen), tokens(rejected), 0)
        for number, (prompt, chosen, rejected) in enumerate(lengths)
    ]
