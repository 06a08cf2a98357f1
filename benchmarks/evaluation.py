"""Items per second of an evaluation, side by side with lm-evaluation-harness: `python benchmarks/evaluation.py`.

Both answer the same prompts greedily and score the same answers in fp32 with the same model, alternating, every
measurement in a process of its own (`evaluation_sides.py`). The harness (its Hugging Face backend, `[lm-eval]`) is
measured at several batch sizes and goes on with the fastest; equipoise has the recipe's default.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from evaluation_sides import Job
from processes import HERE, run_python

RESULT = HERE / "results" / "evaluation.json"
BATCHES = (16, 32, 64)
BATCH = 64
"""Rows of equipoise: `generation.batch_size` of a recipe that does not name it."""
SIZES = {"pocket": (240, 64), "large": (48, 64)}
"""Prompts, and the longest answer in tokens."""
SCORED = 240
"""Answers, two of each pair."""


def main() -> None:
    """Run what the command line asks for and print the table."""
    parser = _parser()
    options = parser.parse_args()
    changed = any(value != parser.get_default(name) for name, value in vars(options).items())
    out = options.out or (None if changed else RESULT)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        about = json.loads(run_python("machine.py", "cpu", threads=options.threads))
        lengths = json.loads(run_python("evaluation_workload.py", name, threads=options.threads).splitlines()[-1])
        about["versions"]["lm_eval"] = importlib.metadata.version("lm_eval")
        settings = {"repeats": options.repeats, "threads": options.threads, "batch": BATCH, "lengths": lengths}
        result: dict[str, Any] = {**about, "settings": settings, "models": {}}
        for model in options.models:
            measured = result["models"][model] = {}
            for work in ("generate", "score"):
                measured[work] = _side_by_side(work, model, folder, options)
                _write(out, result)
            measured["generate_invariant"] = _alone("generate_invariant", model, folder, options)
        result["reward"] = _alone("reward", "pocket", folder, options)
    _write(out, result)
    print(f"\n{markdown(result)}\n\n{f'written: {out}' if out else 'not written: give --out to keep it'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3, help="measurements per side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: every core")
    parser.add_argument("--auto", action="store_true", help="also the harness's own choice of a batch size, once")
    parser.add_argument("--out", type=Path, help="result file; without it only a run without options is written")
    return parser


def _write(path: Path | None, result: Mapping[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def _side_by_side(work: str, model: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The harness at every batch size once, then both sides alternating."""
    tried = {batch: _measure("lm_eval", work, model, folder, batch, options) for batch in BATCHES}
    best = min(tried, key=lambda batch: float(tried[batch]["seconds"]))
    harness, own = [tried[best]], [_measure("equipoise", work, model, folder, BATCH, options)]
    for _ in range(options.repeats - 1):
        harness.append(_measure("lm_eval", work, model, folder, best, options))
        own.append(_measure("equipoise", work, model, folder, BATCH, options))
    automatic = [_measure("lm_eval", work, model, folder, "auto", options)] if options.auto else []
    return {
        "harness_batches": {str(batch): round(found["seconds"], 2) for batch, found in tried.items()},
        "harness_batch": best,
        "lm_eval": _summary(harness),
        "equipoise": _summary(own),
        "agreement": _agreement(work, own[0]["output"], harness[0]["output"]),
        **({"lm_eval_auto": _summary(automatic)} if automatic else {}),
    }


def _alone(work: str, model: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    return _summary([_measure("equipoise", work, model, folder, BATCH, options) for _ in range(options.repeats)])


def _measure(
    side: str, work: str, model: str, folder: Path, batch: int | str, options: argparse.Namespace
) -> dict[str, Any]:
    items, new = SIZES[model] if work.startswith("generate") else (SCORED, 0)
    where = "pocket" if model == "pocket" else str(folder / model)
    job = Job(side, work, where, str(folder), items, new, batch)
    printed = run_python("evaluation_sides.py", json.dumps(dataclasses.asdict(job)), threads=options.threads)
    measured: dict[str, Any] = json.loads(printed.splitlines()[-1])
    print(
        f"{model} {work} {side} (batch {batch}): {items / measured['seconds']:.1f} items/s, "
        f"peak {measured['peak_mb']:.0f} MB",
        flush=True,
    )
    return measured


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds of all repeats, the largest memory, and how many items there were."""
    summary = {
        "items": len(runs[0]["output"]),
        "items_per_s": round(len(runs[0]["output"]) / median(run["seconds"] for run in runs), 2),
        "seconds": [round(run["seconds"], 3) for run in runs],
        "cpu_seconds": [round(run["cpu_seconds"], 3) for run in runs],
        "peak_mb": round(max(run["peak_mb"] for run in runs)),
        "above_start_mb": round(max(run["above_start_mb"] for run in runs)),
        "same_every_time": all(run["output"] == runs[0]["output"] for run in runs),
    }
    first = runs[0]["output"][0]
    tokens = [one[1] for one in runs[0]["output"]] if isinstance(first, list) and first[1] is not None else []
    return {**summary, **({"tokens_mean": round(sum(tokens) / len(tokens), 1)} if tokens else {})}


def _agreement(work: str, own: Sequence[Any], harness: Sequence[Any]) -> dict[str, float]:
    """How far the outputs of both sides agree."""
    if work == "score":
        return {"largest_difference_nats": max(abs(a - b) for a, b in zip(own, harness, strict=True))}
    same = sum(a[0] == b[0] for a, b in zip(own, harness, strict=True))
    return {"identical_answers": same / len(own), "different_texts": len({text for text, _ in own})}


def markdown(result: Mapping[str, Any]) -> str:
    """Speed, memory and agreement for each model and work."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {result['settings']['threads']} threads; {versions}",
        "",
        "| model | work | lm_eval items/s (batch) | equipoise items/s | ratio (CPU time) | lm_eval peak MB | "
        "equipoise peak MB | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, works in result["models"].items():
        for work in ("generate", "score"):
            found = works[work]
            harness, own = found["lm_eval"], found["equipoise"]
            agreed = ", ".join(f"{name.replace('_', ' ')}: {value:.3g}" for name, value in found["agreement"].items())
            wall, cpu = (median(harness[name]) / median(own[name]) for name in ("seconds", "cpu_seconds"))
            lines.append(
                f"| {model} | {work} | {_rate(harness)} ({found['harness_batch']}) | {_rate(own)} | "
                f"{wall:.2f} ({cpu:.2f}) | {harness['peak_mb']} | {own['peak_mb']} | {agreed} |"
            )
        alone = works["generate_invariant"]
        lines.append(f"| {model} | generate, batch-invariant | | {_rate(alone)} | | | {alone['peak_mb']} | |")
    reward = result["reward"]
    return "\n".join([*lines, f"| pocket | rewards | | {_rate(reward)} | | | {reward['peak_mb']} | |"])


def _rate(summary: Mapping[str, Any]) -> str:
    """Median and range of items per second."""
    rates = [summary["items"] / seconds for seconds in summary["seconds"]]
    spread = f" ({min(rates):.1f}-{max(rates):.1f})" if len(rates) > 1 else ""
    return f"{median(rates):.1f}{spread}"


if __name__ == "__main__":
    main()
