"""One measurement in a process of its own: `python worker.py JOB RESULT`, both JSON files."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from job import Job, Measured
from processes import process_memory
from workload import PROFILES, make_pairs


def main() -> None:
    """Warm up on a few pairs of its own, train, and write what was measured."""
    job = Job(**json.loads(Path(sys.argv[1]).read_text()))
    make_side = _importer(job)
    before = _memory("VmRSS", job.device)
    side = make_side()
    profile = PROFILES[job.profile]

    started = time.perf_counter()
    side.train(make_pairs(profile, job.warm_up_pairs, job.batch, job.vocab, seed=1), job.warm_up_pairs)
    warm_up_s = time.perf_counter() - started

    trained = side.train(make_pairs(profile, job.pairs, job.batch, job.vocab, seed=2), job.batch)
    peak = _memory("VmHWM", job.device)
    measured = Measured(trained, warm_up_s, peak, peak - before, side.options)
    Path(sys.argv[2]).write_text(json.dumps(dataclasses.asdict(measured)))


def _importer(job: Job) -> Any:
    """Import the side's modules, and return what loads its model (memory before and after is compared)."""
    if job.setting == "equipoise":
        import equipoise_side

        return lambda: equipoise_side.Side(job.model, job.device, job.dtype)
    import trl_side
    from trl_settings import setting

    return lambda: trl_side.Side(setting(job.setting, job.dtype), job.model, job.device)


def _memory(field: str, device: str) -> float:
    """MB of this process (`VmRSS` now, `VmHWM` at most), or of what PyTorch had allocated on the GPU."""
    if device != "cpu":
        used = torch.cuda.memory_allocated() if field == "VmRSS" else torch.cuda.max_memory_allocated()
        return used / 2**20
    return process_memory(field)


if __name__ == "__main__":
    main()
