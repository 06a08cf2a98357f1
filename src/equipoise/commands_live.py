"""The bodies of `watch` and `ui`: both read run folders, and write and lock nothing."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from equipoise import watch
from equipoise.cli_base import print_json
from equipoise.records import InputError
from equipoise.watch_read import Reader

EVERY = 1.0
"""Seconds between two looks at a run."""


def watch_command(folder: Path, once: bool, as_json: bool) -> int:
    """Follow a run to its end; returns 0 where every gate passed, 1 where one refused or the run died, 130 on Ctrl-C.

    One snapshot (`once`, `as_json`) is no judgement of the run: it returns 0.
    """
    reader = Reader()
    seen = watch.look(folder, reader)
    if as_json:
        print_json(asdict(seen))
        return 0
    from rich.console import Console

    from equipoise.watch_show import rendered

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    if not once:
        try:
            seen = _follow(folder, reader, seen, console.is_terminal)
        except KeyboardInterrupt:
            return 130
    console.print(rendered(seen))
    return 0 if once or seen.passed else 1


def _follow(folder: Path, reader: Reader, seen: watch.Snapshot, terminal: bool) -> watch.Snapshot:
    """Show the run until it has ended or died; returns the last look."""
    if seen.state not in ("running", "silent"):
        return seen
    if terminal:
        return _follow_live(folder, reader, seen)
    from equipoise.watch_show import event_line

    told, warned = 0.0, False
    while True:
        for event in seen.events:
            if event["time"] > told:
                told = event["time"]
                print(event_line(event), flush=True)
        if seen.state not in ("running", "silent"):
            return seen
        if seen.state == "silent" and not warned:
            warned = True
            print(seen.said, flush=True)
        time.sleep(EVERY)
        seen = watch.look(folder, reader)


def _follow_live(folder: Path, reader: Reader, seen: watch.Snapshot) -> watch.Snapshot:
    from rich.live import Live

    from equipoise.watch_show import rendered

    with Live(rendered(seen), auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        while seen.state in ("running", "silent"):
            time.sleep(EVERY)
            seen = watch.look(folder, reader)
            live.update(rendered(seen), refresh=True)
    return seen


def ui_command(folder: Path, port: int, host: str) -> int:
    """Serve the web app on this machine alone, until it is interrupted; returns 130.

    Raises InputError where the folder is absent, a host is not this machine, the port is taken, or a package is
    missing.
    """
    if host not in ("127.0.0.1", "localhost"):
        raise InputError(
            f"--host {host}: the app listens on 127.0.0.1 alone, since it has no login; from another machine, use "
            f"ssh -L {port or 8321}:127.0.0.1:{port or 8321}"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder that your runs are in")
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise InputError(f"ui: {missing[0]} is not installed: pip install 'equipoise[ui]'")
    from equipoise.ui.serve import serve

    with suppress(KeyboardInterrupt):  # the way in which it is ended
        serve(folder, port)
    return 130
