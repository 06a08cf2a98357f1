"""Where runs are started quickly: one process has imported everything, and each run is a copy of it (fork).

Importing torch and transformers takes several seconds of computing, for small models as long as a tenth of a run. A
forked run is a process like any other: it can be killed alone, and it ends with the study.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from equipoise.study.process import Process, die_with

LOST = -int(signal.SIGTERM)
"""Exit code of runs whose nursery was killed: they end with it."""


class Nursery:
    """The process that has imported everything; it is started when it is first needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._pids: dict[int, int] = {}
        self._codes: dict[int, int] = {}
        self._count = 0

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()

    def spawn(self, arguments: Sequence[str], log: Path) -> Process:
        """Start `equipoise ARGUMENTS`, its output appended to `log`."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "equipoise.study.nursery_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                preexec_fn=partial(die_with, os.getpid()),
            )
            self._rest = b""
        assert self._process.stdin is not None
        self._count += 1
        request = {"number": self._count, "arguments": list(arguments), "log": str(log)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return _Forked(self, self._count)

    def code(self, number: int, wait: float = 0.0) -> int | None:
        """Exit code of a run, None while it is there; waits up to `wait` seconds for news."""
        if number not in self._codes:
            self._listen(wait)
        return self._codes.get(number)

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a run that is there."""
        while number not in self._pids and self.code(number, 0.1) is None:
            pass
        if self.code(number) is None:
            os.kill(self._pids[number], what)

    def _listen(self, wait: float) -> None:
        """Take in what the process has said; where it is gone its runs are as well."""
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        if not select.select([pipe], [], [], wait)[0]:
            return
        data = os.read(pipe, 65536)
        if not data:
            self._process.wait()
            self._codes = dict.fromkeys(range(1, self._count + 1), LOST) | self._codes
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            news: dict[str, Any] = json.loads(line)
            if "code" in news:
                self._codes[news["number"]] = news["code"]
            else:
                self._pids[news["number"]] = news["pid"]


class _Forked:
    """A run that a nursery has started, as `process.Process`."""

    def __init__(self, nursery: Nursery, number: int) -> None:
        self._nursery, self._number = nursery, number

    def poll(self) -> int | None:
        return self._nursery.code(self._number)

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self._nursery.code(self._number, 0.1)) is None:
            if until is not None and timeout is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("equipoise run", timeout)
        return code

    def terminate(self) -> None:
        self._nursery.signal(self._number, signal.SIGTERM)

    def kill(self) -> None:
        self._nursery.signal(self._number, signal.SIGKILL)
