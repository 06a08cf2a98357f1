"""Trains the pocket causal model from nothing: stages that end on a skill, then a long mixed one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from equipoise.pocket.build_tokenizer import END, PAD
from equipoise.pocket.curriculum import LAST_STAGE, STAGES, Stage, row
from equipoise.pocket.heads import shape_heads
from equipoise.pocket.style import seed_of

PEAK_RATE, WARMUP_STEPS, DECAY_SHARE, DECAY_END = 2e-3, 100, 0.35, 0.05
LAST_RATE, LAST_WARMUP_STEPS = 1e-3, 20
SKILL_MEMORY = 0.97  # of the running accuracy, per step
LOG_EVERY = 50


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of about a million parameters, tied embeddings."""
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=4096, rope_theta=1e6, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    model.generation_config.eos_token_id = config.eos_token_id
    model.generation_config.pad_token_id = config.pad_token_id
    return model


def train_lm(
    tokenizer: PreTrainedTokenizerFast,
    *,
    tokens: int,
    seed: int,
    log: Callable[[str], None],
    save: Callable[[Qwen3ForCausalLM], None] | None = None,
) -> Qwen3ForCausalLM:
    """Train on `tokens` tokens in all. `save` is called a few times on the way with the unfinished model."""
    torch.manual_seed(seed)
    rng = random.Random(seed_of("lm", seed))
    model = new_model(tokenizer)
    shape_heads(model)
    optimiser = _optimiser(model)
    encode = _cached(tokenizer)
    stage, seen, step, started, saved = 0, 0, 0, time.monotonic(), 0
    skill: dict[str, float] = {}
    while seen < tokens:
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * rate(step, seen / tokens)
        ids, weights, kinds = batch(STAGES[stage], rng, encode)
        loss, right = step_loss(model, ids, weights, kinds)
        _update(model, optimiser, loss)
        for kind, share in right.items():
            skill[kind] = SKILL_MEMORY * skill.get(kind, 0.0) + (1 - SKILL_MEMORY) * share
        seen, step = seen + ids.numel(), step + 1
        if step % LOG_EVERY == 0:
            told = {kind: round(value, 3) for kind, value in skill.items()}
            log(f"lm step {step} tokens {seen} stage {stage} loss {loss.item():.3f} {json.dumps(told)} "
                f"{time.monotonic() - started:.0f}s")  # fmt: skip
        leave = STAGES[stage].leave_at
        if leave and all(skill.get(kind, 0.0) >= bound for kind, bound in leave.items()):
            log(f"lm stage {stage} done at {seen} tokens, {time.monotonic() - started:.0f}s")
            stage, skill = stage + 1, {}
        if save and stage == len(STAGES) - 1 and seen // 1_500_000 > saved:
            saved = seen // 1_500_000
            save(model)
    return model


def settle(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, *, tokens: int, seed: int, log: Callable[[str], None]
) -> None:
    """The last stage: `tokens` tokens in the settled manner at a rate that falls to zero; changes the model."""
    rng = random.Random(seed_of("settle", seed))
    optimiser = _optimiser(model)
    encode = _cached(tokenizer)
    model.train()
    steps = tokens // (LAST_STAGE.batch * LAST_STAGE.length)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LAST_RATE * min(1.0, (step + 1) / LAST_WARMUP_STEPS) * (1 - step / steps)
        ids, weights, kinds = batch(LAST_STAGE, rng, encode)
        loss, right = step_loss(model, ids, weights, kinds)
        _update(model, optimiser, loss)
        if (step + 1) % LOG_EVERY == 0:
            told = {kind: round(value, 3) for kind, value in right.items()}
            log(f"lm last stage step {step + 1}/{steps} loss {loss.item():.3f} {json.dumps(told)}")


def _optimiser(model: Qwen3ForCausalLM) -> torch.optim.Optimizer:
    """AdamW; matrices decay, gains do not."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98), fused=True)


def _update(model: Qwen3ForCausalLM, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def rate(step: int, done: float) -> float:
    """Learning-rate factor: warm-up, then flat, then linear to 5% over the last third."""
    decay = 1.0 if done < 1 - DECAY_SHARE else 1 - (1 - DECAY_END) * (done - 1 + DECAY_SHARE) / DECAY_SHARE
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def batch(stage: Stage, rng: random.Random, encode: Callable[[str], list[int]]) -> tuple[Tensor, Tensor, list[str]]:
    """ids [batch, length], weights [batch, length] of each token as a target, kind of each row."""
    made = [row(stage, rng, encode) for _ in range(stage.batch)]
    return torch.tensor([m[0] for m in made]), torch.tensor([m[1] for m in made]), [m[2] for m in made]


def step_loss(
    model: Qwen3ForCausalLM, ids: Tensor, weights: Tensor, kinds: list[str]
) -> tuple[Tensor, dict[str, float]]:
    """Weighted cross-entropy over the weighted targets, and the share of right full-weight targets by kind.

    Only weighted positions meet the vocabulary: most of the head's work would be thrown away otherwise.
    """
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    targets, weight = ids[:, 1:], weights[:, 1:]
    rows, columns = weight.nonzero(as_tuple=True)
    logits = model.lm_head(hidden[rows, columns])
    wanted, factor = targets[rows, columns], weight[rows, columns]
    loss = (functional.cross_entropy(logits, wanted, reduction="none") * factor).sum() / factor.sum()
    hit = (logits.detach().argmax(-1) == wanted).float()
    right: dict[str, float] = {}
    for kind in sorted(set(kinds)):
        mine = torch.tensor([k == kind for k in kinds])[rows] & (factor == 1.0)
        if mine.any():
            right[kind] = hit[mine].mean().item()
    return loss, right


def _cached(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], list[int]]:
    """Encoding without the wrapper's overhead; the same short pieces come again and again."""
    core = tokenizer.backend_tokenizer
    known: dict[str, list[int]] = {}

    def encode(text: str) -> list[int]:
        if len(text) > 24:
            return list(core.encode(text, add_special_tokens=False).ids)
        if text not in known:
            known[text] = list(core.encode(text, add_special_tokens=False).ids)
        return known[text]

    return encode


def save_bf16(model: nn.Module, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Model and tokenizer in the hub's layout, weights rounded to bf16; the model itself stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=rounded)  # type: ignore[operator]
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
