"""Kills, interrupts, full disks: a clean continuation or one clear line, never a file that lies."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

import equipoise as package
from equipoise import cli
from equipoise import run_folder as run_module
from experiments import command, contents, equipoise, make_experiment

SOURCE = Path(package.__file__).parents[1]


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


KEEPING = """
import shutil
remove = shutil.rmtree
shutil.rmtree = lambda path, **options: None if str(path).endswith("checkpoints") else remove(path, **options)
from equipoise.cli import main
main()
"""
"""The command line, but the last checkpoint of a finished stage stays."""
STEPS = 40


def steps_of(folder: Path) -> int:
    log = folder / "stages/1-first/train.jsonl"
    return log.read_bytes().count(b"\n") if log.is_file() else 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_random_steps_and_resumed_to_the_same_bytes(tmp_path: Path, seed: int) -> None:
    """Adapter, log and the last checkpoint (parameters, optimiser, random state), dropout on, killed four times."""
    recipe = make_experiment(tmp_path)
    text = recipe.read_text().replace(
        "epochs: 1.5, batch_size: 4, checkpoint_every: 2", "epochs: 13.3, batch_size: 4, checkpoint_every: 3"
    )
    recipe.write_text(text.replace("lora: {rank: 4}", "lora: {rank: 4, dropout: 0.1}"))
    runs = tmp_path / "runs"
    environment = {**os.environ, "EQUIPOISE_CACHE": str(tmp_path / "cache")}
    start = [sys.executable, "-c", KEEPING, "run"]
    subprocess.run([*start, recipe, "--out", runs, "--name", "whole"], env=environment, check=True, capture_output=True)

    random, folder = Random(seed), runs / "killed"
    arguments: list[object] = [recipe, "--out", runs, "--name", "killed"]
    seen = [0]
    for target in sorted(random.sample(range(1, STEPS * 2 // 3), 4)):
        process = subprocess.Popen(
            [*start, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and (steps_of(folder) < target or steps_of(folder) == seen[-1]):
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen.append(steps_of(folder))
        arguments = ["--resume", folder]
    assert sum(0 < steps < STEPS for steps in seen) >= 3, f"most kills came too late: {seen}"
    subprocess.run([*start, *map(str, arguments)], env=environment, check=True, capture_output=True)
    kept = [f"stages/1-first/{name}" for name in ("adapter/adapter_model.safetensors", "train.jsonl")]
    kept += [
        f"stages/1-first/checkpoints/{path.name}" for path in (runs / "whole/stages/1-first/checkpoints").iterdir()
    ]
    assert len(kept) == 4 and steps_of(folder) == STEPS
    for name in kept:
        assert (folder / name).read_bytes() == (runs / "whole" / name).read_bytes(), f"{name}: killed after {seen}"
    assert contents(folder) == contents(runs / "whole")


def trained_within(folder: Path, megabytes: int, tokens: int) -> tuple[list[int], list[str]]:
    """The token budget of every step of a training in so much memory (0: all there is), and what was said."""
    folder.mkdir()
    script = [sys.executable, str(Path(__file__).parent / "short_of_memory.py"), folder, megabytes, tokens]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (SOURCE, Path(__file__).parent)))}
    result = subprocess.run(list(map(str, script)), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    steps = [json.loads(line)["micro_batch_tokens"] for line in (folder / "train.jsonl").read_text().splitlines()]
    return steps, json.loads(result.stdout)


def test_an_address_space_that_is_too_small_halves_the_budget(tmp_path: Path) -> None:
    """A real failure of the allocator; the adapter is that of a process with memory and the final budget.

    How much an allocator needs is chance to some megabytes: where a later step halves the budget once more, the
    training is no longer one of a single budget, and the next larger space is tried.
    """
    for megabytes in (150, 190, 230, 270):
        short = tmp_path / f"short-{megabytes}"
        budgets, said = trained_within(short, megabytes, 100_000)
        if len(set(budgets)) == 1:
            break
    (tokens,) = set(budgets)
    assert tokens < 8000 and f"from here on {tokens} tokens" in said[-1]
    assert trained_within(tmp_path / "enough", 0, tokens) == (budgets, [])
    one, other = (folder / "adapter/adapter_model.safetensors" for folder in (short, tmp_path / "enough"))
    assert one.read_bytes() == other.read_bytes()


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
    started = CliRunner().invoke(cli.app, ["run", str(recipe), "--out", str(tmp_path / "runs")])
    assert started.exit_code == 0, started.output
    folder = tmp_path / "runs" / "tiny"
    (folder / "done").unlink()
    (folder / "stages/2-second/done").unlink()
    for path in (folder / "scores/2-second").iterdir():
        path.unlink()
    weights = folder / "stages/1-first/adapter/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9] + bytes(9))
    result = CliRunner().invoke(cli.app, ["run", "--resume", str(folder)])
    assert result.exit_code == 2
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
    lines = (tmp_path / "runs" / "a" / "events.jsonl").read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert events[0] == "begin" and events[-1] == "end" and events.count("gate") == 2
