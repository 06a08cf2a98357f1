"""Builds the pocket: `python -m equipoise.pocket.build --out DIR` trains tokenizer, model and reward from nothing.

`--evaluate-only` computes the figures of a folder that is there, from the bf16 weights as they are shipped. The log
goes to DIR/build.log, the figures to DIR/figures.json. `--tokens` and `--reward-steps` shorten a trial.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from equipoise.pocket import build_reward, figures, stamp, verify
from equipoise.pocket.build_lm import save_bf16, settle, train_lm
from equipoise.pocket.build_tokenizer import train_tokenizer

TOKENS, LAST_TOKENS, REWARD_STEPS = 7_000_000, 1_000_000, 700
Log = Callable[[str], None]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="training tokens of the language model")
    parser.add_argument("--reward-steps", type=int, default=REWARD_STEPS)
    parser.add_argument("--threads", type=int, default=1, help="other values change the rounding, so the weights")
    parser.add_argument("--evaluate-only", action="store_true", help="figures of the weights in --out, no training")
    parser.add_argument("--settle-only", action="store_true", help="last stage and reward model on the model in --out")
    parser.add_argument("--reward-only", action="store_true", help="train the reward model on the model in --out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.evaluate_only:
        write_figures(options.out, print)
        return
    resumed = options.reward_only or options.settle_only
    with (options.out / "build.log").open("a" if resumed else "w", encoding="utf-8") as file:
        log = _logger(file)
        if not resumed:
            build_model(options.out, options.tokens, options.seed, log)
        if not options.reward_only:
            settle_model(options.out, min(LAST_TOKENS, options.tokens), options.seed, log)
        build_reward_model(options.out, options.reward_steps, options.seed, log)
        write_figures(options.out, log)


def build_model(out: Path, tokens: int, seed: int, log: Log) -> None:
    """Tokenizer and language model into `out/model`."""
    tokenizer = train_tokenizer(seed)
    log(f"tokenizer: {len(tokenizer)} tokens")

    def save(model: Qwen3ForCausalLM) -> None:
        save_bf16(model, tokenizer, out / "model")
        stamp(out / "model")

    save(train_lm(tokenizer, tokens=tokens, seed=seed, log=log, save=save))


def settle_model(out: Path, tokens: int, seed: int, log: Log) -> None:
    """The language model's last stage, from the saved weights and back to them."""
    tokenizer, model = load_model(out / "model")
    settle(model, tokenizer, tokens=tokens, seed=seed, log=log)
    save_bf16(model, tokenizer, out / "model")
    stamp(out / "model")


def build_reward_model(out: Path, steps: int, seed: int, log: Log) -> None:
    """Reward model from the saved language model into `out/reward`, with calibration and sanity cases."""
    tokenizer, lm = load_model(out / "model")
    reward = build_reward.train_reward(lm, tokenizer, steps=steps, seed=seed, log=log)
    tokenizer, _ = load_model(out / "model")  # training left its padding in the tokenizer
    save_bf16(reward, tokenizer, out / "reward")
    stamp(out / "reward")
    tokenizer, reward = load_reward(out / "reward")
    _write_json(out / "reward" / "calibration.json", build_reward.calibration(reward, tokenizer))
    _write_json(out / "reward" / "sanity.json", build_reward.sanity())


def write_figures(out: Path, log: Log) -> None:
    """All figures from the weights on disk (bf16 numbers held in fp32)."""
    started = time.monotonic()
    tokenizer, model = load_model(out / "model")
    _, reward = load_reward(out / "reward")
    told: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": sum(file.stat().st_size for folder in ("model", "reward") for file in (out / folder).iterdir()),
        "vocabulary": len(tokenizer),
        "tatqa": figures.table_figures(model, tokenizer),
        "tatqa_unseen_row_names": figures.table_figures(model, tokenizer, n=400, unseen=True),
        "chat": figures.chat_figures(model, tokenizer, reward),
        "reward_accuracy": build_reward.accuracy(reward, tokenizer),
        "same_text_in_bf16": figures.same_in_bf16(model, tokenizer),
    }
    _write_json(out / "figures.json", told)
    log(json.dumps(told, indent=2))
    log(f"figures: {time.monotonic() - started:.0f} s")


def load_model(folder: Path) -> tuple[PreTrainedTokenizerFast, Qwen3ForCausalLM]:
    """Verified tokenizer and model, in fp32."""
    verify(folder)
    return AutoTokenizer.from_pretrained(folder), Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def load_reward(folder: Path) -> tuple[PreTrainedTokenizerFast, Qwen3ForSequenceClassification]:
    """Verified tokenizer and reward model, in fp32."""
    verify(folder)
    model = Qwen3ForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(folder), model


def _logger(file: Any) -> Log:
    def log(line: str) -> None:
        print(line, flush=True)
        file.write(line + "\n")
        file.flush()

    return log


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
