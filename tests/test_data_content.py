"""Which content a source has, and data sets of the hub."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pytest

from equipoise.data import hub, read
from equipoise.data.read import content_of, read_rows
from equipoise.records import InputError


def test_content_is_that_of_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    for name in ("train/x.jsonl", "train/y.jsonl", "test/x.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"name": name}))
    before = content_of(str(folder))
    shutil.copytree(folder, tmp_path / "b")
    assert content_of(str(tmp_path / "b")) == before  # wherever it lies
    (folder / "test" / "x.jsonl").write_text("{}")
    assert content_of(str(folder)) == before  # another split
    assert content_of(str(folder), split="test") != before
    x, y = (folder / "train" / name for name in ("x.jsonl", "y.jsonl"))
    moved = x.read_bytes() + y.read_bytes()
    x.write_bytes(moved[:5])
    y.write_bytes(moved[5:])
    assert content_of(str(folder)) != before  # the same bytes, divided otherwise
    x.rename(folder / "train" / "a.jsonl")
    assert len({content_of(str(folder)), content_of(str(y)), content_of("pocket"), before}) == 4
    with pytest.raises(InputError, match="no such file"):
        content_of(str(x))


def test_a_changed_world_is_another_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content_of("pocket")
    shutil.copytree(Path(read.__file__).parents[1] / "pocket", tmp_path / "pocket", ignore=lambda *_: ["weights"])
    monkeypatch.setattr(read, "__file__", str(tmp_path / "data" / "read.py"))
    assert content_of("pocket") == before
    with (tmp_path / "pocket" / "words.py").open("a") as file:
        file.write("\n")
    assert content_of("pocket") != before


COMMIT = "a" * 40


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The id of a data set that was fetched from the hub before, as `datasets` keeps it."""
    folder = tmp_path / "some___thing" / "default" / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    table = pyarrow.table({"a": ["x", "y"]})
    with pyarrow.ipc.new_stream(str(folder / "thing-train.arrow"), table.schema) as writer:
        writer.write_table(table)
    info = {
        "dataset_name": "thing",
        "config_name": "default",
        "features": {"a": {"dtype": "string", "_type": "Value"}},
        "splits": {"train": {"name": "train", "num_bytes": 10, "num_examples": 2, "dataset_name": "thing"}},
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    hub._fetched.cache_clear()
    yield "some/thing"
    hub._fetched.cache_clear()


def test_what_was_fetched_before_is_read_offline(fetched: str) -> None:
    assert read_rows(fetched) == read_rows(fetched, revision=COMMIT) == [{"a": "x"}, {"a": "y"}]
    assert content_of(fetched) == content_of(fetched, what="source s") != content_of("pocket")
    for keys, said in (({"revision": "b" * 40}, "commit b+ was not fetched before"), ({"split": "gone"}, "gone")):
        with pytest.raises(InputError, match=said) as caught:
            read_rows(fetched, **keys)
        assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as closed:  # bound and not listening: nobody else can answer there
        closed.bind(("127.0.0.1", 0))
        where = {"HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        program = "from equipoise.data.read import *; read_rows('Intel/orca_dpo_pairs', what='source s')"
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **where, "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert time.monotonic() - started < 20  # `datasets` alone takes 24 s to give up
    last = done.stderr.strip().splitlines()[-1]
    assert "InputError: source s: Intel/orca_dpo_pairs: no such local file or folder, and the hub gave nothing" in last
    assert "refused" in last
