"""Studies: planned before anything starts, each run in its own process, killed, resumed, failed rows and no end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from equipoise.progress import Silent
from equipoise.records import InputError
from equipoise.run_folder import Run, write_json, write_lines
from equipoise.study.events import spent
from equipoise.study.nursery import Nursery
from equipoise.study.plan_study import Entry, locked, plan_study
from equipoise.study.process import Ended, arguments, why
from equipoise.study.run_study import run_study
from experiments import command, contents, equipoise, make_experiment

RECIPE = """\
name: {name}
model: {{id: local/model}}
sources:
  mine: {{kind: table, id: pairs.jsonl, domain: finance, columns: {{prompt: question, chosen: good, rejected: bad}}}}
stages:
  - {{name: only, mix: {{mine: 16}}}}
evaluation:
  tasks: {{tatqa: {{}}}}
"""


def recipe(folder: Path, file: str, name: str) -> Path:
    path = folder / file
    path.write_text(RECIPE.format(name=name))
    return path


def test_every_recipe_under_every_seed(tmp_path: Path) -> None:
    paths = [recipe(tmp_path, "a.yaml", "a"), recipe(tmp_path, "b.yaml", "b")]
    entries = plan_study(paths, [0, 7], tmp_path / "out")
    assert [entry.name for entry in entries] == ["a-seed0", "b-seed0", "a-seed7", "b-seed7"]
    place = ["--out", str(tmp_path / "out"), "--name", "b-seed7"]
    assert arguments(entries[3]) == ["run", str(paths[1]), "--set", "seed=7", *place]


def test_a_study_that_cannot_start_says_so_in_one_line(tmp_path: Path) -> None:
    one, two = recipe(tmp_path, "a.yaml", "same"), recipe(tmp_path, "b.yaml", "same")
    for paths, seeds, said in [
        ([one, two], [0], "two runs would be called same-seed0"),
        ([one], [0, 0], "a seed stands there twice"),
        ([tmp_path / "absent.yaml"], [0], "cannot read the recipe"),
        ([recipe(tmp_path, "long.yaml", "x" * 78)], [0], "longer than 80"),
    ]:
        with pytest.raises(InputError, match=said) as error:
            plan_study(paths, seeds, tmp_path / "out")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    path = recipe(tmp_path, "a.yaml", "a")
    other = tmp_path / "out" / "a-seed0"
    write_json(other / "recipe.json", {"fingerprint": "0", **_stored(path)})
    with pytest.raises(InputError, match=r"begun with another recipe \(seed: 3 -> 0\)"):
        plan_study([path], [0], tmp_path / "out")
    (other / "recipe.json").rename(other / "notes.json")
    with pytest.raises(InputError, match="other files and no run"):
        plan_study([path], [0], tmp_path / "out")


def _stored(path: Path) -> dict[str, object]:
    from equipoise.recipe_file import load_recipe

    return load_recipe(path, ["seed=3"]).model_dump(mode="json")


def test_where_the_time_went_by_hand() -> None:
    """Killed at 40 while training, and begun again at 100: the pause is nobody's time."""
    told: list[tuple[float, str, dict[str, object]]] = [
        (0, "begin", {}),
        (1, "evaluate", {"point": "base"}),
        (11, "stage", {}),
        (14, "reference", {"reused": 3, "computed": 5}),
        (40, "trained", {}),
        (100, "begin", {}),
        (102, "evaluate", {"point": "1-x"}),
        (109, "something new", {}),
        (110, "gate", {}),
        (112, "end", {}),
    ]
    found = spent([{"time": float(at), "event": name, **more} for at, name, more in told])
    assert (found.training, found.measuring, found.elapsed) == (29, 18, 52)
    assert (found.reference_reused, found.reference_computed, found.base_scores_computed) == (3, 5, 1)
    reused = [{"time": 0.0, "event": "evaluate", "point": "base"}, {"time": 1.0, "event": "base scores reused"}]
    assert spent(reused).base_scores_computed == 0
    assert spent([]).elapsed == 0


def test_why_a_run_failed_in_one_line() -> None:
    assert why(-9, "") == "killed by SIGKILL (out of memory, or by hand)"
    assert why(2, "equipoise: a.yaml:3: wrong\nequipoise: warning: else\n") == "exit code 2: a.yaml:3: wrong"
    assert why(1, "Traceback\n  File x\nKeyError: 'y'\n\n") == "exit code 1: KeyError: 'y'"
    assert why(1, "") == "exit code 1: it said nothing"


def test_rows_survive_an_interruption(tmp_path: Path) -> None:
    """The executor is stopped in its second run: one row is done, one interrupted, and the next study goes on."""
    entries = [Entry(tmp_path / "r.yaml", "r", seed, tmp_path / f"r-seed{seed}", ()) for seed in (0, 1, 2)]
    asked: list[str] = []

    def execute(given, logs, started, ended) -> None:  # type: ignore[no-untyped-def]
        for entry in given:
            asked.append(entry.name)
            started(entry)
            if entry.seed == 1 and len(asked) == 2:
                raise KeyboardInterrupt
            _finish(entry.folder)
            ended(entry, Ended(0, 10.0, "", "here"))

    with pytest.raises(KeyboardInterrupt):
        run_study(entries, tmp_path, execute, Silent())
    states = [row["state"] for row in json.loads((tmp_path / "study.json").read_text())["rows"]]
    assert states == ["done", "interrupted", "waiting"]
    record = run_study(entries[:2], tmp_path, execute, Silent())
    assert asked == ["r-seed0", "r-seed1", "r-seed1"]
    assert [row["state"] for row in record["rows"]] == ["done", "done", "waiting"]
    assert record["rows"][1]["attempts"] == 2
    assert record["rows"][0]["training_seconds"] == 3.0
    assert record["totals"]["overhead"] == pytest.approx((10 - 3) * 2 / 20)


def _finish(folder: Path) -> None:
    events = [{"time": 0.0, "event": "begin"}, {"time": 1.0, "event": "stage"}, {"time": 4.0, "event": "end"}]
    write_lines(folder / "events.jsonl", events)
    write_json(folder / "verdict.json", {"gates": [], "kept_stage": "1-only"})
    write_json(folder / "done", {})


@pytest.mark.timeout(600)
def test_killed_runs_and_studies(tmp_path: Path) -> None:
    """One run and then the study itself are killed; an adapter disappears; what is left goes on to the same bytes."""
    first = make_experiment(tmp_path)
    second = tmp_path / "second.yaml"
    second.write_text(first.read_text().replace("name: tiny", "name: second"))
    out = tmp_path / "study"
    asked = ("study", first, second, "--out", out, "--jobs", 2, "--json")
    study = subprocess.Popen(command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        os.kill(_runs_of(study.pid)[1].pid, signal.SIGKILL)
        trained = out / "tiny-seed0" / "stages" / "1-first" / "done"
        _until(trained.is_file)
    finally:
        study.kill()
    study.wait()
    rows = json.loads((out / "study.json").read_text())["rows"]
    assert [row["state"] for row in rows] == ["running", "failed"]
    assert rows[1]["reason"].startswith("killed by SIGKILL")
    _until(lambda: not locked(out / "tiny-seed0"))  # the run ended with its study
    assert not Run(out / "tiny-seed0").finished

    adapter = out / "tiny-seed0" / "stages" / "1-first" / "adapter"
    shutil.move(adapter, tmp_path / "aside")
    again = equipoise(*asked)
    assert again.returncode == 1, again.stderr
    rows = json.loads(again.stdout)["rows"]
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert "adapter" in rows[0]["reason"]
    assert "Traceback" not in again.stdout

    shutil.move(tmp_path / "aside", adapter)
    last = equipoise(*asked)
    assert last.returncode == 0, last.stderr
    record = json.loads(last.stdout)
    assert [(row["state"], row["attempts"]) for row in record["rows"]] == [("done", 3), ("done", 2)]
    assert record["totals"]["reference_computed"] + record["totals"]["reference_reused"] >= 44
    assert contents(out / "tiny-seed0") == contents(out / "second-seed0")


def _runs_of(study: int) -> list[psutil.Process]:
    """The processes of the runs: children of the process that starts them."""
    found: list[psutil.Process] = []

    def there() -> bool:
        found[:] = [run for starter in psutil.Process(study).children() for run in starter.children()]
        return len(found) == 2

    _until(there)
    return found


def _until(condition) -> None:  # type: ignore[no-untyped-def]
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until, "it did not happen within two minutes"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_lost_nursery_is_noticed(tmp_path: Path) -> None:
    """The process that starts runs dies: the run counts as killed, and the next one gets a new starter."""
    with Nursery() as nursery:
        process = nursery.spawn(["run", "absent.yaml"], tmp_path / "log")
        (starter,) = psutil.Process().children()
        starter.kill()
        assert process.wait(60) == -signal.SIGTERM
        assert nursery.spawn(["run", "absent.yaml"], tmp_path / "second").wait(120) == 2
    assert (tmp_path / "second").read_text().startswith("equipoise: absent.yaml: cannot read the recipe")
    assert not psutil.Process().children()
