"""`equipoise eval` from the command line: a server that answers, a judge that grades, repeats, other tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chat_server import chat_server, says
from equipoise import cli
from equipoise.model import adapters
from equipoise.model.load import load_policy
from equipoise.recipe import Lora
from equipoise.recipe_parts import ModelSpec
from experiments import write_rows
from models import make_policy

RULE = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
IFEVAL = [{"key": n, "prompt": f"Name {n} colours. Use no comma.", **RULE} for n in range(4)]
QUESTIONS = [
    {"question_id": n, "category": "math", "turns": [f"What is {n} + 1?", "Doubled?"], "reference": [str(n + 1), "x"]}
    for n in range(4)
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_server_answers_and_is_asked_once(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    write_rows(tmp_path / "ifeval.jsonl", IFEVAL)
    limit = f"evaluation.tasks.ifeval.id={tmp_path / 'ifeval.jsonl'}"
    with chat_server(lambda body: says("red, blue" if "3" in str(body["messages"]) else "red and blue")) as server:
        command = ("eval", "served", "--server", server.url, "--task", "ifeval", "--set", limit, "--out")
        first = invoke(*command, tmp_path / "one")
        assert first.exit_code == 0, first.output
        assert "Scores of served" in first.output and "0.750" in first.output
        assert len(server.asked) == 4 and {body["model"] for body in server.asked} == {"served"}
        assert invoke(*command, tmp_path / "two").exit_code == 0 and len(server.asked) == 4  # kept by content
    one, two = (tmp_path / name / "ifeval.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert [(row["value"], row["answers"]) for row in records(one)][3] == (0.0, ["red, blue"])


def test_a_task_that_needs_weights_is_refused_for_a_server(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    write_rows(rows, [{"q": f"{n}?", "good": "Yes.", "bad": "No."} for n in range(6)])
    columns = "{prompt: q, chosen: good, rejected: bad}"
    source = f"evaluation.tasks.preference_accuracy.source={{kind: table, id: {rows}, domain: d, columns: {columns}}}"
    result = invoke("eval", "x", "--server", "http://127.0.0.1:9/v1", "--task", "preference_accuracy", "--set", source)
    assert result.exit_code == 2
    assert "evaluation.tasks.preference_accuracy: needs the model's log-probabilities" in result.output


def test_a_judge_grades_both_turns_and_what_it_does_not_grade_is_unscored(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    write_rows(tmp_path / "questions.jsonl", QUESTIONS)

    def judge(body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        return says(
            "I would rather not say."
            if "What is 2 + 1?" in asked
            else "Fine. [[7]]"
            if "Doubled?" in asked
            else "[[4]]"
        )

    with chat_server(judge) as server:
        task = f"{{id: {tmp_path / 'questions.jsonl'}, scored_by: judge}}"
        result = invoke(
            "eval", "pocket", "--task", "mt_bench", "--set", f"evaluation.tasks.mt_bench={task}",
            "--set", f"evaluation.judge={{url: '{server.url}', model: grader}}", "--out", tmp_path / "out",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        prompts = [body["messages"][-1]["content"] for body in server.asked]
    scores = {row["id"]: row for row in records(tmp_path / "out" / "mt_bench.jsonl")}
    assert (scores["0"]["value"], scores["0"]["metrics"]) == (5.5, {"turn_1": 4.0, "turn_2": 7.0})
    assert scores["2"]["value"] is None and scores["2"]["unscored"] == "the judge gave no grade"
    assert any("reference answer" in prompt for prompt in prompts)


def test_an_adapter_of_another_model_is_told(tmp_path: Path) -> None:
    """Its shapes fit, so that scores alone would say nothing; a copy at the model's own place is no other model."""
    model, other = make_policy(tmp_path / "model"), tmp_path / "adapter"
    policy = load_policy(ModelSpec(id=str(model)))
    adapters.save(adapters.add(policy.model, Lora(rank=2), seed=0, base_name="Qwen/Qwen3-1.7B"), other)
    source = "{kind: pocket, domain: general, rows: 40}"
    task = f"evaluation.tasks.preference_accuracy={{source: {source}, limit: 6}}"
    command = ("eval", model, "--task", "preference_accuracy", "--set", task, "--json", "--adapter", other)
    said = invoke(*command)
    assert said.exit_code == 0, said.output
    assert f"warning: adapter {other} says it was trained on Qwen/Qwen3-1.7B, and is put on {model}" in said.stderr
    json.loads(said.stdout)
    config = other / "adapter_config.json"
    for same in (model, model / ".." / "model"):
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(same)}))
        assert adapters.of_another_base(str(model), [other]) == []


def test_repeats_measure_the_noise_of_the_instrument(tmp_path: Path) -> None:
    command = ("eval", "pocket", "--task", "tatqa", "--limit", 12, "--out")
    result = invoke(*command, tmp_path / "one", "--repeats", 3)
    assert result.exit_code == 0, result.output
    assert "Noise of the instrument" in result.output
    noise = json.loads((tmp_path / "one" / "noise.json").read_text())["tatqa"]
    assert noise["all"]["repeats"] == 3 and noise["all"]["n"] == 12
    assert invoke(*command, tmp_path / "two").exit_code == 0
    compared = invoke("compare", tmp_path / "one", tmp_path / "two", "--json")
    row = json.loads(compared.output)[str(tmp_path / "two")]["tatqa"]
    assert row["noise"] == noise["all"]["limit"] and row["difference"] == 0.0
    (tmp_path / "one" / "noise.json").write_text('{"tatqa": 3}')
    damaged = invoke("compare", tmp_path / "one", tmp_path / "two")
    assert damaged.exit_code == 2 and "noise.json: not what `eval --repeats`" in damaged.output


def test_the_same_prompts_one_by_one_give_the_same_answers_in_the_invariant_mode(tmp_path: Path) -> None:
    invariant = ("eval", "pocket", "--task", "tatqa", "--set", "evaluation.generation.batch_invariant=true")
    assert invoke(*invariant, "--limit", 6, "--out", tmp_path / "few").exit_code == 0
    assert invoke(*invariant, "--limit", 12, "--out", tmp_path / "more").exit_code == 0
    few, more = (
        {row["id"]: row["answers"] for row in records(tmp_path / name / "tatqa.jsonl")} for name in ("few", "more")
    )
    assert all(more[id] == answers for id, answers in few.items()) and len(more) == 2 * len(few)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--task", "ifevil"), "evaluation.tasks.ifevil: unknown key; did you mean 'ifeval'?"),
        (("--task", "lm_eval:no such task"), "lm_eval:no such task"),
        (("--task", "preference_accuracy"), "evaluation.tasks.preference_accuracy.source: missing"),
        (("--task", "reddit", "--reward", "pocket", "--reward", "pocket"), "--reward: "),
        (("--task", "tatqa", "--out", __file__), "this is a file; name a folder"),
        (("--task", "tatqa", "--set", "model.id=x"), "only keys of `evaluation` can be set here"),
        (("--task", "ifeval", "--set", "evaluation.tasks.ifeval.id=pocket"), "the embedded world has no rows for it"),
        (
            ("--task", "tatqa", "--set", "evaluation.generation.backend=openai"),
            "needs `server: {url: ..., model: ...}`",
        ),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("eval", "pocket", *arguments)
    assert result.exit_code == 2 and said in result.output, result.output
    assert "Traceback" not in result.output
