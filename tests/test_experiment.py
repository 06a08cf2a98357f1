"""Whole experiments on the real architectures: random weights in the hub's layout, two stages, gates, verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import equipoise
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json
from equipoise.stages import Outcome
from equipoise.verify import verify
from experiments import contents, make_experiment
from models import make_reward

FILES = (
    *("recipe.yaml", "recipe.json", "provenance.json", "data/general.parquet", "data/ledger.json"),
    *("items/mt_bench.jsonl", "stages/1-first/pairs.parquet", "stages/1-first/train.jsonl"),
    *("stages/1-first/adapter/adapter_config.json", "stages/1-first/gate.json", "stages/1-first/done"),
    *("scores/base/mt_bench.jsonl", "scores/2-second/finance_instruct.jsonl", "comparison.json", "verdict.json"),
    *("report.html", "events.jsonl", "done"),
)


def run(recipe: Path, out: Path, *overrides: str, **options: Any) -> Outcome:
    return equipoise.run(equipoise.load_recipe(recipe, overrides), out=out, text=recipe.read_text(), **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run that tests only read or copy."""
    folder = tmp_path_factory.mktemp("done")
    return run(make_experiment(folder), folder / "runs").run.folder


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
def test_two_stages_from_local_folders(tmp_path: Path, architecture: str) -> None:
    recipe = make_experiment(tmp_path, architecture)
    outcome = run(recipe, tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny"
    assert outcome.passed
    assert outcome.verdict["kept_stage"] == "2-second"
    assert set(outcome.verdict) - {"gates", "kept_stage", "point", "unmeasured"} == {"mt_bench", "finance_instruct"}
    row = outcome.verdict["mt_bench"]
    assert set(row) == {"before", "after", "difference", "ci", "p_holm", "n", "detectable", "verdict"}
    assert row["difference"] == pytest.approx(row["after"] - row["before"])
    assert [name for name in FILES if not (folder / name).is_file()] == []
    assert not list(folder.rglob("*.part")) and not (folder / "stages/1-first/checkpoints").exists()
    assert (folder / "recipe.yaml").read_text() == recipe.read_text()
    assert verify(Run.open(folder)) == []
    # What was asked is what was drawn, and 1.5 epochs of 12 pairs are 18 that the optimiser saw.
    ledger = read_json(folder / "data" / "ledger.json")["stages"]
    first, second = (ledger[name]["sources"] for name in ("first", "second"))
    assert (first["general"]["asked"], first["general"]["drawn"], first["general"]["seen"]) == (12, 12, 18)
    assert {name: line["drawn"] for name, line in second.items()} == {"general": 2, "finance": 8}
    steps = [json.loads(line) for line in (folder / "stages/1-first/train.jsonl").read_text().splitlines()]
    assert [step["pairs"] for step in steps] == [4, 4, 4, 4, 2]
    assert steps[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    # Plain PEFT loads what was saved, one adapter on top of the other.
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    model = PeftModel.from_pretrained(base, folder / "stages/1-first/adapter", adapter_name="a")
    model.load_adapter(folder / "stages/2-second/adapter", adapter_name="b")
    model.base_model.set_adapter(["a", "b"])
    assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_experiment(tmp_path)
    for name in ("a", "b"):
        monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / f"cache-{name}"))
        run(recipe, tmp_path / "runs", name=name)
    run(recipe, tmp_path / "runs", name="c")  # once more, with everything in the store
    run(recipe, tmp_path / "runs", "seed=1", name="d")
    a, b, c, d = (contents(tmp_path / "runs" / name) for name in "abcd")
    assert a == b == c
    adapter = "stages/1-first/adapter/adapter_model.safetensors"
    assert a.keys() == d.keys() and a[adapter] != d[adapter]


def test_a_refused_stage_is_left_out(tmp_path: Path) -> None:
    """Nobody gains 1000: the first stage rolls back, the second starts from the base, and the exit says so."""
    recipe = make_experiment(tmp_path)
    outcome = run(recipe, tmp_path / "runs", "stages.first.gate.improve={mt_bench: 1000}")
    folder = tmp_path / "runs" / "tiny"
    assert [gate["action"] for gate in outcome.verdict["gates"]] == ["rollback", "keep"]
    assert not outcome.passed
    assert outcome.verdict["kept_stage"] == "2-second"
    assert read_json(folder / "stages/2-second/start.json")["stack"] == []
    assert verify(Run.open(folder)) == []


@pytest.mark.parametrize(("on_fail", "stages", "kept"), [("stop", 1, "base"), ("continue", 2, "2-second")])
def test_what_a_failed_gate_does(tmp_path: Path, on_fail: str, stages: int, kept: str) -> None:
    recipe = make_experiment(tmp_path)
    outcome = run(
        recipe, tmp_path / "runs", "stages.first.gate.improve={mt_bench: 1000}", f"stages.first.gate.on_fail={on_fail}"
    )
    assert len(outcome.verdict["gates"]) == stages
    assert outcome.verdict["kept_stage"] == kept
    assert outcome.verdict["point"] == ("1-first" if on_fail == "stop" else "2-second")
    assert not outcome.passed
    assert verify(outcome.run) == []


def test_health_limits_and_metrics_in_gates(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    outcome = run(
        recipe,
        tmp_path / "runs",
        "stages.first.gate.health={mt_bench.length: 0.0}",
        "stages.1.gate.hold={mt_bench.ten: 10}",
    )
    first, second = outcome.verdict["gates"]
    assert first["outcome"] == "fail" and "length" in " ".join(first["reasons"])
    assert second["outcome"] == "pass"


def test_verify_finds_what_was_changed(tmp_path: Path) -> None:
    outcome = run(make_experiment(tmp_path), tmp_path / "runs")
    path = outcome.run.score_file("2-second", "mt_bench")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["value"] += 5.0
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    problems = "\n".join(verify(outcome.run))
    assert "scores/2-second/mt_bench.jsonl: changed" in problems
    assert "verdict.json: mt_bench.after" in problems


def test_a_run_is_not_overwritten_and_a_changed_recipe_not_resumed(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    run(recipe, tmp_path / "runs")
    with pytest.raises(InputError, match="this run exists"):
        run(recipe, tmp_path / "runs")
    (tmp_path / "runs" / "tiny" / "done").unlink()
    with pytest.raises(InputError, match=r"stages\.0\.dpo\.beta: 0\.1 -> 0\.3"):
        run(recipe, tmp_path / "runs", "stages.0.dpo.beta=0.3", resume=True)
    assert run(recipe, tmp_path / "runs", resume=True).passed


def test_references_and_base_scores_are_computed_once_for_all_runs(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    run(recipe, tmp_path / "runs")
    outcome = run(recipe, tmp_path / "runs", "stages.0.optim.learning_rate=2e-2", "stages.0.lora.rank=8", name="other")
    events = [json.loads(line) for line in (outcome.run.folder / "events.jsonl").read_text().splitlines()]
    first = next(event for event in events if event["event"] == "reference")
    assert (first["reused"], first["computed"]) == (12, 0)
    assert any(event["event"] == "base scores reused" for event in events)


def test_resume_refuses_other_data_and_edited_scores(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    outcome = run(recipe, tmp_path / "runs")
    (outcome.run.folder / "done").unlink()
    path = tmp_path / "finance.jsonl"
    before = path.read_text()
    path.write_text(before.replace("pay.", "pay well."))
    with pytest.raises(InputError, match="changed since this run began: sources finance"):
        run(recipe, tmp_path / "runs", resume=True)
    path.write_text(before)
    scores = outcome.run.score_file("base", "mt_bench")
    records = scores.read_text()
    scores.write_text(records.replace('"value": ', '"value": 1', 1))
    with pytest.raises(InputError, match="missing or changed since it was written"):
        run(recipe, tmp_path / "runs", resume=True)
    scores.write_text(records)
    assert run(recipe, tmp_path / "runs", resume=True).passed


def test_verify_computes_values_again_from_answers(tmp_path: Path) -> None:
    """A table answer that was edited together with every hash is still found: the answer does not give its value."""
    recipe = make_experiment(tmp_path)
    tasks = "evaluation.tasks={tatqa: {id: pocket, limit: 24, layout: cells}}"
    gates = ("stages.0.gate.hold={tatqa: 1}", "stages.1.gate.hold={tatqa: 1}")
    outcome = run(recipe, tmp_path / "runs", tasks, *gates)
    path = outcome.run.score_file("base", "tatqa")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    records[0]["value"] = 1.0 - records[0]["value"]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert any("its answer gives" in problem for problem in verify(outcome.run))


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("data/ledger.json", '"seen": 18', '"seen": 99', "asked, drawn and seen"),
        ("data/ledger.json", '"available"', '"availablex"', "cannot be understood"),
        ("verdict.json", '"kept_stage": "2-second"', '"kept_stage": "base"', "verdict.json: kept_stage"),
        ("stages/1-first/gate.json", '"action": "keep"', '"action": "stop"', "gate.json: action"),
        ("recipe.json", '"beta": 0.1', '"beta": 0.2', "fingerprint"),
        ("scores/base/mt_bench.jsonl", '"split": "test"', '"split": "dev"', "group or split"),
        ("stages/1-first/adapter/adapter_config.json", '"r": 4', '"r": 5', "hash differs"),
        ("items/mt_bench.jsonl", "Write about", "Rite about", "not the item of items/"),
        ("done", '"files"', '"flies"', "hashes of the run's files"),
        ("verdict.json", "{", "", "cannot be understood"),
    ],
)
def test_verify_names_what_was_tampered_with(
    done: Path, tmp_path: Path, name: str, old: str, new: str, said: str
) -> None:
    copy = shutil.copytree(done, tmp_path / "copy")
    path = copy / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    problems = verify(Run.open(copy))
    assert any(said in problem for problem in problems), problems


def test_verify_names_missing_and_new_files(done: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(done, tmp_path / "copy")
    shutil.rmtree(copy / "scores" / "base")
    (copy / "scores" / "abc").mkdir()
    (copy / "scores" / "abc" / "mt_bench.jsonl").write_text("")
    problems = "\n".join(verify(Run.open(copy)))
    assert "scores/base/mt_bench.jsonl: missing" in problems
    assert "scores/abc/mt_bench.jsonl: not there when the run ended" in problems


def test_resume_refuses_another_reward_model(tmp_path: Path) -> None:
    outcome = run(make_experiment(tmp_path), tmp_path / "runs")
    (outcome.run.folder / "done").unlink()
    make_reward(tmp_path / "reward", seed=5)
    with pytest.raises(InputError, match="changed since this run began: the reward"):
        run(tmp_path / "recipe.yaml", tmp_path / "runs", resume=True)


def test_answers_that_nobody_can_score_stop_before_training(tmp_path: Path) -> None:
    """512 positions leave no room for a prompt and 510 new tokens."""
    with pytest.raises(InputError, match="nothing can be said for gates: 0 groups scored"):
        run(make_experiment(tmp_path), tmp_path / "runs", "evaluation.generation.max_new_tokens=510")
    assert not (tmp_path / "runs" / "tiny" / "stages").exists()


def test_dropout_on_fewer_layers_than_the_stage_before(tmp_path: Path) -> None:
    overrides = ("stages.second.lora.target_modules=[q_proj]", "stages.second.lora.dropout=0.1")
    assert run(make_experiment(tmp_path), tmp_path / "runs", *overrides).passed


def test_base_scores_are_of_the_same_kind_of_thinking(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    template = tmp_path / "policy" / "chat_template.jinja"
    thought = "{% if enable_thinking %}{{ 'think' }}{% endif %}{% endif %}"
    template.write_text(template.read_text().rsplit("{% endif %}", 1)[0] + thought)
    run(recipe, tmp_path / "runs", name="off")
    with pytest.raises(InputError, match="the answer is thinking alone"):  # random weights never stop thinking
        run(recipe, tmp_path / "runs", "model.thinking=true", name="on")


@pytest.mark.parametrize("loss", ["simpo", "orpo", "dpop", "apo_down"])
def test_every_kind_of_loss_trains(tmp_path: Path, loss: str) -> None:
    overrides = (f"stages.0.dpo.loss={loss}", "stages.0.dpo.sft_weight=0.1", "stages.1.reference=base")
    assert run(make_experiment(tmp_path), tmp_path / "runs", *overrides).passed
