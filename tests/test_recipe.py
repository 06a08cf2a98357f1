"""Recipes: strict, with the line of every fault, and the same whatever way a number is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from equipoise.evaluation.tasks import TASKS
from equipoise.evaluation.tasks.base import Evidence, PairLikelihood, Rewards
from equipoise.model.generate import Answer
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import METRICS, TaskSpec
from equipoise.recipe_file import (
    RecipeError,
    changed_fields,
    fingerprint,
    load_recipe,
    parse_recipe,
    resolved,
    told_changes,
)
from equipoise.records import Item

FOLDER = Path(__file__).parents[1] / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if "spaces" not in path.parts)
GOOD = """\
name: small
model: {id: pocket}
reward: {id: pocket}
sources:
  general: {kind: pocket, domain: general}
stages:
  - name: first
    mix: {general: 100}
    optim: {learning_rate: 5e-6}
    gate: {improve: {mt_bench: 0.0}}
evaluation:
  tasks: {mt_bench: {}, tatqa: {limit: 3}}
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_the_repository_loads(path: Path) -> None:
    recipe = load_recipe(path)
    assert path.read_text().startswith("# ")
    assert "?" in path.read_text().splitlines()[0], "the first line is the question that the recipe asks"
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_numbers_defaults_and_plain_counts() -> None:
    recipe = parse_recipe(GOOD)
    assert recipe.stages[0].optim.learning_rate == 5e-6
    assert recipe.stages[0].mix.counts == {"general": 100}
    assert recipe.stages[0].reference == "previous"
    assert list(recipe.evaluation.tasks.chosen()) == ["tatqa", "mt_bench"]
    assert resolved(recipe)["fingerprint"] == fingerprint(recipe)


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "hint"),
    [
        ("learning_rate", "lerning_rate", 9, "stages.0.optim.lerning_rate", "did you mean 'learning_rate'"),
        ("limit: 3", "limit: three", 12, "evaluation.tasks.tatqa.limit", "integer"),
        ("{general: 100}", "{pairs: 9, shares: {general: 0.5}}", 8, "stages.0.mix", "sum to 0.5"),
        ("{general: 100}", "{genral: 100}", 8, "stages.0.mix.genral", "did you mean 'general'"),
        ("mt_bench: 0.0", "reddit: 0.0", 10, "stages.0.gate.improve.reddit", "not evaluated"),
        ("kind: pocket", "kind: poket", 5, "sources.general", "'pocket'"),
        ("learning_rate: 5e-6", "learning_rate: -1", 9, "stages.0.optim.learning_rate", "greater than 0"),
        ("reward: {id: pocket}\n", "", 11, "evaluation.tasks", "scored by a reward model"),
        (
            "tasks: {mt_bench: {}, tatqa: {limit: 3}}",
            "tasks: {mtbench: {}}",
            12,
            "evaluation.tasks.mtbench",
            "'mt_bench'",
        ),
        ("name: small\n", "", None, "name", "missing"),
        (
            "mt_bench: 0.0",
            "mt_bench.corect: 0.0",
            10,
            "stages.0.gate.improve.mt_bench.corect",
            "did you mean 'correct'",
        ),
        ("mt_bench: 0.0", "mt_bench: .nan", 10, "stages.0.gate.improve.mt_bench", "finite"),
        ("learning_rate: 5e-6", "learning_rate: .inf", 9, "stages.0.optim.learning_rate", "finite"),
        (
            "mix: {general: 100}",
            "mix: {general: 1}\n    lora: {target_modules: []}",
            9,
            "stages.0.lora.target_modules",
            "(found [])",
        ),
        ("id: pocket}\nrew", 'id: ""}\nrew', 2, "model.id", "at least 1 character"),
        ("name: small", "name: small\nseed: 10000000000000000000000", 2, "seed", "less than 2147483648"),
        ("kind: pocket,", "kind: pocket, sed: 3,", 5, "sources.general.sed", "did you mean 'seed'"),
        ("kind: pocket,", "kind: on_policy, id: x, samples: 3,", 5, "sources.general.samples", "'sampling.samples'"),
        ("kind: pocket,", "kind: hh, id: x, samplin: 3,", 5, "sources.general.samplin", "did you mean 'split'"),
        (
            "evaluation:",
            "evaluation:\n  generation: {max_new_tokens: {tatqaa: 5}}",
            12,
            "evaluation.generation.max_new_tokens.tatqaa",
            "did you mean 'tatqa'",
        ),
        ("improve: {mt_bench: 0.0}", "health: {mt_bench.lenght: 2}", 10, "stages.0.gate", "domain.figure"),
    ],
)
def test_faults_name_line_field_and_remedy(old: str, new: str, line: int | None, field: str, hint: str) -> None:
    assert old in GOOD
    with pytest.raises(RecipeError) as caught:
        parse_recipe(GOOD.replace(old, new), where="r.yaml")
    first = str(caught.value).splitlines()[0]
    place = f"r.yaml:{line}: " if line else "r.yaml: "
    assert first.startswith(f"{place}{field}")
    assert hint in first


def test_no_stages_no_mapping_no_yaml_no_file(tmp_path: Path) -> None:
    without = GOOD[: GOOD.index("  - name")].replace("stages:", "stages: []") + GOOD[GOOD.index("evaluation") :]
    for text, said in [
        (without, "stages: "),
        ("- a\n- b\n", "mapping"),
        ("name: [unclosed\n", "not valid YAML"),
        ("name: a\nname: b\n", "not valid YAML"),
        ("a: {{b: 1, c: {d: 2}}}\n", "a key is itself a mapping"),
    ]:
        with pytest.raises(RecipeError, match=said):
            parse_recipe(text)
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "none.yaml")


def test_overrides_by_position_and_by_name() -> None:
    recipe = parse_recipe(GOOD, ["stages.first.dpo.beta=1e-2", "stages.0.lora.rank=4", "seed=7"])
    assert (recipe.stages[0].dpo.beta, recipe.stages[0].lora.rank, recipe.seed) == (0.01, 4, 7)
    for wrong in ("stages.second.dpo.beta=1", "seed", "name.x=1", "stages.0.dpo.bta=1"):
        with pytest.raises(RecipeError):
            parse_recipe(GOOD, [wrong])


def test_identity_is_apart_from_the_name() -> None:
    one, renamed = parse_recipe(GOOD), parse_recipe(GOOD, ["name=other"])
    changed = parse_recipe(GOOD, ["stages.0.dpo.beta=0.2"])
    assert fingerprint(one) == fingerprint(renamed) != fingerprint(changed)
    assert changed_fields(one, changed) == ["stages.0.dpo.beta: 0.1 -> 0.2"]
    assert told_changes([f"{n}" for n in range(8)]) == [f"{n}" for n in range(8)]
    assert told_changes([f"{n}" for n in range(40)]) == [*(f"{n}" for n in range(8)), "and 32 more"]


def test_gates_may_name_exactly_the_figures_that_tasks_give() -> None:
    """A gate on a misspelt figure stops before training; so the names must be those that the tasks write."""
    rows = [{"id": "1", "title": "t", "selftext": "s", "subreddit": "r", "system": "", "user": "u", "assistant": "a",
             "question_id": 1, "category": "c", "turns": ["x", "y"], "check": {"any_of": ["a"]}}]  # fmt: skip
    answers = [Answer("Answer: 5", 3, False)] * 2
    pair = PairLikelihood(-1.0, -2.0, -1.0, -2.0, 1, 1)
    rows[0] |= {"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    for name in METRICS:
        task = TASKS[name]
        if task.items is None:
            item = Item("1", name, (), "g", gold={"pair": ["a", "b"]})
        elif name == "tatqa":
            item = Item("1", name, (), "g", gold={"answer": 5, "answer_type": "arithmetic", "scale": ""})
        else:
            checks = [{"any_of": ["a"]}] * 2 if name == "mt_bench" else {"any_of": ["a"]}
            item = task.items([{**rows[0], "check": checks}], TaskSpec(), name).items[0]
        turns = 1 + len(item.follow_ups)
        rewards = Rewards([0.0] * turns, lambda raw: 5.0, reference=1.0)
        given = task.score(item, Evidence(answers[:turns], rewards, pair=pair)).metrics
        assert set(given) == set(METRICS[name])


def test_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    text = GOOD.replace("model: {id: pocket}", 'model: {id: "${A_FOLDER:-here}/model"}')
    monkeypatch.delenv("A_FOLDER", raising=False)
    assert parse_recipe(text).model.id == "here/model"
    monkeypatch.setenv("A_FOLDER", "/there")
    assert parse_recipe(text).model.id == "/there/model"
    monkeypatch.delenv("A_FOLDER")
    with pytest.raises(RecipeError, match="set the environment variable A_FOLDER"):
        parse_recipe(text.replace(":-here", ""))
