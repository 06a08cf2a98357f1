"""The parts of a recipe that flags describe one by one: a stage, a source, the evaluation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.compat.flags import FLAGS
from equipoise.records import InputError

Settings = Mapping[str, Any]
TASKS = {
    "tatqa": ("do_eval", "eval_limit", "eval_max_new_tokens"),
    "mt_bench": ("do_mtbench", "mtbench_limit", "mtbench_max_tokens"),
    "finance_instruct": ("do_instruct", "instruct_limit", "instruct_max_tokens"),
    "reddit": ("do_reddit", "reddit_limit", "reddit_max_tokens"),
}
"""The flags of each task: whether, how many, how long."""


def with_limits(twin: Mapping[str, Any], given: Settings) -> dict[str, Any]:
    """The pocket twin with no more questions of a task than were asked for; its own numbers are the most."""
    tasks = {
        task: {**spec, "limit": min(spec["limit"], given.get(TASKS[task][1], spec["limit"]))}
        for task, spec in twin["evaluation"]["tasks"].items()
    }
    return {**twin, "evaluation": {**twin["evaluation"], "tasks": tasks}}


def stage_of(settings: Settings, name: str, mix: dict[str, Any]) -> dict[str, Any]:
    """A stage on `mix`, without a gate."""
    modules = [one.strip() for one in settings["target_modules"].split(",") if one.strip()]
    return {
        "name": name,
        "mix": mix,
        "dpo": {
            "beta": settings["beta"],
            "max_length": settings["max_length"],
            "max_prompt_length": settings["max_prompt_length"],
        },
        "optim": {
            "learning_rate": settings["learning_rate"],
            "epochs": settings["epochs"],
            "batch_size": settings["batch"] * settings["grad_acc"],
        },
        "lora": {
            "rank": settings["lora_r"],
            "alpha": settings["lora_alpha"],
            "dropout": settings["lora_dropout"],
            "target_modules": "all-linear" if modules == ["all-linear"] else modules,
        },
    }


def source_of(name: str, settings: Settings) -> dict[str, Any]:
    """The source `reddit`, `finance`, `mt_bench` or `general`, by the original program's rules."""
    if name == "reddit":
        return {
            "kind": "reddit",
            "id": "winddude/reddit_finance_43_250k",
            "rule": "original",
            "margin": settings["reddit_score_margin"],
            "length_tolerance": settings["reddit_length_tol"],
            "min_post_chars": settings["reddit_min_post_chars"],
            "max_post_chars": settings["reddit_max_post_chars"],
            "min_comment_chars": settings["reddit_min_comment_chars"],
            "max_pairs_per_post": settings["reddit_max_pairs_per_post"],
        }
    if name == "finance":
        return {
            "kind": "finance_instruct",
            "id": "Josephgflowers/Finance-Instruct-500k",
            "rejected": "reference_vs_sample",
            "sampling": {"temperature": 0.8, "max_new_tokens": settings["instruct_max_tokens"]},
            "complexity_filter": settings["instruct_complexity_filter"],
            "min_answer_chars": settings["min_response_length"],
        }
    return {"kind": "mt_bench_style"} if name == "mt_bench" else _general(settings["general_dataset"])


def _general(id: str) -> dict[str, Any]:
    if "hh-rlhf" in id:
        return {"kind": "hh", "id": id}
    if "orca" in id.lower():
        return {"kind": "orca", "id": id}
    columns = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
    return {"kind": "table", "id": id, "domain": "general", "columns": columns}


def evaluation_of(settings: Settings) -> dict[str, Any]:
    """What is evaluated; raises InputError where nothing is."""
    chosen = {task: names for task, names in TASKS.items() if settings[names[0]]}
    if not chosen:
        raise InputError("--do_eval, --do_mtbench, --do_instruct, --do_reddit: leave at least one of them on")
    tasks = {task: {"limit": settings[limit]} for task, (_, limit, _) in chosen.items()}
    if "tatqa" in tasks and settings["tatqa_split"] != "validation":
        tasks["tatqa"]["split"] = settings["tatqa_split"]
    if "mt_bench" in tasks and settings["mtbench_file"] != FLAGS["mtbench_file"].default:
        tasks["mt_bench"]["id"] = settings["mtbench_file"]
    longest = {task: settings[tokens] for task, (_, _, tokens) in chosen.items()}
    return {"tasks": tasks, "generation": {"temperature": 0.0, "max_new_tokens": longest}}
