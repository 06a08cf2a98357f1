"""The content-addressed store that runs share: reference log-probabilities, answers, rewards, built sources.

Entries are JSON values under a kind (what it is) and an identity (what they depend on). They live in
shards: files of JSON lines that are named by the sha256 of their own bytes and never change. So a damaged
or edited shard is noticed when it is read, writers in several processes cannot disturb each other, and a
shard either exists whole or not at all. What is one large thing, a table, is kept as one file in the same way.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from equipoise.run_folder import write_bytes


def cache_folder() -> Path:
    """`$EQUIPOISE_CACHE`, by default `~/.cache/equipoise`."""
    return Path(os.environ.get("EQUIPOISE_CACHE") or Path.home() / ".cache" / "equipoise")


class Store:
    """Entries of several kinds below one folder."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder()

    def get(self, kind: str, identity: str) -> dict[str, Any]:
        """Return all entries that were put under `identity`; damaged shards are named and left out."""
        entries: dict[str, Any] = {}
        for data in self._sound(kind, identity, ".jsonl"):
            for line in data.splitlines():
                key, value = json.loads(line)
                entries[key] = value
        return entries

    def put(self, kind: str, identity: str, entries: Mapping[str, Any]) -> None:
        """Add entries under `identity`; raises OSError when they cannot be written."""
        if not entries:
            return
        lines = (json.dumps([key, entries[key]], ensure_ascii=True, allow_nan=False) for key in sorted(entries))
        self._write(kind, identity, ".jsonl", "".join(line + "\n" for line in lines).encode())

    def get_file(self, kind: str, identity: str) -> bytes | None:
        """Return the bytes that were put under `identity`, or None; damaged files are named and left out."""
        return next(self._sound(kind, identity, ".bin"), None)

    def put_file(self, kind: str, identity: str, data: bytes) -> None:
        """Keep bytes under `identity`; raises OSError when they cannot be written."""
        self._write(kind, identity, ".bin", data)

    @contextmanager
    def turn(self, kind: str, identity: str) -> Iterator[None]:
        """Within this context no other process is in the same one: what is expensive is computed by the first.

        The others wait, and look into the store again before they compute. The lock ends with its process, however that
        ends. Where a shared folder knows no locks between machines, something is computed twice, and nothing is wrong.
        """
        path = self.folder / "turns" / f"{kind}-{identity}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, kind: str, identity: str, suffix: str, data: bytes) -> None:
        write_bytes(self.folder / kind / identity / f"{hashlib.sha256(data).hexdigest()}{suffix}", data)

    def _sound(self, kind: str, identity: str, suffix: str) -> Iterator[bytes]:
        """The files whose content matches their name; others are reported and put aside."""
        for path in sorted((self.folder / kind / identity).glob(f"*{suffix}")):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # another process found it damaged, and has put it aside
                continue
            if hashlib.sha256(data).hexdigest() == path.stem:
                yield data
                continue
            print(f"equipoise: {path}: damaged (its content does not match its name); ignored", file=sys.stderr)
            with suppress(FileNotFoundError):  # another process was faster
                path.rename(path.with_suffix(".damaged"))
