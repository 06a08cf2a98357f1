"""The web app in a process of its own: started, asked once, interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import equipoise


def ask_ui(folder: Path, *words: str) -> str:
    """Start `equipoise ui` in `folder`, read its page, interrupt it; returns the page. It must end with 130."""
    command = [sys.executable, "-m", "equipoise", "ui", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(equipoise.__file__).parents[1])}
    started = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+/", said)):
            line = started.stdout.readline()
            assert line, f"the app ended: {said}"
            said += line
        with urllib.request.urlopen(found[0], timeout=60) as answer:
            page: str = answer.read().decode()
        started.send_signal(signal.SIGINT)
        assert started.wait(30) == 130
        return page
    finally:
        started.kill()
        started.wait()
