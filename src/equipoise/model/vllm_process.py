"""The other end of `vllm_worker`: starts the process, asks and reads, and says in one line why it ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from equipoise.records import InputError

PATIENCE = 30.0
"""Seconds that a worker gets to end by itself."""
_ERROR = re.compile(r"(?:[A-Za-z_][\w.]*(?:Error|Exception)\b: |.*out of memory).*", re.IGNORECASE)
_ELSEWHERE = "Engine core initialization failed"
"""vLLM's last word where the cause stands further up."""


class WorkerProcess:
    """A running worker with the engine that `settings` describe.

    Raises InputError where the engine does not start, and later where it has ended; the line names its log.
    """

    def __init__(self, settings: Mapping[str, Any], *, where: str) -> None:
        self._where = where
        handle, name = tempfile.mkstemp(prefix="equipoise-vllm-", suffix=".log")
        self._log = Path(name)
        with os.fdopen(handle, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "equipoise.model.vllm_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # what it starts is ended with it
            )
        try:
            self.ask(settings)
        except KeyboardInterrupt:  # which does not reach a process with a session of its own
            self.close(at_once=True)
            raise

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line and return the line that answers it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self, *, at_once: bool = False) -> None:
        """End the worker and what it started; its log goes with it, unless the worker had ended by itself."""
        if self._process.returncode is None:
            self._end(0.0 if at_once else PATIENCE)
            self._log.unlink(missing_ok=True)

    def _end(self, patience: float) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()

    def _ended(self) -> InputError:
        """Why there is no answer; the worker is gone afterwards, its log stays."""
        self._end(PATIENCE)
        status = self._process.returncode
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return InputError(f"{self._where}: vLLM ended ({how}: {reason(self._log)}); its log is {self._log}")


def reason(log: Path) -> str:
    """The line of a log that says why a program ended: its last error, or its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [found[0] for line in lines if (found := _ERROR.search(line)) and _ELSEWHERE not in line]
    memory = [line for line in errors if "out of memory" in line.lower() or "memory utilization" in line.lower()]
    if memory:
        return f"{memory[-1][:300]}: lower gpu_memory_utilization or max_model_len, or use a smaller model"
    return (errors or lines or ["no message"])[-1][:300]
