"""One run of a study in a process of its own, so that what kills it kills nothing else."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from equipoise.run_folder import Run
from equipoise.study.plan_study import Entry, locked

PATIENCE = 60.0
"""Seconds: how long an earlier process of the same run may take to end, and a stopped one to leave."""
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process(Protocol):
    """What is needed of a process; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code; raises subprocess.TimeoutExpired."""

    def terminate(self) -> None:
        """Ask it to leave."""

    def kill(self) -> None:
        """Make it leave."""


Spawn = Callable[[Sequence[str], Path], Process]
"""Starts `equipoise ARGUMENTS` with its output appended to a file."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the process of a run ended: exit code (negative: the signal), seconds, where, and why it is not done."""

    code: int
    seconds: float
    reason: str
    node: str


class Child:
    """The running process of an entry; its output is appended to `log`."""

    def __init__(self, entry: Entry, log: Path, spawn: Spawn) -> None:
        self._entry, self._log = entry, log
        _await_lock(entry.folder)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            file.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} on {platform.node()}\n".encode())
            self._offset = file.tell()
        self._begun = time.monotonic()
        self._process = spawn(arguments(entry), log)

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs."""
        code = self._process.poll()
        return None if code is None else self._ended(code)

    def wait(self) -> Ended:
        """Wait until it has ended."""
        return self._ended(self._process.wait())

    def stop(self) -> None:
        """Ask it to leave (it can be resumed), and wait until it has left; nothing happens where it has."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self, code: int) -> Ended:
        reason = "" if Run(self._entry.folder).finished else why(code, self._said())
        return Ended(code, time.monotonic() - self._begun, reason, platform.node())

    def _said(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode(errors="replace")


def spawn(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Process:
    """Start a process from nothing; it ends with this one."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "equipoise", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**os.environ, **(environment or {})},
            preexec_fn=partial(die_with, os.getpid()),
        )


def arguments(entry: Entry) -> list[str]:
    """The command line of a run: it begins, or goes on where an earlier process stopped."""
    settings = [part for override in entry.overrides for part in ("--set", override)]
    place = ["--out", str(entry.folder.parent), "--name", entry.name]
    if Run(entry.folder).begun:
        place = ["--resume", str(entry.folder)]
    return ["run", str(entry.recipe), *settings, *place]


def why(code: int, said: str) -> str:
    """Return in one line why a process with this exit code and this output did not finish its run."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory, or by hand)" if -code == signal.SIGKILL else "")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("equipoise: ") and not line.startswith("equipoise: warning")]
    last = errors[-1].removeprefix("equipoise: ") if errors else (lines[-1] if lines else "it said nothing")
    return f"exit code {code}: {last}"


def die_with(parent: int) -> None:
    """Called in a new process: it gets SIGTERM when its parent dies, however that dies (on Linux; elsewhere not)."""
    if _LIBC is not None:
        _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _await_lock(folder: Path) -> None:
    """A process whose parent was killed may need a moment to leave."""
    until = time.monotonic() + PATIENCE
    while locked(folder) and time.monotonic() < until:
        time.sleep(0.1)
