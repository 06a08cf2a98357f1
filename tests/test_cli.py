"""The command line: what each command prints, and what happens when the user gets something wrong."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers
from typer.testing import CliRunner

from equipoise import cli, pocket
from equipoise.records import Score
from experiments import contents, equipoise, make_experiment


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in runs/tiny, and its recipe beside it; several tests only read it."""
    folder = tmp_path_factory.mktemp("done")
    make_experiment(folder)
    result = equipoise("run", folder / "recipe.yaml", "--out", folder / "runs", cache=folder / "cache")
    assert result.returncode == 0, result.stderr
    assert "Verdict: base against 2-second" in result.stdout
    assert result.stdout.rstrip().endswith("report.html")
    return folder


@pytest.mark.parametrize("command", ["run", "plan", "data", "eval", "compare", "report", "verify", "recipes", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: tiny", "nmae: tiny", "nmae: unknown key; did you mean 'name'?"),
        ("rank: 4", "rank: many", "stages.0.lora.rank: input should be a valid integer"),
        ("general.jsonl", "none.jsonl", "none.jsonl"),
        ("prompt: question", "prompt: questoin", "did you mean 'question'"),
        ("shares: {general: 0.25", "shares: {general: 0.5", "shares sum to 1.25, not to 1"),
        ("/policy}", "/nowhere}", "no such folder"),
        ("mt_bench: 100", "tatqa: 100", "'tatqa', which is not evaluated"),
        ("{general: 12}", "{general: 1200}", "1200 pairs asked, 40 available"),
        ("questions.jsonl}", "questions.jsonl, limit: 2}", "raise its limit"),
        ("rank: 4}", "rank: 4, target_modules: [nothing]}", "lora.target_modules"),
    ],
)
def test_a_mistake_is_one_clear_line_and_leaves_nothing(tmp_path: Path, old: str, new: str, said: str) -> None:
    recipe = make_experiment(tmp_path)
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new, 1))
    result = invoke("run", recipe, "--out", tmp_path / "runs")
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs" / "tiny").exists()


def test_broken_model_folders(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    policy = tmp_path / "policy"

    def said(name: str, data: bytes | None) -> str:
        path = policy / name
        before = path.read_bytes()
        path.unlink() if data is None else path.write_bytes(data)
        result = invoke("run", recipe, "--out", tmp_path / "runs")
        path.write_bytes(before)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        return str(result.output)

    weights = (policy / "model.safetensors").read_bytes()
    assert "cut short" in said("model.safetensors", weights[:-100])
    assert "no .safetensors weights" in said("model.safetensors", None)
    assert "not a model folder" in said("config.json", b"{}")
    assert "config.json" in said("config.json", b"{")
    assert "tokenizer" in said("tokenizer.json", b"{")
    (policy / "chat_template.jinja").rename(policy / "kept")
    result = invoke("run", recipe, "--out", tmp_path / "runs")
    (policy / "kept").rename(policy / "chat_template.jinja")
    assert result.exit_code == 2 and "no chat template" in result.output


def test_wrong_uses_of_commands(tmp_path: Path, done: Path) -> None:
    for arguments, said in [
        (("run",), "name a recipe"),
        (("run", tmp_path / "none.yaml"), "cannot read the recipe"),
        (("run", "--resume", tmp_path), "not a run folder"),
        (("verify", tmp_path), "not a run folder"),
        (("report", tmp_path), "not a run folder"),
        (("compare", tmp_path, done / "runs/tiny"), "neither a run"),
        (("compare", done / "none", done / "runs/tiny"), "no such folder"),
        (("compare", done / "runs/tiny", done / "runs/tiny", "--split", "x"), "one of all, dev, test"),
        (("eval", "pocket", "--task", "chess"), "evaluation.tasks.chess: unknown key"),
        (("eval", done / "policy", "--task", "reddit"), "name the reward model"),
        (("run", done / "recipe.yaml", "--set", "seed"), "write it as a.b.c=value"),
    ]:
        result = invoke(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert said in result.output and "Traceback" not in result.output


def test_data_prints_the_ledger_and_marks_the_trained_tokens(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    result = invoke("data", recipe, "--show", "1")
    assert result.exit_code == 0, result.output
    assert "chosen: [" in result.output and "<|im_end|>]" in result.output
    found = json.loads(invoke("data", recipe, "--show", "2", "--json").stdout)
    assert found["stages"]["second"]["sources"]["finance"]["drawn"] == 8
    assert found["problems"] == [] and len(found["examples"]) == 4


def test_plan_before_anything_expensive(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    result = invoke("plan", recipe, "--json")
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    first = plan["stages"][0]
    assert (first["pairs"], first["pairs_seen"], first["steps"]) == (12, 18, 5)
    # rank 4 on all linear layers of a model of 2 layers: 4 * (in + out), hidden 32, kv 16, feed-forward 64
    assert first["lora_parameters"] == 2 * 4 * ((32 + 32) * 2 + (32 + 16) * 2 + (32 + 64) * 3)
    assert plan["evaluation"]["mt_bench"]["dev"] + plan["evaluation"]["mt_bench"]["test"] == 10
    assert plan["evaluation"]["mt_bench"]["base_mean"] is not None
    assert not (tmp_path / "runs").exists()
    shown = invoke("plan", recipe).output
    assert "Training" in shown and "Memory in training (GiB; cpu: " in shown and "vocabulary" in shown


def test_plan_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    here, there = (json.loads(invoke("plan", recipe, "--json", *more).stdout) for more in ([], ["--gpu", "24"]))
    assert there["memory"] == {"available": 24 * 2**30, "device": "cuda"}
    assert [stage["micro_batch_tokens"] for stage in here["stages"]] == [1024, 1024]
    assert [stage["micro_batch_tokens"] for stage in there["stages"]] == [4096, 4096]
    # bf16 instead of fp32 on a CPU
    assert 2 * there["stages"][0]["memory_parts"]["weights"] == here["stages"][0]["memory_parts"]["weights"]


def test_plan_of_a_configuration_without_weights(tmp_path: Path) -> None:
    """The shape of Qwen3-1.7B: 1,720,574,976 parameters, the vocabulary tied."""
    recipe = make_experiment(tmp_path)
    transformers.Qwen3Config(
        architectures=["Qwen3ForCausalLM"], vocab_size=151936, hidden_size=2048, intermediate_size=6144,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True,
    ).save_pretrained(tmp_path / "large")  # fmt: skip
    result = invoke(
        "plan", recipe, "--set", f"model.id={tmp_path / 'large'}", "--set", "stages.0.lora.rank=8", "--json"
    )
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["model"]["parameters"] == 1_720_574_976
    assert plan["stages"][0]["lora_parameters"] == 8_716_288
    assert plan["stages"][0]["memory"] > 4 * 1_720_574_976
    assert plan["stages"][0]["tokens"] > 0 and plan["stages"][0]["steps"] == 5
    assert any("no weights" in note for note in plan["notes"])


def test_plan_names_a_vacuous_gate(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    (tmp_path / "reward" / "calibration.json").write_text('{"centre": 100, "scale": 1}')  # so that no answer succeeds
    result = invoke("plan", recipe, "--set", "stages.0.gate.hold={finance_instruct.success: 0.1}", "--json")
    assert any("finance_instruct.success" in text for text in json.loads(result.stdout)["problems"])


def test_eval_twice_gives_the_same_bytes(tmp_path: Path, done: Path) -> None:
    for name in ("a", "b"):
        result = equipoise(
            "eval", done / "policy", "--recipe", done / "recipe.yaml", "--adapter",
            done / "runs/tiny/stages/1-first/adapter", "--out", tmp_path / name, cache=tmp_path / f"cache-{name}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    for task in ("mt_bench", "finance_instruct"):
        one = (tmp_path / "a" / f"{task}.jsonl").read_bytes()
        assert one == (tmp_path / "b" / f"{task}.jsonl").read_bytes()
        assert one == (done / f"runs/tiny/scores/1-first/{task}.jsonl").read_bytes()
        assert Score.from_record(json.loads(one.splitlines()[0])).task == task


def test_compare_runs_and_folders(done: Path) -> None:
    run = done / "runs/tiny"
    found = json.loads(invoke("compare", run / "scores/base", run, "--split", "test", "--json").stdout)
    verdict = json.loads((run / "verdict.json").read_text())
    row = found[str(run)]["mt_bench"]
    assert row["difference"] == verdict["mt_bench"]["difference"] and row["ci"] == verdict["mt_bench"]["ci"]
    same = invoke("compare", run, run)
    assert same.exit_code == 0 and "+0.000" in same.output


def test_verify_report_and_reading_leave_a_run_as_it_is(done: Path) -> None:
    before = contents(done / "runs/tiny")
    assert invoke("verify", done / "runs/tiny").exit_code == 0
    assert json.loads(invoke("verify", done / "runs/tiny", "--json").stdout) == {"run": "tiny", "problems": []}
    assert invoke("report", done / "runs/tiny").output.strip().endswith("report.html")
    assert contents(done / "runs/tiny") == before


def test_recipes_and_doctor() -> None:
    rows = json.loads(invoke("recipes", "--json").stdout)
    assert {"pocket", "pocket-reddit-only", "pocket-mixed", "real-data-small"} <= {row["name"] for row in rows}
    assert all(row["question"].endswith("?") or "?" in row["question"] for row in rows)
    facts = json.loads(invoke("doctor", "--json").stdout)
    assert facts["torch"].startswith("2") and "writable" in facts["cache folder"]


def test_a_pair_of_two_sources_is_trained_on_once(tmp_path: Path) -> None:
    recipe = make_experiment(tmp_path)
    general = re.search(r"  general:\n(?:    .*\n)+", recipe.read_text())[0]
    text = recipe.read_text().replace("  finance:", f"{general.replace('general:', 'general2:')}  finance:", 1)
    recipe.write_text(
        text.replace("{pairs: 10", "{pairs: 10, when_short: shrink").replace("general: 0.25", "general2: 0.25")
    )
    result = invoke("data", recipe, "--json")
    assert result.exit_code == 2 and "0 available" in result.output
    recipe.write_text(recipe.read_text().replace("general2: 0.25", "general: 0.25"))
    assert "general2" not in json.loads(invoke("data", recipe, "--json").stdout)["sources"]


def test_tokenizer_and_weights_of_different_builds_stop(tmp_path: Path) -> None:
    """A foreign tokenizer would give gibberish without an error: the fingerprint notices."""
    recipe = make_experiment(tmp_path)
    mixed = shutil.copytree(pocket.model_dir(), tmp_path / "mixed")
    tokenizer = json.loads((mixed / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][::-1]
    (mixed / "tokenizer.json").write_text(json.dumps(tokenizer))
    result = invoke("run", recipe, "--out", tmp_path / "runs", "--set", f"model.id={mixed}")
    assert result.exit_code == 2
    assert "tokenizer.json does not belong to this build" in result.output
