"""The machine as it is, and its measured speed of large matrix products: `python machine.py DEVICE` prints JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "equipoise")
SIDE = {"cpu": 2048, "cuda": 8192}
SECONDS = 2.0


def describe(device: str) -> dict[str, Any]:
    """Processor, memory, threads, and the best rate of a square matrix product in fp32 and bf16."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
    }
    facts["fp32_gflops"] = round(_matmul_rate(torch.float32, device) / 1e9)
    facts["bf16_gflops"] = round(_matmul_rate(torch.bfloat16, device) / 1e9)
    return facts


def versions() -> dict[str, str]:
    """Versions of the packages that matter; "not installed" where a package has no metadata."""
    found = {dist.metadata["Name"].lower(): dist.version for dist in importlib.metadata.distributions()}
    return {name: found.get(name, "not installed") for name in PACKAGES}


def _matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Operations per second of the fastest product within some seconds (others may use the machine)."""
    side = SIDE["cpu" if device == "cpu" else "cuda"]
    a, b = (torch.randn(side, side, dtype=torch.float32, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    best = float("inf")
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    print(json.dumps({"machine": describe(sys.argv[1]), "versions": versions()}))
