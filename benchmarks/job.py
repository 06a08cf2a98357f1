"""What one measurement is asked for, and what it answers; both travel as JSON between processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SETTINGS = ("trl_default", "trl_best", "trl_forced", "equipoise")
SLOW = ("trl_default", "trl_best")
"""Settings that are given fewer pairs and repeats, so that a run does not take hours."""
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
ENVIRONMENT: dict[str, dict[str, str]] = {"trl_best": _KEEP_MEMORY, "trl_forced": _KEEP_MEMORY}
"""Environment of a setting's process. glibc's malloc is told to keep freed memory: large short-lived tensors
otherwise cost a page fault for every 4 KB, every time."""
BETA, LEARNING_RATE, RANK, ALPHA, SEED = 0.02, 1e-4, 8, 16, 0


@dataclass(frozen=True)
class Job:
    """One measurement: a setting on `pairs` pairs of a profile, `batch` of them per optimiser step.

    `dtype` is the precision of every setting but `trl_default`, which has TRL's own.
    """

    setting: str
    profile: str
    model: str
    vocab: int
    pairs: int
    batch: int
    warm_up_pairs: int
    device: str
    dtype: Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Trained:
    """A training call: its parts in seconds, and loss and gradient norm of every optimiser step."""

    reference_s: float
    training_s: float
    losses: list[float]
    norms: list[float]


@dataclass(frozen=True)
class Measured:
    """What a worker answers. Memory in MB (2**20 bytes): resident on the CPU, allocated on a GPU."""

    trained: Trained
    warm_up_s: float
    peak_mb: float
    above_start_mb: float
    options: dict[str, Any]
