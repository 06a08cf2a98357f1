"""What every test gets: a store of its own, one torch thread per test process, no hub."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads cost more than they give
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real public data; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("EQUIPOISE_REAL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set EQUIPOISE_REAL_DATA to the folder of real data")
    return folder
