"""The store: whole or absent, damage is noticed, several processes do not disturb each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from equipoise.store import Store


def test_put_and_get(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("kind", "x") == {}
    store.put("kind", "x", {"a": [1.5, None], "b": "ü\ud800"})
    store.put("kind", "x", {"c": 0.1 + 0.2})
    assert store.get("kind", "x") == {"a": [1.5, None], "b": "ü\ud800", "c": 0.1 + 0.2}
    assert store.get("kind", "y") == {}


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-5], lambda data: data.replace(b"1.5", b"2.5"), lambda data: b""]
)
def test_a_damaged_shard_is_named_and_never_used(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage) -> None:
    store = Store(tmp_path)
    store.put("kind", "x", {"a": 1.5})
    path = next((tmp_path / "kind" / "x").iterdir())
    path.write_bytes(damage(path.read_bytes()))
    assert store.get("kind", "x") == {}
    assert str(path) in capsys.readouterr().err
    store.put("kind", "x", {"a": 1.5})
    assert store.get("kind", "x") == {"a": 1.5}


def test_writers_in_several_processes(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from equipoise.store import Store\n"
        "for i in range(40): Store(Path(sys.argv[1])).put('k', 'x', {f'{sys.argv[2]}-{i}': i, 'shared': 1})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    entries = Store(tmp_path).get("k", "x")
    assert len(entries) == 121
    assert all(entries[f"{name}-{i}"] == i for name in "abc" for i in range(40))


def test_what_is_expensive_is_computed_by_the_first(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from equipoise.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "with store.turn('k', 'x'):\n"
        "    if not store.get('k', 'x'):\n"
        "        time.sleep(0.5); store.put('k', 'x', {sys.argv[2]: 1})\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(Store(tmp_path).get("k", "x")) == 1
    with Store(tmp_path).turn("k", "x"), Store(tmp_path).turn("k", "y"):
        pass  # nobody waits for another one's turn, and the turns above are over
