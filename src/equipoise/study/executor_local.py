"""Runs of a study as processes of this machine, a few at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from equipoise.study.nursery import Nursery
from equipoise.study.plan_study import Entry
from equipoise.study.process import Child, Ended

Started = Callable[[Entry], None]
Finished = Callable[[Entry, Ended], None]
Executor = Callable[[Sequence[Entry], Path, Started, Finished], None]
"""Called with the runs, the folder of their logs, and what to tell when one starts and when one ends."""


def local(jobs: int) -> Executor:
    """Return an executor that keeps `jobs` processes at work; an interruption stops them, to be resumed later."""

    def execute(entries: Sequence[Entry], logs: Path, started: Started, ended: Finished) -> None:
        waiting, working = deque(entries), dict[Entry, Child]()
        with Nursery() as nursery:
            try:
                while waiting or working:
                    while waiting and len(working) < jobs:
                        entry = waiting.popleft()
                        started(entry)
                        working[entry] = Child(entry, logs / f"{entry.name}.log", nursery.spawn)
                    for entry, child in list(working.items()):
                        result = child.poll()
                        if result is not None:
                            del working[entry]
                            ended(entry, result)
                    time.sleep(0.05)
            finally:
                for child in working.values():
                    child.stop()

    return execute
