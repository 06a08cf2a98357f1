"""Several processes give what one gives: two gloo processes on the CPU, started as a user starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import equipoise as package
import team_worker
from equipoise.dpo.distributed import ALONE, Team
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.packing import stream_length
from equipoise.dpo.room import Room
from equipoise.model.adapters import parts
from equipoise.model.chat import EncodedPair
from experiments import command, contents, equipoise, make_experiment
from models import make_policy
from test_faults import wait_for

FSDP2 = """\
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_cpu_ram_efficient_loading: true
  fsdp_state_dict_type: FULL_STATE_DICT
mixed_precision: 'no'
num_machines: 1
num_processes: 2
"""


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


def environment(**more: object) -> dict[str, str]:
    paths = os.pathsep.join(map(str, (Path(package.__file__).parents[1], Path(__file__).parent)))
    return {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", **{k: str(v) for k, v in more.items()}}


def launch(*arguments: object, cache: Path, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` of two processes."""
    ddp = (
        "--multi_gpu",
        "--num_processes",
        2,
        "--num_machines",
        1,
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    )
    how = ("--config_file", config) if config else ddp
    line = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *how]
    line += ["--main_process_port", free_port(), *arguments]
    return subprocess.run(
        list(map(str, line)), capture_output=True, text=True, env=environment(EQUIPOISE_CACHE=cache), timeout=200
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every case of team_worker.py: by one process, by two in DDP's way, and by two in FSDP2's."""
    folder = tmp_path_factory.mktemp("team")
    make_policy(folder / "policy")
    for name in team_worker.CASES:
        team_worker.train(ALONE, folder / "one", name)
    result = launch(team_worker.__file__, folder, cache=folder / "cache")
    assert result.returncode == 0, result.stderr[-3000:]
    return folder


def adapter_distance(one: Path, other: Path) -> float:
    """The largest relative error of a tensor."""
    left, right = (
        {
            (part.name, name): tensor
            for part in parts(folder / "adapter")
            for name, tensor in load_file(part / "adapter_model.safetensors").items()
        }
        for folder in (one, other)
    )
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).norm() / right[name].norm()) for name in left)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


CASES = [("ddp", name) for name in team_worker.CASES] + [("fsdp", name) for name in team_worker.SHARDED]


@pytest.mark.parametrize(("way", "name"), CASES, ids=lambda value: value)
def test_two_processes_train_as_one(trained: Path, way: str, name: str) -> None:
    """bf16 rounds every sum in another order, so there the two ways are compared with each other."""
    found, expected = trained / way / name, trained / "one" / name
    exact = name != "bfloat16"
    assert adapter_distance(found, expected) < (1e-5 if exact else 0.1)
    if not exact:
        assert adapter_distance(trained / "ddp" / name, trained / "fsdp" / name) < 1e-5
    for one, other in zip(lines(found), lines(expected), strict=True):
        assert one["pairs"] == other["pairs"] and one["sources"].keys() == other["sources"].keys()
        for key in ("loss", "margin", "grad_norm", "chosen_drift", "data_kl"):
            assert one[key] == pytest.approx(other[key], rel=1e-4 if exact else 0.1, abs=1e-4 if exact else 0.05)


def test_a_resumed_team_gives_the_same_bits(trained: Path) -> None:
    for way in ("ddp", "fsdp"):
        names = ("first", "resumed")
        one, other = (trained / way / name / "adapter/adapter_model.safetensors" for name in names)
        assert one.read_bytes() == other.read_bytes()
        assert (trained / way / "first" / "train.jsonl").read_text() == (
            trained / way / "resumed" / "train.jsonl"
        ).read_text()


def test_when_memory_ends_in_one_process_all_halve_the_budget(trained: Path) -> None:
    budgets = [record["micro_batch_tokens"] for record in lines(trained / "ddp" / "full")]
    assert max(budgets) <= 140


def test_sharded_processes_stop_without_memory_and_go_on_with_half_the_budget(trained: Path) -> None:
    folder = trained / "fsdp" / "full"
    assert "out of memory in process 1" in (trained / "stopped.txt").read_text()
    noted = json.loads((folder / "checkpoints" / "memory.json").read_text())["micro_batch_tokens"]
    scorer = PairScorer(torch.nn.Linear(1, 1), shared=True)
    assert Room(4096, scorer, ALONE, folder, print).tokens == noted < 4096


@pytest.mark.slow
def test_whole_run_of_two_processes_gives_the_verdict_of_one(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    cache = tmp_path / "cache"
    single = equipoise("run", recipe, "--out", tmp_path / "runs", "--name", "one", cache=cache)
    assert single.returncode == 0, single.stderr
    both = launch("-m", "equipoise", "run", recipe, "--out", tmp_path / "runs", "--name", "two", cache=cache)
    assert both.returncode == 0, both.stderr
    same_verdict(tmp_path / "runs")
    assert both.stdout.replace("runs/two", "runs/one") == single.stdout  # the other process says nothing


@pytest.mark.slow
def test_whole_run_of_two_sharded_processes_gives_the_verdict_of_one(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    (tmp_path / "fsdp.yaml").write_text(FSDP2)
    cache, arguments = tmp_path / "cache", ("run", recipe, "--out", tmp_path / "runs", "--name")
    assert equipoise(*arguments, "one", cache=cache).returncode == 0
    both = launch("-m", "equipoise", *arguments, "two", cache=cache, config=tmp_path / "fsdp.yaml")
    assert both.returncode == 0, both.stderr
    same_verdict(tmp_path / "runs")


def same_verdict(runs: Path) -> None:
    one, two = contents(runs / "one"), contents(runs / "two")
    assert one.keys() == two.keys()
    answers = [name for name in one if name.startswith("scores/")]
    assert answers
    for name in ["verdict.json", "data/ledger.json", *answers]:
        assert one[name] == two[name], name


def start_two(folder: Path, *arguments: object) -> list[subprocess.Popen[bytes]]:
    """The two processes of a run without a launcher that would end one when the other ends."""
    port = free_port()
    return [
        subprocess.Popen(
            command(*arguments),
            env=environment(
                EQUIPOISE_CACHE=folder / "cache", MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
                WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, RANK=rank, LOCAL_RANK=rank,
            ),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip


def test_the_others_end_with_one_line_when_the_main_process_dies(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    main, other = start_two(tmp_path, "run", recipe, "--out", tmp_path / "runs")
    wait_for(tmp_path / "runs" / "tiny", "scores/base", main)
    main.send_signal(signal.SIGKILL)
    main.communicate()
    out, errors = other.communicate(timeout=30)
    assert other.returncode == 1 and out == b""
    assert b"process 1: the main process is gone" in errors and b"Traceback" not in errors


@pytest.mark.slow
def test_the_main_process_ends_with_one_line_when_another_dies(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    long = ("--set", "stages.0.optim.epochs=400", "--set", "stages.0.optim.checkpoint_every=5")
    main, other = start_two(tmp_path, "run", recipe, "--out", tmp_path / "runs", *long)
    wait_for(tmp_path / "runs" / "tiny", "stages/1-first/checkpoints/latest.json", main)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    _, errors = main.communicate(timeout=60)
    assert main.returncode == 1
    assert b"another process is gone" in errors and b"--resume" in errors and b"Traceback" not in errors


@pytest.mark.slow
def test_a_wrong_recipe_is_said_once(tmp_path: Path) -> None:
    processes = start_two(tmp_path, "run", tmp_path / "absent.yaml")
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [2, 0]
    assert b"absent.yaml" in results[0][1] and b"Traceback" not in results[0][1]
    assert results[1][0] == b"" and b"absent" not in results[1][1]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_pairs_are_dealt_once_and_evenly(size: int, sharded: bool) -> None:
    pairs = [
        EncodedPair(str(i), "s", "d", tuple(range(5 + 7 * i % 30)), (1,) * (3 + i % 4), (2,) * 2, 0) for i in range(16)
    ]
    scorer = PairScorer(torch.nn.Linear(1, 1), shared=True)
    teams = [Team(index, size, sharded=sharded) for index in range(size)]
    hands = [team.portions(scorer, pairs, 40) for team in teams]
    dealt = [pair.id for hand in hands for micro, factor in hand for pair in micro if factor]
    assert sorted(dealt) == sorted(pair.id for pair in pairs)
    loads = [sum(stream_length(pair) for micro, factor in hand for pair in micro if factor) for hand in hands]
    assert max(loads) - min(loads) <= max(map(stream_length, pairs))
    if sharded:
        assert len({len(hand) for hand in hands}) == 1
        assert {factor for hand in hands for _, factor in hand} <= {float(size), 0.0}
