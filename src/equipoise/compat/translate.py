"""From the original program's flags to a recipe. Pure: flags in, plain values and sentences out.

The number of pairs is what the original program would have trained on where its sources were large enough; the shares
are those that were asked for, and are met exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from equipoise.compat.flags import DOMAINS, FLAGS, STAGES
from equipoise.compat.parts import TASKS, Settings, evaluation_of, source_of, stage_of
from equipoise.recipe_parts import NAME
from equipoise.records import InputError

REDDIT_PAIRS = 75286
"""Pairs that the original program made of its Reddit file; `--reddit_sample_rate` is a share of them."""
OUTPUT = "qwen3_reddit_finance_dpo"
PRESETS: dict[str, dict[str, Any]] = {
    "run_3way_hybrid": {
        "use_3way_hybrid": True,
        "beta": 0.02,
        "eval_limit": 250,
        "mtbench_limit": 50,
        "instruct_limit": 50,
        "reddit_limit": 100,
        "exp_tag": "3way_hybrid_mt_bench_fix",
    },
}
"""What a script sets by itself."""
STAGE_DEFAULTS: dict[int, dict[str, Any]] = {
    1: {"name": "general-preservation", "beta": 0.01, "lr": 2e-6, "epochs": 0.25, "lora_r": 8},
    2: {"name": "finance-specialisation", "beta": 0.018, "lr": 3.5e-6, "epochs": 0.75, "lora_r": 12},
    3: {"name": "social-finance", "beta": 0.025, "lr": 4e-6, "epochs": 1.0, "lora_r": 16},
}
"""Stages 1 and 2 as in experiment 7, stage 3 as in experiment 8."""
STAGE_PAIRS = {1: 800, 2: 7558, 3: 504}
STAGE_REDDIT = {2: 0.79, 3: 0.7}
EVERY_DOMAIN = {"improve": dict.fromkeys(("tatqa", "mt_bench.ten", "finance_instruct.ten", "reddit.ten"), 0.0)}
GATES: dict[int, dict[str, Any]] = {
    1: {"improve": {"mt_bench.ten": "1%"}, "on_fail": "stop"},
    2: EVERY_DOMAIN,
    3: EVERY_DOMAIN,
}
MODES = {"use_hybrid": "hybrid", "use_3way_hybrid": "3way_hybrid", "progressive": "progressive"}


def settings_of(program: str, given: Settings) -> dict[str, Any]:
    """Every flag with its value: the default, what the script sets by itself, what was given."""
    return {**{name: flag.default for name, flag in FLAGS.items()}, **PRESETS.get(program, {}), **given}


def mode_of(settings: Settings) -> str:
    """The kind of experiment; raises InputError where two are asked for."""
    chosen = [name for name in MODES if settings[name]]
    if len(chosen) > 1 and chosen != ["use_hybrid", "progressive"]:
        raise InputError(f"{' and '.join(f'--{name}' for name in chosen)}: choose one of them")
    if not settings["progressive"] and settings["stage"] != 1:
        raise InputError(f"--stage {settings['stage']}: stages need --progressive")
    return MODES[chosen[-1]] if chosen else "reddit"


def run_name(settings: Settings) -> str:
    """Name of the run: the tag or the kind of experiment, and for stages which one."""
    tag = settings["exp_tag"] or mode_of(settings)
    if not re.fullmatch(NAME, tag):
        raise InputError(f"--exp_tag {tag!r}: letters, digits, '.', '_' and '-', not beginning with a sign")
    return f"{tag}-stage{settings['stage']}" if settings["progressive"] else tag


def output_dir(settings: Settings) -> str:
    """Folder of the runs: what was given, or the original program's name for this kind of experiment."""
    mode = mode_of(settings)
    return settings["output_dir"] or (OUTPUT if mode == "reddit" else f"{OUTPUT}_{mode}")


def recipe_of(settings: Settings) -> dict[str, Any]:
    """The recipe as plain values; raises InputError for flags that contradict each other.

    With `--progressive` it has the stages up to `--stage`.
    """
    mode = mode_of(settings)
    stages = _progressive(settings) if mode == "progressive" else _at_once(settings, mode)
    used = list(dict.fromkeys(name for stage in stages for name in stage["mix"].get("shares", stage["mix"])))
    return {
        "name": run_name(settings),
        "seed": settings["seed"],
        "model": {"id": settings["model"], **({} if settings["no_4bit"] else {"quantization": "nf4"})},
        "reward": {"id": "Skywork/Skywork-Reward-V2-Qwen3-0.6B"},
        "sources": {name: source_of(name, settings) for name in used if name != "when_short"},
        "stages": stages,
        "evaluation": evaluation_of(settings),
    }


def _pairs(settings: Settings) -> int:
    """Reddit pairs after `--reddit_sample_rate`."""
    return _part(REDDIT_PAIRS, settings["reddit_sample_rate"])


def _part(pairs: int, share: float) -> int:
    return math.floor(pairs * share + 1e-6)  # 0.6 of 22585 is 13551, whatever the last bit says


def _shares(settings: Settings, mode: str) -> tuple[int, dict[str, float]]:
    """Pairs in all, and the share of each source."""
    drawn = _pairs(settings)
    finance = _or(settings["finance_instruct_pairs"], 2000)
    if mode == "reddit":
        return drawn, {"reddit": 1.0}
    if mode == "3way_hybrid":
        shares = {"reddit": settings["reddit_ratio"], "finance": settings["finance_ratio"]}
        shares["general"] = _or(settings["general_ratio"], 0.3)
        total = _part(drawn, shares["reddit"]) + finance + _or(settings["general_pairs"], 3000)
    else:
        reddit = _or(settings["hybrid_ratio"], 0.7)
        shares = {"reddit": reddit, "finance": 1.0 - reddit}
        total = _part(drawn, reddit) + finance
        total, shares = _with_general(settings, total, shares)
    if abs(sum(shares.values()) - 1.0) > 1e-6:
        raise InputError(
            f"--reddit_ratio, --finance_ratio, --general_ratio: they sum to {sum(shares.values()):g}, not to 1"
        )
    return total, shares


def _with_general(settings: Settings, total: int, shares: dict[str, float]) -> tuple[int, dict[str, float]]:
    """A little general data in the two-way mix, where one of its flags was given."""
    pairs, share = settings["general_pairs"], settings["general_ratio"]
    if pairs is None and share is None:
        return total, shares
    total += pairs or 0
    share = _or(share, (pairs or 0) / total)
    return total, {**{name: one * (1.0 - share) for name, one in shares.items()}, "general": share}


def _mix(total: int, shares: Mapping[str, float], settings: Settings) -> dict[str, Any]:
    """The mix of a stage; MT-Bench-style pairs join as a count, and `--limit_pairs` shortens the whole."""
    extra = settings["mtbench_pairs"]
    if extra:
        total += extra
        shares = {**{name: share * (1 - extra / total) for name, share in shares.items()}, "mt_bench": extra / total}
    if settings["limit_pairs"]:
        total = min(total, settings["limit_pairs"])
    # Shares of 12 places: a product such as 0.7 * 0.95 is written as it was meant.
    rounded = {name: round(share, 12) for name, share in shares.items() if share > 0}
    return {"pairs": total, "shares": rounded, "when_short": "shrink"}


def _at_once(settings: Settings, mode: str) -> list[dict[str, Any]]:
    """One stage; where a domain has a rank or rate of its own, each has an adapter of its own in it."""
    mix = _mix(*_shares(settings, mode), settings)
    stage = stage_of(settings, mode, mix)
    own = {name for name in DOMAINS if settings[f"lora_r_{name}"] or settings[f"lr_{name}"]}
    if not own & mix["shares"].keys():
        return [stage]
    return [{**stage, "lora": {name: _adapter(settings, name, stage["lora"]) for name in sorted(mix["shares"])}}]


def _adapter(settings: Settings, domain: str, lora: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter of a domain: `lora` with its own rank, at the same alpha / rank, and its own learning rate."""
    rank, rate = settings.get(f"lora_r_{domain}") or lora["rank"], settings.get(f"lr_{domain}")
    own = {**lora, "rank": rank, "alpha": lora["alpha"] * rank / lora["rank"]}
    return {**own, "learning_rate": rate} if rate else own


def _progressive(settings: Settings) -> list[dict[str, Any]]:
    """The stages up to `--stage`."""
    if settings["stage"] not in STAGES:
        raise InputError(f"--stage {settings['stage']}: stages are 1 to {STAGES[-1]}")
    return [_numbered(settings, number) for number in STAGES if number <= settings["stage"]]


def _numbered(settings: Settings, number: int) -> dict[str, Any]:
    defaults = STAGE_DEFAULTS[number]

    def value(name: str) -> Any:
        return _or(settings[f"stage{number}_{name}"], defaults.get(name))

    if number == 1:
        total, shares = _or(settings["general_pairs"], STAGE_PAIRS[1]), {"general": 1.0}
    else:
        reddit = _or(settings["hybrid_ratio"], STAGE_REDDIT[number])
        total, shares = STAGE_PAIRS[number], {"reddit": reddit, "finance": 1.0 - reddit}
        if settings["finance_instruct_pairs"] is not None and reddit < 1:
            total = round(settings["finance_instruct_pairs"] / (1.0 - reddit))
    rank = value("lora_r")
    changed = {
        "beta": value("beta"),
        "epochs": value("epochs"),
        "learning_rate": value("lr"),
        "lora_r": rank,
        "lora_alpha": _or(value("lora_alpha"), 2.0 * rank),
        "mtbench_pairs": 0 if number == 1 else settings["mtbench_pairs"],
    }
    of_stage = {**settings, **changed}
    return {**stage_of(of_stage, defaults["name"], _mix(total, shares, of_stage)), **_gate(settings, number)}


def _gate(settings: Settings, number: int) -> dict[str, Any]:
    """What the stage had to show, as far as it is evaluated."""
    rule = GATES[number]
    improve = {key: gain for key, gain in rule["improve"].items() if settings[TASKS[key.partition(".")[0]][0]]}
    return {"gate": {**rule, "improve": improve}} if improve else {}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
