"""Every part of the benchmark that needs torch runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

HERE = Path(__file__).resolve().parent
NOTHING: Mapping[str, str] = MappingProxyType({})


def run_python(script: str, *arguments: str, threads: int, environment: Mapping[str, str] = NOTHING) -> str:
    """Run a script of this folder with the same Python, offline, on the asked number of threads.

    Returns what it printed; where it fails, its last words are shown and the benchmark ends with its exit code.
    """
    values = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env={**os.environ, **values, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        print(f"dpo_step: {script} failed with exit code {done.returncode}", file=sys.stderr)
        sys.exit(done.returncode if done.returncode > 0 else 1)
    return done.stdout


def process_memory(field: str) -> float:
    """MB that this process holds (`VmRSS`) or held at most (`VmHWM`)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this benchmark needs Linux")
