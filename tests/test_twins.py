"""Pocket twins: the same experiment by a stated rule, the same bytes for the same recipe, and each of them runs."""

from __future__ import annotations

import importlib
import json
import resource
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from equipoise import cli
from equipoise.data.mix import asked
from equipoise.dpo.schedule import steps
from equipoise.recipe import Recipe, Stage
from equipoise.recipe_file import load_recipe, parse_recipe
from equipoise.recipe_text import plain_recipe, question_of, recipe_text
from equipoise.records import InputError
from experiments import equipoise

RECIPES = sorted((Path(__file__).parents[1] / "recipes" / "original").glob("*.yaml"))
twins = importlib.import_module("equipoise.pocket.twin")


def twin_of(recipe: Recipe) -> Recipe:
    return parse_recipe(recipe_text(twins.twin(plain_recipe(recipe)), "Is it the same?"))


def steps_of(stage: Stage) -> int:
    return steps(sum(asked(stage.mix).values()), stage.optim.epochs, stage.optim.batch_size)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_structure_is_that_of_the_recipe(path: Path) -> None:
    recipe = load_recipe(path)
    twin = twin_of(recipe)
    assert (twin.model.id, twin.name, twin.seed) == ("pocket", f"{recipe.name}-pocket", recipe.seed)
    assert [(name, spec.kind) for name, spec in twin.sources.items()] == [
        (name, spec.kind) for name, spec in recipe.sources.items()
    ]
    for one, other in zip(twin.stages, recipe.stages, strict=True):
        assert (one.name, one.order, one.reference, one.gate) == (other.name, other.order, other.reference, other.gate)
        assert (one.dpo.loss, one.dpo.beta) == (other.dpo.loss, other.dpo.beta)
        assert (one.lora.rank, one.lora.alpha, one.lora.dropout) == (other.lora.rank, other.lora.alpha, 0.05)
        assert one.optim.learning_rate == pytest.approx(150 * other.optim.learning_rate)
        assert (one.optim.epochs, one.optim.schedule) == (other.optim.epochs, other.optim.schedule)
        assert steps_of(one) == min(steps_of(other), 32)
        assert one.mix.shares == other.mix.shares
        pairs, before = asked(one.mix), asked(other.mix)
        for source, count in before.items():
            assert abs(pairs[source] - count / sum(before.values()) * sum(pairs.values())) < 1
    assert list(twin.evaluation.tasks.chosen()) == list(recipe.evaluation.tasks.chosen())
    assert all(spec.id == "pocket" for spec in twin.evaluation.tasks.chosen().values())


def test_the_amount_by_hand() -> None:
    """Experiment 3: 17,809 pairs in batches of 64 are 279 steps; 17,809 / 4 * 32 / 279 = 510.7 pairs make 32 of 16."""
    assert twins.scaled({"reddit": 15809, "finance": 2000}, {"batch_size": 64}) == {"reddit": 453, "finance": 57}
    # 200 of 800 pairs are seen, in 4 steps: 50 of 200 are 4 steps of 16.
    assert twins.scaled({"general": 800}, {"epochs": 0.25, "batch_size": 64}) == {"general": 200}
    # One step of 64 pairs: a quarter of them would be 16, and 32 is the least.
    assert twins.scaled({"a": 60, "b": 4}, {"batch_size": 64}) == {"a": 30, "b": 2}
    # 8000 pairs at a twentieth of an epoch: 2000 would be asked for, and 800 is the most.
    assert sum(twins.scaled({"a": 8000}, {"epochs": 0.05}).values()) == 800
    assert twins.scaled({"a": 6399, "b": 1}, {})["b"] == 1


def test_sources_tasks_and_rules_that_the_world_does_not_have() -> None:
    text = """\
name: all-kinds
model: {id: a/b, quantization: nf4, revision: main}
reward: {id: c/d, also: [{id: e/f}]}
sources:
  hh: {kind: hh, id: x/hh, domain: safety, hold_out: 0.1}
  chat: {kind: table, id: x/y, domain: finance, columns: {prompt: p, chosen: c, rejected: r}}
  own: {kind: on_policy, id: x/z, domain: reddit, columns: {prompt: q}, sampling: {samples: 8, max_new_tokens: 512}}
  bench: {kind: mt_bench_style, policies: [{model: {id: g/h}}, {temperature: 0.7, adapters: [some/folder]}]}
  money: {kind: finance_instruct, id: x/f, rejected: corrupted, min_answer_chars: 400, reward: {id: i/j}}
stages:
  - name: only
    mix: {pairs: 640, shares: {hh: 0.5, own: 0.5}, by: tokens}
    order: {kind: curriculum, by: length}
    optim: {learning_rate: 1e-5, optimizer: paged_adamw_8bit, micro_batch_tokens: 8192}
    lora: {rank: 4, target_modules: [q_proj]}
    reference: base
    gate: {improve: {mt_bench: 0.5, ifeval: 0.0}, hold: {tatqa: 0.02}, health: {ifeval.empty: 0.1, tatqa.empty: 0.2}}
evaluation:
  tasks: {tatqa: {limit: 5, margin: 0.03}, mt_bench: {scored_by: judge}, ifeval: {id: some/file}}
  judge: {url: http://127.0.0.1:1/v1, model: m}
  generation: {backend: vllm, max_new_tokens: {tatqa: 32, ifeval: 900}}
  dev_share: 0.5
"""
    twin = twin_of(parse_recipe(text))
    found: dict[str, Any] = {name: spec.model_dump(exclude_unset=True) for name, spec in twin.sources.items()}
    assert found["hh"] == {"kind": "pocket", "domain": "general", "rows": 1000, "hold_out": 0.1}
    assert found["chat"] == {"kind": "pocket", "domain": "finance", "rows": 1000}
    assert (found["own"]["domain"], found["own"]["sampling"]) == ("reddit", {"samples": 8, "max_new_tokens": 48})
    assert found["bench"]["policies"] == [{}, {"temperature": 0.7}]
    assert found["money"] == {"kind": "finance_instruct", "id": "pocket", "rows": 2000, "rejected": "corrupted"}
    stage = twin.stages[0]
    assert (stage.reference, stage.mix.by, stage.lora.target_modules) == ("base", "tokens", "all-linear")
    assert (stage.optim.optimizer, stage.optim.micro_batch_tokens, stage.optim.learning_rate) == ("adamw", None, 1.5e-3)
    assert stage.gate.model_dump(exclude_unset=True) == {
        "improve": {"mt_bench": 0.5},
        "hold": {"tatqa": 0.02},
        "health": {"tatqa.empty": 0.2},
    }
    assert twin.evaluation.dev_share == 0.5 and twin.evaluation.judge is None
    assert list(twin.evaluation.tasks.chosen()) == ["tatqa", "mt_bench"]
    small = twin_of(parse_recipe(text.replace("id: a/b, quantization: nf4, revision: main", "id: pocket")))
    assert small.stages[0].optim.learning_rate == 1e-5
    other = parse_recipe(text.replace("mt_bench: 0.5, ", ""))
    alone = {**plain_recipe(other), "evaluation": {"tasks": {"ifeval": {"id": "some/file"}}}}
    with pytest.raises(InputError, match="no rows for its tasks"):
        twins.twin(alone)


def test_the_command_shows_and_writes_the_same_bytes(tmp_path: Path) -> None:
    def invoke(*words: object) -> Any:
        return CliRunner().invoke(cli.app, ["recipes", *map(str, words)])

    name = "3-hybrid-2way-as-built"
    path = next(path for path in RECIPES if path.stem == name)
    printed, shown = invoke("pocket", name), invoke("show", name)
    assert shown.output == path.read_text()
    assert invoke("pocket", path, "--out", tmp_path / "twin.yaml").exit_code == 0
    assert (tmp_path / "twin.yaml").read_text() == printed.output == invoke("pocket", name).output
    question = question_of(path.read_text())
    assert printed.output.splitlines()[0] == f"# {question} (The pocket twin of {name}.)"
    assert load_recipe(tmp_path / "twin.yaml").name == f"{name}-pocket"
    listed = {row["name"] for row in json.loads(invoke("--json").output)}
    assert {path.stem for path in RECIPES} | {"pocket", "tatqa-beta"} <= listed
    for wrong in (("pocket",), ("show", "nothing"), ("make", name), ("pocket", "tatqa-beta")):
        result = invoke(*wrong)
        assert result.exit_code == 2 and "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_each_twin_runs_in_a_minute_of_one_core(path: Path, tmp_path: Path) -> None:
    made = equipoise("recipes", "pocket", path, "--out", tmp_path / "twin.yaml")
    assert made.returncode == 0, made.stderr
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = equipoise("run", tmp_path / "twin.yaml", "--out", tmp_path / "runs", cache=tmp_path / "cache")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    assert "Verdict" in done.stdout
    assert after.ru_utime - before.ru_utime < 60
