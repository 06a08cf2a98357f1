"""What flags do now whose old meaning was a fault, or has gone: one line for each that was given. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from equipoise.compat.flags import BY_DOMAIN, DOMAINS, PROGRESSIVE
from equipoise.compat.parts import TASKS

SHARES = "the shares are met exactly (they were upper bounds, and the largest source filled the rest)"
COUNTS = "counts towards the number of pairs in all, which the shares divide (it was an upper bound of its source)"
GREEDY = "answers are greedy (they were sampled, so that an unchanged model scored differently each time)"
WHOLE = "tables and passages are shown whole (they were cut, sometimes with the answer)"
APART = "each domain has an adapter of its own; all are active, and each learns from its own domain's pairs alone"
MEANINGS = {
    "hybrid_ratio": SHARES,
    "reddit_ratio": SHARES,
    "finance_ratio": SHARES,
    "general_ratio": SHARES,
    "finance_instruct_pairs": COUNTS,
    "general_pairs": COUNTS,
    "reddit_sample_rate": f"of 75,286 pairs; {COUNTS}",
    "reddit_score_margin": "where no comment is worse by it there is no pair (the lowest one was taken all the same)",
    "mtbench_pairs": "new questions in MT-Bench's categories, never its own (which were to be used)",
    "eval_temperature": GREEDY,
    "eval_top_p": GREEDY,
    "tatqa_table_rows": WHOLE,
    "tatqa_table_cols": WHOLE,
    "tatqa_para_chars": WHOLE,
    "tatqa_only_rel_paras": WHOLE,
    "use_chat_template": "always so, in training and evaluation alike (training had plain text)",
    "eval_baseline": "always so; the scores are computed once for each model and kept",
    "adapter_trainable": "earlier adapters stay as they are, and each stage trains a new one on top",
    "stage": "a run has the stages up to this one; those that were run under this tag are not trained again",
    "limit_pairs": "of the mix as a whole, so that its shares stay",
    **dict.fromkeys(("lora_r_finance", "lora_r_general", "lora_r_reddit"), APART),
    **dict.fromkeys(("lr_finance", "lr_general", "lr_reddit"), APART),
}
FINANCE = {"hybrid_ratio", "finance_instruct_pairs", "instruct_complexity_filter", "min_response_length"}
GENERAL = {"general_ratio", "general_pairs", "general_dataset"}
THREE = {"reddit_ratio", "finance_ratio"}
UNUSED: dict[str, set[str]] = {
    "reddit": FINANCE | GENERAL | THREE | PROGRESSIVE.keys() - {"progressive", "stage"},
    "hybrid": THREE | PROGRESSIVE.keys() - {"progressive", "stage"},
    "3way_hybrid": {"hybrid_ratio"} | PROGRESSIVE.keys() - {"progressive", "stage"},
    "progressive": {"beta", "learning_rate", "epochs", "lora_r", "lora_alpha", "reddit_sample_rate", "general_ratio"}
    | THREE
    | BY_DOMAIN.keys(),
}
"""Flags that say nothing about a kind of experiment."""
REPLACED = {
    *("model", "no_4bit", "target_modules", "batch", "grad_acc", "max_length", "max_prompt_length"),
    *("reddit_min_post_chars", "reddit_min_comment_chars", "reddit_max_post_chars", "reddit_length_tol"),
    *("reddit_max_pairs_per_post", "general_dataset", "min_response_length", "tatqa_split", "mtbench_file"),
    *(tokens for _, _, tokens in TASKS.values()),
}
"""Flags whose value the pocket twin replaces by its own."""


def meanings(given: Mapping[str, Any], mode: str, drawn: Collection[str] = DOMAINS) -> list[str]:
    """One sentence for each new meaning, with the flags that were given for it, in a fixed order.

    `mode` is the kind of experiment: flags that say nothing about it share the last sentence. `drawn` are the sources
    of the mix: a flag of a domain without pairs has nothing to act on.
    """
    found: dict[str, list[str]] = {}
    for flag, meaning in MEANINGS.items():
        if flag in given and flag not in UNUSED[mode]:
            domain = flag.rpartition("_")[2]
            if flag in BY_DOMAIN and domain not in drawn:
                meaning = f"nothing to act on: there are no {domain} pairs in this mix"
            found.setdefault(meaning, []).append(f"--{flag}")
    idle = [f"--{flag}" for flag in given if flag in UNUSED[mode]]
    if idle:
        own = "; stages have --stageN_beta and the like" if mode == "progressive" else ""
        found[f"not used in this kind of experiment ({mode}){own}"] = idle
    return [f"{', '.join(flags)}: {meaning}" for meaning, flags in found.items()]


def replaced(given: Mapping[str, Any], mode: str) -> list[str]:
    """What `--pocket` does with flags that were given: one sentence for each thing, with its flags."""
    own = [f"--{flag}" for flag in given if flag in REPLACED - UNUSED[mode]]
    limits = [f"--{limit}" for _, limit, _ in TASKS.values() if limit in given]
    return [
        *([f"{', '.join(own)}: the pocket twin has its own"] if own else []),
        *([f"{', '.join(limits)}: the pocket twin's own number where that is smaller"] if limits else []),
    ]
