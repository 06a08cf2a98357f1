"""Kills, interrupts, full disks: a clean continuation or one clear line, never a file that lies."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise import cli
from equipoise import run_folder as run_module
from experiments import command, contents, equipoise, make_experiment


def wait_for(folder: Path, sign: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until events.jsonl says `sign`, or the file `sign` exists."""
    deadline = time.monotonic() + 120
    events = folder / "events.jsonl"
    while time.monotonic() < deadline:
        if (folder / sign).exists() or (events.is_file() and sign in events.read_text()):
            return
        assert process.poll() is None, f"the run ended before {sign}: {process.communicate()}"
        time.sleep(0.005)
    raise AssertionError(f"{sign} never came")


SIGNS = [
    "data",  # while pairs are written
    '"point": "base"',  # while the base model is scored
    "stages/1-first/pairs.parquet",
    "stages/1-first/checkpoints/latest.json",  # in the middle of training
    '"point": "1-first"',
    "stages/2-second/train.jsonl",
    "verdict.json",
]


def test_killed_in_every_phase_and_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    out = tmp_path / "runs"
    whole = equipoise("run", recipe, "--out", out, "--name", "whole", cache=tmp_path / "one")
    assert whole.returncode == 0, whole.stderr
    environment = {**os.environ, "EQUIPOISE_CACHE": str(tmp_path / "two")}
    folder = out / "killed"
    arguments = ["run", recipe, "--out", out, "--name", "killed"]
    for sign in SIGNS:
        process = subprocess.Popen(command(*arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(folder, sign, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        arguments = ["run", "--resume", folder] if (folder / "recipe.json").is_file() else arguments
    last = equipoise("run", "--resume", folder, cache=tmp_path / "two")
    assert last.returncode == 0, last.stderr
    assert contents(folder) == contents(out / "whole")
    assert equipoise("verify", folder).returncode == 0


def test_interrupt_ends_with_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    process = subprocess.Popen(
        command("run", recipe, "--out", tmp_path / "runs"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(tmp_path / "runs" / "tiny", "stages/1-first/train.jsonl", process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"--resume" in errors and b"Traceback" not in errors
    assert equipoise("run", "--resume", tmp_path / "runs" / "tiny").returncode == 0


@pytest.mark.parametrize("when", [3, 12, 25])
def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """The disk is full at the `when`-th file that is written."""
    recipe = make_experiment(tmp_path)
    real, written = os.fsync, []

    def fsync(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == when:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(run_module.os, "fsync", fsync)
    result = CliRunner().invoke(cli.app, ["run", str(recipe), "--out", str(tmp_path / "runs")])
    assert result.exit_code == 1
    assert "No space left on device; make room" in result.output
    folder = tmp_path / "runs" / "tiny"
    assert not list(folder.rglob("*.part"))
    arguments = (
        ["--resume", str(folder)] if (folder / "recipe.json").is_file() else [str(recipe), "--out", str(folder.parent)]
    )
    result = CliRunner().invoke(cli.app, ["run", *arguments])
    assert result.exit_code == 0, result.output


def test_a_damaged_adapter_is_refused(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    assert equipoise("run", recipe, "--out", tmp_path / "runs").returncode == 0
    folder = tmp_path / "runs" / "tiny"
    (folder / "done").unlink()
    (folder / "stages/2-second/done").unlink()
    for path in (folder / "scores/2-second").iterdir():
        path.unlink()
    weights = folder / "stages/1-first/adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9] + bytes(9))
    result = equipoise("run", "--resume", folder)
    assert result.returncode == 2
    assert "stages/1-first" in result.stderr and "changed" in result.stderr and "Traceback" not in result.stderr


def test_two_runs_at_once_on_one_cache(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    environment = {**os.environ, "EQUIPOISE_CACHE": str(tmp_path / "shared")}
    both = [
        subprocess.Popen(
            command("run", recipe, "--out", tmp_path / "runs", "--name", name),
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for name in "ab"
    ]  # fmt: skip
    for process in both:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert contents(tmp_path / "runs" / "a") == contents(tmp_path / "runs" / "b")


def test_events_are_one_json_object_per_line(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    assert equipoise("run", recipe, "--out", tmp_path / "runs").returncode == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "runs/tiny/events.jsonl").read_text().splitlines()]
    assert events[0] == "begin" and events[-1] == "end" and events.count("gate") == 2
