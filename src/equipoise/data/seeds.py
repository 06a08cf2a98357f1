"""Random generators that are named, so that no draw depends on how many draws came before it."""

from __future__ import annotations

import hashlib

import numpy as np

from equipoise.records import canonical


def generator(*parts: str | int) -> np.random.Generator:
    """The generator that belongs to these words and numbers: the same in every process, on every machine."""
    digest = hashlib.sha256(canonical(list(parts)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
