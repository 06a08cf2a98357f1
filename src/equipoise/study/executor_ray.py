"""Runs of a study as tasks of a Ray cluster: one run is one task with its share of a GPU.

Ray decides where a run goes, and starts it again on another node when its node is lost. Run folders and stores lie
on a folder that all nodes see; a run that moves goes on from what is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.records import InputError
from equipoise.store import cache_folder
from equipoise.study.executor_local import Executor, Finished, Started
from equipoise.study.plan_study import Entry
from equipoise.study.process import Child, Ended, spawn

RETRIES = 3
"""So many lost nodes a run survives."""
FORWARDED = ("EQUIPOISE_", "HF_HUB_OFFLINE", "OMP_NUM_THREADS")


def cluster(gpus: float | None, *, retries: int = RETRIES) -> Executor:
    """Return an executor on the cluster of `RAY_ADDRESS` (without one: a local one); `gpus` is each run's share.

    By default a run gets one whole GPU where the cluster has any. Raises InputError where Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise InputError("--executor ray: Ray is not installed; do: pip install 'equipoise[cluster]'") from None

    def execute(entries: Sequence[Entry], logs: Path, started: Started, ended: Finished) -> None:
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        share = gpus if gpus is not None else float(ray.cluster_resources().get("GPU", 0) >= 1)
        task = ray.remote(num_cpus=1, num_gpus=share, max_retries=retries)(work)
        where = (str(Path.cwd()), str(logs.resolve()), _environment())
        waiting = {}
        for entry in entries:
            started(entry)
            waiting[task.remote(entry, *where)] = entry
        while waiting:
            for reference in ray.wait(list(waiting), timeout=1.0)[0]:
                ended(waiting.pop(reference), _result(ray, reference))

    return execute


def work(entry: Entry, folder: str, logs: str, environment: Mapping[str, str]) -> Ended:
    """What a node does for a run: the same process as on one machine."""
    os.chdir(folder)
    return Child(entry, Path(logs) / f"{entry.name}.log", partial(spawn, environment=environment)).wait()


def _environment() -> dict[str, str]:
    found = {key: value for key, value in os.environ.items() if key.startswith(FORWARDED)}
    return {**found, "EQUIPOISE_CACHE": str(cache_folder().resolve())}


def _result(ray: Any, reference: Any) -> Ended:
    try:
        ended: Ended = ray.get(reference)
        return ended
    except ray.exceptions.RayError as error:
        return Ended(-1, 0.0, f"ray: {str(error).strip().splitlines()[0]}", "")
