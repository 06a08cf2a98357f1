"""The run folder: atomic files, one writer, logs that survive a kill."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from equipoise import run_folder as run_module
from equipoise.records import Health, InputError, Score
from equipoise.run_folder import Run, provenance, read_json, read_lines, write_bytes, write_json


def score(**changes: object) -> Score:
    fields = {
        "id": "q1", "task": "tatqa", "content": "c", "group": "d", "category": "span", "split": "test",
        "answers": ("Answer: <b>5</b>\u2028",), "health": Health(False, False, False, 2), "value": 1.0,
    }  # fmt: skip
    return Score(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"x" * 1000)
    assert read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]


def test_scores_come_back_as_they_were(tmp_path: Path) -> None:
    run = Run(tmp_path)
    scores = [score(), score(id="q2", value=None, unscored="empty answer", metrics={"f1": 0.5})]
    run.write_scores("base", "tatqa", scores)
    run.write_scores("1-first", "tatqa", scores[:1])
    run.write_scores("10-last", "tatqa", scores[:1])
    assert run.scores("base") == {"tatqa": scores}
    assert run.points() == ["base", "1-first", "10-last"]
    with pytest.raises(InputError, match=r"tatqa\.jsonl"):
        path = run.score_file("base", "tatqa")
        path.write_text('{"id": 3}\n')
        run.scores("base")


def test_unscored_is_never_zero() -> None:
    with pytest.raises(ValueError, match="either a value or the reason"):
        score(value=None)
    with pytest.raises(ValueError, match="either a value or the reason"):
        score(unscored="why")


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Run(tmp_path).lock(), pytest.raises(InputError, match="another process"), Run(tmp_path).lock():
        pass
    with Run(tmp_path).lock():
        pass


def test_what_a_kill_left_half_written_is_removed_under_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(descriptor: int) -> None:
        raise Killed

    run = Run(tmp_path)
    with monkeypatch.context() as patched:  # a kill leaves what `write_bytes` would remove
        patched.setattr(run_module.os, "fsync", die)
        patched.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(Killed):
            write_json(run.score_file("base", "reddit"), {"a": 1})
    write_bytes(tmp_path / "data" / "kept.part", b"a file of somebody's")
    (left,) = (tmp_path / "scores" / "base").iterdir()
    with run.lock():
        assert not left.exists() and (tmp_path / "data" / "kept.part").is_file()
        write_bytes(left, b"of the process that works here")
        with pytest.raises(InputError, match="another process"), Run(tmp_path).lock():
            pass
        assert left.exists()


def test_a_log_that_a_kill_cut_is_repaired(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log("begin", recipe="x")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": 1, "ev')
    with pytest.raises(InputError, match=r"events\.jsonl:2"):
        read_lines(tmp_path / "events.jsonl")
    run.repair_logs()
    run.log("end")
    assert [record["event"] for record in read_lines(tmp_path / "events.jsonl")] == ["begin", "end"]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path)


def test_provenance_names_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [str(Path.home() / "bin" / "equipoise"), "run", str(Path.home() / "r.yaml")])
    text = json.dumps(provenance(0))
    assert str(Path.home()) + "/" not in text
    assert '"torch"' in text
