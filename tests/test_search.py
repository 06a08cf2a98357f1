"""Search: the space checked before anything starts, pruning by gates, resuming, a winner confirmed on test items."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from equipoise.progress import Silent
from equipoise.recipe_file import load_recipe, parse_recipe
from equipoise.records import InputError
from equipoise.run_folder import Run, write_json
from equipoise.study.plan_study import Entry
from equipoise.study.process import Ended
from equipoise.study.refusals import refused_stage, violations
from equipoise.study.space import Choice, Dimension, Range, read_space
from equipoise.study.winner import choose
from experiments import command, equipoise, make_experiment
from study_runs import RECIPE, spread, write_run

RATE = "stages.only.optim.learning_rate"


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(name="r", seed=0, rate="1e-5"))
    return path


def test_a_space_is_read(tmp_path: Path, recipe: Path) -> None:
    text = f"space:\n  {RATE}: {{low: 1e-6, high: 1e-3, log: true}}\n  stages.0.lora.rank: {{values: [4, 8]}}\n"
    text += "  stages.only.mix: {values: [{mine: 16}, {mine: 32}]}\n"
    text += "  stages.only.optim.batch_size: {low: 8, high: 64, step: 8}\n"
    found = read_space(space_file(tmp_path, text), recipe)
    assert found[0] == Dimension(RATE, Range(low=1e-6, high=1e-3, log=True))
    assert found[1].values == Choice(values=[4, 8])
    assert isinstance(found[3].values, Range) and found[3].values.whole
    assert load_recipe(recipe, [found[2].override({"mine": 32})]).stages[0].mix.sources


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stages.only.optim.learning_rat: {values: [1]}", "space.yaml:2: .*unknown key; did you mean 'learning_rate'"),
        ("stages.second.optim.epochs: {values: [1]}", "space.yaml:2: .*no entry 'second'"),
        ("stages.only.lora.rank: {values: [4, 0]}", r"space.yaml:2: stages.only.lora.rank = 0: "),
        ("stages.only.lora.rank: {low: 8, high: 4}", "low 8 is above high 4"),
        ("stages.only.lora.rank: {low: 8}", "high: field required"),
        ("stages.only.lora.rank: 8", "write {values"),
        ("stages.only.optim.warmup: {low: 0.0, high: 0.1, log: true}", "log needs a low above 0"),
        ("stages.only.lora.rank: {values: []}", "name at least one"),
    ],
)
def test_a_wrong_space_is_one_line(tmp_path: Path, recipe: Path, line: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        read_space(space_file(tmp_path, f"space:\n  {line}\n"), recipe)
    assert "\n" not in str(error.value)


def test_how_far_rules_were_missed(tmp_path: Path) -> None:
    text = RECIPE.replace("{{hold: {{tatqa: 0.5}}}}", "{{improve: {{mt_bench: 0.2}}, hold: {{tatqa: 0.5}}}}")
    loaded = parse_recipe(text.format(name="r", seed=0, rate="1e-5"))
    run = Run(tmp_path)
    assert violations(run, loaded) == [0.0, 0.0]
    rows = [
        {"kind": "improve", "threshold": 0.2, "ci": [-0.3, 0.1], "figure": None},
        {"kind": "hold", "threshold": 0.5, "ci": [-0.4, 0.3], "figure": None},
        {"kind": "health", "threshold": 0.1, "ci": None, "figure": 0.4},
    ]
    gate = {"stage": "1-only", "action": "rollback", "rows": rows}
    write_json(tmp_path / "stages" / "1-only" / "gate.json", gate)
    assert refused_stage(run) is None  # not until the stage is done
    write_json(tmp_path / "stages" / "1-only" / "done", {})
    assert violations(run, loaded) == pytest.approx([0.1, -0.8, 0.3])
    assert refused_stage(run) == "1-only"
    text = text.replace("{{improve", "{{on_undecided: rollback, improve")
    strict = parse_recipe(text.format(name="r", seed=0, rate="1e-5"))
    assert violations(run, strict) == pytest.approx([0.5, -0.1, 0.3])


def row(number: int, name: str, **more: Any) -> dict[str, Any]:
    return {"number": number, "state": "complete", "run": name, "params": {}, "missed": 0.0, **more}


def test_the_winner_is_chosen_on_dev_and_reported_on_test(tmp_path: Path) -> None:
    """`lucky` is best on test items, which no choice may see; `missed` is best on dev items and missed a rule."""
    test = {"tatqa": spread(1.0), "mt_bench": spread(1.0)}
    write_run(tmp_path / "best", test, dev={"tatqa": spread(2.0), "mt_bench": spread(2.0)}, rate="1e-5")
    best = {"tatqa": spread(5.0), "mt_bench": spread(5.0)}
    write_run(tmp_path / "lucky", best, dev={"tatqa": spread(1.0), "mt_bench": spread(1.0)}, rate="2e-5")
    write_run(tmp_path / "missed", best, dev=best, rate="3e-5")
    rows = [
        row(0, "lucky"),
        row(1, "best"),
        row(2, "missed", missed=0.3),
        row(3, "elsewhere"),
        row(4, "x", state="pruned"),
    ]
    found = choose(rows, tmp_path)
    assert found["winner"]["number"] == 1
    assert found["test"]["domains"]["tatqa"]["difference"] == pytest.approx(1.0)
    assert found["shown_on_dev"] and found["confirmed"] and "learning_rate" in found["recipe"]
    assert any("elsewhere: not here" in note for note in found["notes"])


def test_a_winner_that_test_items_do_not_confirm(tmp_path: Path) -> None:
    good = {"tatqa": spread(2.0), "mt_bench": spread(2.0)}
    write_run(tmp_path / "one", {"tatqa": spread(0.1), "mt_bench": spread(0.1)}, dev=good)
    found = choose([row(0, "one")], tmp_path)
    assert found["shown_on_dev"] and not found["confirmed"] and found["recipe"] is None
    assert choose([], tmp_path)["winner"] is None


class Laboratory:
    """Runs of a recipe that trains nothing: gains follow from the learning rate, and a rate above 0.1 is refused."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.ran: list[str] = []
        self._stop_after = stop_after

    def __call__(self, entry: Entry, logs: Path) -> Ended:
        self.ran.append(entry.name)
        if len(self.ran) == self._stop_after:
            raise KeyboardInterrupt
        if (entry.folder / "done").is_file():
            return Ended(0, 0.0, "", "")
        rate = load_recipe(entry.recipe, entry.overrides).stages[0].optim.learning_rate
        gains = {"tatqa": spread(10 * rate), "mt_bench": spread(1 - 10 * rate)}
        if 0.04 < rate < 0.05:
            return Ended(-9, 0.0, "killed by SIGKILL", "")
        write_run(entry.folder, gains, dev=gains, name="r", rate=repr(rate))
        gate = {"stage": "1-only", "action": "rollback" if rate > 0.1 else "keep", "rows": []}
        write_json(entry.folder / "stages" / "1-only" / "gate.json", gate)
        write_json(entry.folder / "stages" / "1-only" / "done", {})
        return Ended(0, 0.0, "", "")


def searched(recipe: Path, out: Path, trials: int, laboratory: Laboratory) -> list[dict[str, Any]]:
    pytest.importorskip("optuna")
    from equipoise.study.search import run_search
    from equipoise.study.trials import Search, open_storage

    space = space_file(recipe.parent, f"space:\n  {RATE}: {{low: 0.001, high: 0.2, log: true}}\n")
    search = Search(recipe, load_recipe(recipe), read_space(space, recipe), out, 3)
    return run_search(search, open_storage(str(out / "optuna.log")), trials, laboratory, Silent())


def test_a_search_goes_on_where_it_stopped(recipe: Path, tmp_path: Path) -> None:
    """Interrupted in its 4th trial and then continued, it makes the choices of an undisturbed one."""
    whole = searched(recipe, tmp_path / "whole", 16, Laboratory())
    with pytest.raises(KeyboardInterrupt):
        searched(recipe, tmp_path / "parts", 16, Laboratory(stop_after=4))
    laboratory = Laboratory()
    parts = searched(recipe, tmp_path / "parts", 16, laboratory)
    assert len(laboratory.ran) == 13
    assert [row["params"] for row in parts] == [row["params"] for row in whole]
    assert [row["gains"] for row in parts] == [row["gains"] for row in whole]
    states = {row["state"] for row in whole}
    assert {"complete", "pruned"} <= states
    for found in whole:
        rate = found["params"][RATE]
        assert found["state"] == ("pruned" if rate > 0.1 else "fail" if 0.04 < rate < 0.05 else "complete")
        if found["gains"]:
            assert found["gains"] == pytest.approx({"tatqa": 10 * rate, "mt_bench": 1 - 10 * rate})
    assert searched(recipe, tmp_path / "parts", 16, laboratory) == parts
    assert len(laboratory.ran) == 13


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_real_search(tmp_path: Path) -> None:
    """Two processes share a search and one of them is killed; the refused trial is stopped at the end of its stage."""
    pytest.importorskip("optuna")
    recipe = make_experiment(tmp_path)
    text = recipe.read_text().replace("{hold: {finance_instruct: 100}}", "{improve: {finance_instruct: 0}}")
    recipe.write_text(text)
    space = space_file(
        tmp_path,
        "space:\n  stages.first.gate.improve: {values: [{finance_instruct: -100}, {finance_instruct: 100}]}\n"
        "  stages.second.dpo.beta: {low: 0.05, high: 0.5}\n",
    )
    out = tmp_path / "search"
    asked = ("search", recipe, "--space", space, "--trials", 5, "--out", out, "--json")
    killed = subprocess.Popen(command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    beside = subprocess.Popen(command(*asked), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not list(out.glob("trial-*/stages/*/trained.json")) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert beside.wait() in (0, 1)
    last = equipoise(*asked)
    assert last.returncode in (0, 1), last.stderr
    record = json.loads(last.stdout)
    assert len(record["trials"]) in (5, 6)  # two processes that ask for the last one at once get one each
    for trial in record["trials"]:
        refused = trial["params"]["stages.first.gate.improve"] == {"finance_instruct": 100}
        assert trial["state"] == ("pruned" if refused else "complete"), trial
        assert (out / trial["run"] / "done").is_file() != refused
    assert {trial["state"] for trial in record["trials"]} == {"pruned", "complete"}
    assert record["winner"]["number"] in [trial["number"] for trial in record["trials"] if trial["state"] == "complete"]
    assert json.loads((out / "search.json").read_text()) == record
