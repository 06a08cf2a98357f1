"""Who holds a run: the process that wrote its name into `.lock`, and whether that process still lives.

A lock cannot be looked at without trying to take it, and a run must not know that it is watched. So the process that
has it leaves a mark in the file, and whoever watches compares the mark with the processes of this machine.
"""

from __future__ import annotations

import json
import os
import platform
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any


def mark() -> dict[str, Any]:
    """The mark of this process: its number, when it started, and where such numbers mean the same."""
    return {"pid": os.getpid(), "started": _started(os.getpid()), "place": _place()}


def lives(lock: Path) -> bool | None:
    """Whether the process that last held this lock still lives; None where that cannot be seen from here.

    It cannot be seen where the process runs on another machine, or where an older version left no mark.
    """
    try:
        found = json.loads(lock.read_text(encoding="utf-8"))
        if found == {}:
            return False  # it was given back
        pid, started, place = int(found["pid"]), found["started"], found["place"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if place != _place():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # it is there and belongs to somebody else, or the number is none: the time of its start decides
    return bool(_started(pid) == started)


@cache
def _place() -> str:
    """One name for all processes that see the same process numbers; a hash, since host names are private."""
    parts = [platform.node()]
    boot, numbers = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.is_file():
        parts += [boot.read_text(), str(numbers.readlink())]
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the machine did: numbers are used again, this pair is not.

    None where the system does not say, or where the process has ended and nobody has asked how yet.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
