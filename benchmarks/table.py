"""The result as Markdown: `python benchmarks/table.py RESULT.json` prints it again."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from job import RANK
from workload import PROFILES, SHAPES, minimal_work

HEAD = (
    "setting",
    "pairs/s",
    "training only",
    "peak MB",
    "above start MB",
    "warm-up s",
    "equipoise is faster by",
    "equipoise needs of its memory",
    "share of matmul peak",
)


def markdown(result: Mapping[str, Any]) -> str:
    """One table per profile; medians, with the smallest and largest value where there are several."""
    machine, run = result["machine"], result["settings"]["run"]
    lines = [
        f"{machine['device']}: {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gb']} GB; measured matmul fp32 {machine['fp32_gflops']} GF/s, "
        f"bf16 {machine['bf16_gflops']} GF/s",
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"model {run['model']}, {run['dtype']} (trl_default: fp32 weights, bf16 autocast), "
        f"{run['batch']} pairs per optimiser step; pairs per measurement: "
        + ", ".join(f"{name} {count}" for name, count in run["pairs"].items()),
        "pairs/s is the whole call, reference pass included; the share is that of the least work that this needs, "
        "at the faster of the two rates",
    ]
    for name, measured in result["profiles"].items():
        lines += ["", f"### {name}: {_lengths(name)}", "", *_profile(name, measured, machine, run)]
    return "\n".join(lines)


def _profile(name: str, measured: Mapping[str, Any], machine: Mapping[str, Any], run: Mapping[str, Any]) -> list[str]:
    work = minimal_work(SHAPES[run["model"]], PROFILES[name], run["batch"], RANK)
    ours = measured.get("equipoise")
    lines = [_row(HEAD), _row(["---"] * len(HEAD))]
    for setting, values in measured.items():
        speed = median(values["pairs_per_s"])
        faster, memory = "", ""
        if ours and setting != "equipoise":
            faster = f"{median(ours['pairs_per_s']) / speed:.1f}x"
            peak, above = (ours[name] / values[name] for name in ("peak_mb", "above_start_mb"))
            memory = f"{peak:.2f} ({above:.2f} above start)"
        share = speed * (work.training + work.reference) / (max(machine["bf16_gflops"], machine["fp32_gflops"]) * 1e9)
        lines.append(
            _row(
                [
                    setting,
                    _spread(values["pairs_per_s"]),
                    _spread(values["training_pairs_per_s"]),
                    f"{values['peak_mb']:.0f}",
                    f"{values['above_start_mb']:.0f}",
                    f"{values['warm_up_s']:.0f}",
                    faster,
                    memory,
                    f"{share:.1%}",
                ]
            )
        )
    return lines


def _lengths(name: str) -> str:
    profile = PROFILES[name]
    return f"prompts of {profile.prompt} tokens, answers of {profile.answer} (medians)"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())))
