"""The flags of the original program, with their defaults; nothing heavy is imported, so that `--help` answers at once.

A flag that was not given does not stand in the parsed arguments: `translate` knows the defaults, and which flags were
given says what has to be explained.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STAGES = (1, 2, 3)
"""Stages of `--progressive`."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its default (None: it depends on the kind of experiment), how its text is read, what it does now."""

    default: Any
    read: Callable[[str], Any]
    help: str


def on_or_off(text: str) -> bool:
    """`true`, `on`, `1`, `yes` and their opposites; raises ArgumentTypeError for anything else."""
    known = {**dict.fromkeys(("true", "on", "1", "yes"), True), **dict.fromkeys(("false", "off", "0", "no"), False)}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return known[text.lower()]


MODEL = {
    "model": Flag("Qwen/Qwen3-1.7B", str, "hub id or folder of the model; `pocket` is the embedded one"),
    "no_4bit": Flag(False, on_or_off, "do not load the frozen weights in 4 bits"),
    "use_chat_template": Flag(False, on_or_off, "always so now, in training and evaluation"),
    "lora_r": Flag(8, int, "rank of the adapter"),
    "lora_alpha": Flag(16.0, float, "scale of the adapter"),
    "lora_dropout": Flag(0.05, float, "dropout on the adapter's input"),
    "target_modules": Flag("q_proj,v_proj", str, "adapted layers, with commas between them, or all-linear"),
    "load_adapter": Flag("", str, "with --no_train: evaluate with this adapter"),
    "adapter_trainable": Flag(False, on_or_off, "adapters of earlier stages stay as they are now"),
}
TRAINING = {
    "beta": Flag(0.03, float, "beta of the DPO loss"),
    "learning_rate": Flag(5e-6, float, "highest learning rate"),
    "batch": Flag(1, int, "times --grad_acc: pairs per optimiser step"),
    "grad_acc": Flag(64, int, "times --batch: pairs per optimiser step"),
    "epochs": Flag(1.0, float, "passes over the pairs"),
    "seed": Flag(42, int, "seed of every random choice"),
    "max_length": Flag(2560, int, "longest prompt and answer in tokens"),
    "max_prompt_length": Flag(1536, int, "longest prompt in tokens"),
    "no_train": Flag(False, on_or_off, "evaluate only"),
    "resume_from_checkpoint": Flag("", str, "go on with the run of this tag, from its last checkpoint"),
}
DATA = {
    "reddit_min_post_chars": Flag(120, int, "shortest post"),
    "reddit_min_comment_chars": Flag(40, int, "shortest comment"),
    "reddit_max_post_chars": Flag(2000, int, "longest post"),
    "reddit_score_margin": Flag(0.10, float, "the chosen comment's score is higher by at least this"),
    "reddit_length_tol": Flag(0.6, float, "lengths differ by at most this share of the longer one"),
    "reddit_max_pairs_per_post": Flag(1, int, "pairs of one post"),
    "reddit_sample_rate": Flag(0.3, float, "share of the 75,286 Reddit pairs"),
    "use_hybrid": Flag(False, on_or_off, "Reddit and Finance-Instruct"),
    "hybrid_ratio": Flag(None, float, "share of Reddit, exactly (0.7)"),
    "finance_instruct_pairs": Flag(None, int, "counts towards the number of pairs in all (2000)"),
    "use_3way_hybrid": Flag(False, on_or_off, "Reddit, Finance-Instruct and general pairs"),
    "reddit_ratio": Flag(0.4, float, "share of Reddit, exactly"),
    "finance_ratio": Flag(0.3, float, "share of Finance-Instruct, exactly"),
    "general_ratio": Flag(None, float, "share of general pairs, exactly (0.3)"),
    "general_pairs": Flag(None, int, "counts towards the number of pairs in all (3000)"),
    "general_dataset": Flag("Intel/orca_dpo_pairs", str, "general pairs: orca, hh-rlhf, or prompt/chosen/rejected"),
    "mtbench_pairs": Flag(0, int, "so many pairs of new questions in the style of MT-Bench"),
    "instruct_complexity_filter": Flag(False, on_or_off, "only finance questions that ask for some thought"),
    "min_response_length": Flag(0, int, "shortest finance answer in characters"),
    "limit_pairs": Flag(0, int, "so many pairs at most (0: all)"),
}
EVALUATION = {
    "eval_baseline": Flag(True, on_or_off, "always so now: base scores are computed once and kept"),
    "do_eval": Flag(True, on_or_off, "evaluate on TAT-QA"),
    "do_mtbench": Flag(True, on_or_off, "evaluate on MT-Bench"),
    "do_instruct": Flag(True, on_or_off, "evaluate on Finance-Instruct"),
    "do_reddit": Flag(True, on_or_off, "evaluate on Reddit"),
    "eval_limit": Flag(1000, int, "questions of TAT-QA"),
    "eval_max_new_tokens": Flag(64, int, "longest answer to TAT-QA"),
    "eval_temperature": Flag(0.2, float, "evaluation is greedy now"),
    "eval_top_p": Flag(0.9, float, "evaluation is greedy now"),
    "tatqa_split": Flag("validation", str, "split of TAT-QA"),
    "tatqa_table_rows": Flag(20, int, "tables are shown whole now"),
    "tatqa_table_cols": Flag(8, int, "tables are shown whole now"),
    "tatqa_para_chars": Flag(1200, int, "passages are shown whole now"),
    "tatqa_only_rel_paras": Flag(True, on_or_off, "all passages are shown now"),
    "mtbench_limit": Flag(50, int, "questions of MT-Bench"),
    "mtbench_max_tokens": Flag(256, int, "longest answer to MT-Bench"),
    "mtbench_file": Flag("mt_bench_en.json", str, "questions; the default is MT-Bench's own 80"),
    "instruct_limit": Flag(25, int, "questions of Finance-Instruct"),
    "instruct_max_tokens": Flag(512, int, "longest answer to Finance-Instruct"),
    "reddit_limit": Flag(100, int, "posts of Reddit"),
    "reddit_max_tokens": Flag(256, int, "longest reply to Reddit"),
}
OUTPUT = {
    "output_dir": Flag(None, str, "folder of the runs (qwen3_reddit_finance_dpo, with _hybrid or _3way_hybrid)"),
    "exp_log": Flag("dpo_experiments.jsonl", str, "one line for each finished run is added here"),
    "exp_tag": Flag("", str, "name of the run"),
}
PROGRESSIVE = {
    "progressive": Flag(False, on_or_off, "train in stages"),
    "stage": Flag(1, int, "which stage; those before it were run under the same tag"),
    **{
        f"stage{number}_{name}": Flag(None, read, f"stage {number}: {help}")
        for number in STAGES
        for name, read, help in (
            ("beta", float, "beta"), ("epochs", float, "passes over the pairs"), ("lr", float, "learning rate"),
            ("lora_r", int, "rank of its adapter"), ("lora_alpha", float, "scale of its adapter"),
        )
    },
}  # fmt: skip
DOMAINS = ("reddit", "finance", "general")
BY_DOMAIN = {
    f"{what}_{domain}": Flag(None, read, f"{domain}: {help}; each domain then has an adapter of its own")
    for what, read, help in (("lora_r", int, "rank of its adapter"), ("lr", float, "learning rate"))
    for domain in DOMAINS
}
GROUPS = {
    "model": MODEL,
    "training": TRAINING,
    "data": DATA,
    "evaluation": EVALUATION,
    "output": OUTPUT,
    "stages": PROGRESSIVE,
    "domains": BY_DOMAIN,
}
FLAGS = {name: flag for group in GROUPS.values() for name, flag in group.items()}


def parser(program: str) -> argparse.ArgumentParser:
    """The parser of one of the original commands; all of them know all flags."""
    made = argparse.ArgumentParser(
        prog=f"{program}.py",
        description="The known command line: shown as a recipe, saved beside the run, and run.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for title, flags in GROUPS.items():
        group = made.add_argument_group(title)
        for name, flag in flags.items():
            names = [f"--{name}", "--tag"] if name == "exp_tag" else [f"--{name}"]
            optional: dict[str, Any] = {"nargs": "?", "const": True} if flag.read is on_or_off else {}
            group.add_argument(*names, dest=name, type=flag.read, help=_help(flag), metavar=_meta(flag), **optional)
    ours = made.add_argument_group("not in the original program")
    ours.add_argument("--show", action="store_true", default=False, help="show the recipe and stop")
    ours.add_argument(
        "--pocket", action="store_true", default=False, help="run the pocket twin: embedded model and data, a minute"
    )
    return made


def _help(flag: Flag) -> str:
    shown = "" if flag.default in (None, "") else f" ({flag.default})"
    return f"{flag.help}{shown}".replace("%", "%%")


def _meta(flag: Flag) -> str:
    return {int: "N", float: "X", on_or_off: "true|false"}.get(flag.read, "TEXT")
