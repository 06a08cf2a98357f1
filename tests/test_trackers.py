"""Trackers: the same numbers as in train.jsonl arrive where the recipe says, and change nothing about a run."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from equipoise.dpo.trackers import PACKAGES, flat, open_trackers, require_trackers, settings
from equipoise.recipe import CIRCUMSTANCES, Recipe
from equipoise.recipe_file import changed_fields, fingerprint, parse_recipe, resolved, stored_recipe
from equipoise.records import InputError
from test_recipe import GOOD

RECORD = {"step": 2, "loss": 0.5, "margin": 0.25, "sources": {"reddit": {"loss": 0.75, "pairs": 3.0}}}
CONFIG = {"name": "small", "seed": 0, "model": {"id": "pocket", "revision": None}, "stages": [{"beta": 0.1}], "x": []}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed (the [track] extra)"
    )


def write_two_steps(name: str, folder: Path) -> None:
    trackers = open_trackers([name], folder=folder, run_name="1-first", config=CONFIG)
    trackers.log({**RECORD, "step": 1, "loss": 0.7}, 1)
    trackers.log(RECORD, 2)
    trackers.finish()


@needs("tensorboard")
def test_tensorboard_finds_every_figure_at_its_step(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_two_steps("tensorboard", tmp_path)
    found = EventAccumulator(str(tmp_path / "tensorboard" / "1-first")).Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "margin", "reddit/loss", "reddit/pairs"}
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(1, pytest.approx(0.7)), (2, 0.5)]
    assert [event.value for event in found.Scalars("reddit/loss")] == [0.75, 0.75]


def in_a_process(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`write_two_steps` in a process of its own: these packages read their environment once."""
    code = "import sys, test_trackers as t, pathlib; t.write_two_steps(sys.argv[1], pathlib.Path(sys.argv[2]))"
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    own = {"PYTHONPATH": paths, "HOME": str(folder), "NETRC": str(folder / "none"), **environment}
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB")}
    command = [sys.executable, "-c", code, name, str(folder)]
    return subprocess.run(command, env={**kept, **own}, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@needs("trackio")
def test_trackio_keeps_its_figures_where_it_is_told(tmp_path: Path) -> None:
    assert in_a_process("trackio", tmp_path, TRACKIO_DIR=str(tmp_path)).returncode == 0
    rows = sqlite3.connect(tmp_path / "small.db").execute("select run_name, step, metrics from metrics").fetchall()
    assert [(run, step) for run, step, _ in rows] == [("1-first", 1), ("1-first", 2)]
    assert json.loads(rows[1][2]) == flat(RECORD)


@needs("mlflow")
def test_mlflow_finds_every_figure_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    write_two_steps("mlflow", tmp_path)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("small").experiment_id])
    assert run.info.run_name == "1-first"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")] == [(1, 0.7), (2, 0.5)]
    assert run.data.params["stages.0.beta"] == "0.1"


@needs("wandb")
def test_wandb_works_offline(tmp_path: Path) -> None:
    assert in_a_process("wandb", tmp_path, WANDB_DIR=str(tmp_path), WANDB_MODE="offline").returncode == 0
    (written,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"reddit/loss" in written.read_bytes()


@needs("wandb")
def test_wandb_without_a_login_is_one_line(tmp_path: Path) -> None:
    ended = in_a_process("wandb", tmp_path, WANDB_DIR=str(tmp_path))
    assert ended.returncode == 1
    assert "InputError: trackers: wandb cannot be opened: No API key" in ended.stderr.splitlines()[-1]


def test_a_missing_package_is_one_line_before_anything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_trackers([])
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    for ask in (lambda: require_trackers(["mlflow"]),
                lambda: open_trackers(["mlflow"], folder=tmp_path, run_name="r", config={})):  # fmt: skip
        with pytest.raises(InputError, match=r"trackers: not installed: mlflow; pip install mlflow") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_trackers_is_no_work(tmp_path: Path) -> None:
    trackers = open_trackers([], folder=tmp_path, run_name="r", config=CONFIG)
    trackers.log(RECORD, 1)
    trackers.finish()
    assert not list(tmp_path.iterdir())


def test_records_and_settings_are_made_flat() -> None:
    assert flat(RECORD) == {"loss": 0.5, "margin": 0.25, "reddit/loss": 0.75, "reddit/pairs": 3.0}
    assert flat({"step": 1, "note": "text", "ok": True}) == {}
    expected: dict[str, Any] = {"name": "small", "seed": 0, "model.id": "pocket", "model.revision": "None"}
    assert settings(CONFIG) == {**expected, "stages.0.beta": 0.1, "x": "[]"}


def test_who_watches_is_no_part_of_an_experiment() -> None:
    """A run goes on with other trackers than it began with; the resolved recipe keeps what was asked for."""
    assert set(get_args(get_args(Recipe.model_fields["trackers"].annotation)[0])) == set(PACKAGES)
    assert set(Recipe.model_fields) >= CIRCUMSTANCES
    plain, watched = parse_recipe(GOOD), parse_recipe(GOOD, ["trackers=[tensorboard]"])
    assert watched.trackers == ["tensorboard"]
    assert fingerprint(plain) == fingerprint(watched)
    assert changed_fields(plain, watched) == []
    assert stored_recipe(resolved(watched)).trackers == ["tensorboard"]
    faster = parse_recipe(GOOD, ["stages.0.optim.optimizer=adamw_8bit"])
    assert changed_fields(plain, faster) == ["stages.0.optim.optimizer: 'adamw' -> 'adamw_8bit'"]
    assert fingerprint(plain) != fingerprint(faster)
