"""The process of a nursery: imports everything once, then forks a run for each line on stdin.

A line is `{"number": 1, "arguments": [...], "log": "..."}`; the answers are `{"number": 1, "pid": ...}` at once and
`{"number": 1, "code": ...}` when the run has ended. No thread and no accelerator is in use here when it forks.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import select
import signal
import sys
from typing import Any

from equipoise.study.process import die_with

NEEDED = (
    *("equipoise.cli", "equipoise.commands", "equipoise.stages", "equipoise.report.html", "equipoise.report.read"),
    *("equipoise.evaluation.judge", "equipoise.model.server", "equipoise.pocket.world"),
    *("pyarrow.dataset", "pandas"),  # pyarrow imports them when it meets its first table
)
"""What every run needs, those modules as well that it would import on its way."""


def main() -> None:
    """Serve until stdin is closed; then the runs that are there are asked to leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study decides what an interruption means
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints does not get among the answers
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in NEEDED:
        importlib.import_module(name)
    gc.freeze()
    numbers: dict[int, int] = {}
    rest, open_ = b"", True
    while open_ or numbers:
        if open_ and select.select([0], [], [], 0.05)[0]:
            data = os.read(0, 65536)
            open_ = bool(data)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    return become(request, answers)
                numbers[pid] = request["number"]
                _answer(answers, number=request["number"], pid=pid)
            if not open_:
                for pid in numbers:
                    os.kill(pid, signal.SIGTERM)
        _reap(answers, numbers, wait=not open_)


def become(request: dict[str, Any], answers: int) -> None:
    """In the new process: be `equipoise ARGUMENTS`, as if it had been started by itself."""
    die_with(os.getppid())
    os.close(answers)
    for number, (path, flags) in enumerate(
        [("/dev/null", os.O_RDONLY), *[(request["log"], os.O_WRONLY | os.O_CREAT)] * 2]
    ):
        file = os.open(path, flags | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["equipoise", *request["arguments"]]
    try:
        importlib.import_module("equipoise.cli").main()
    except SystemExit as leaving:
        # Taking the interpreter apart, with all that was imported, takes half a second and is of no use here.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1)


def _reap(answers: int, numbers: dict[int, int], *, wait: bool) -> None:
    while numbers:
        pid, status = os.waitpid(-1, 0 if wait else os.WNOHANG)
        if pid == 0:
            return
        _answer(answers, number=numbers.pop(pid), code=os.waitstatus_to_exitcode(status))


def _answer(pipe: int, **news: int) -> None:
    try:
        os.write(pipe, json.dumps(news).encode() + b"\n")
    except BrokenPipeError:  # nobody waits for the answer any more
        return


if __name__ == "__main__":
    main()
