"""The original experiments as recipes: their figures, the pairs they draw, and the plan on the real architecture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import transformers
from ruamel.yaml import YAML
from typer.testing import CliRunner

from equipoise import cli
from equipoise.data.mix import asked
from equipoise.recipe import Recipe
from equipoise.recipe_file import load_recipe
from experiments import write_rows
from test_experiment_shapes import SHAPES, posts, said

FOLDER = Path(__file__).parents[1] / "recipes" / "original"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SPACES = sorted((FOLDER / "spaces").glob("*.yaml"))
DESIGNED: dict[str, dict[str, float]] = {
    "3-hybrid-2way": {"reddit": 0.7, "finance": 0.3},
    "4-hybrid-3way": {"reddit": 0.4, "finance": 0.3, "general": 0.3},
    "5-optimized-2way": {"reddit": 0.6, "finance": 0.4},
    "6-balanced": {"reddit": 0.5, "finance": 0.5},
}
TRAINED = {
    "1-pure-reddit": [(0.02, 5e-6, 1, 8, 16)],
    "3-hybrid-2way": [(0.02, 5e-6, 1, 8, 16)],
    "4-hybrid-3way": [(0.02, 5e-6, 1, 8, 16)],
    "5-optimized-2way": [(0.015, 3e-6, 1, 8, 16)],
    "6-balanced": [(0.0175, 4e-6, 1, 8, 16)],
    "7-progressive-2stage": [(0.01, 2e-6, 0.25, 8, 16), (0.018, 3.5e-6, 0.75, 12, 24)],
    "8-progressive-3stage": [(0.1, 5e-6, 1, 8, 16), (0.018, 3.5e-6, 1, 12, 24), (0.025, 4e-6, 1, 16, 32)],
    "production-mt-bench": [(0.015, 3e-6, 1, 8, 16)],
    "production-balanced": [(0.0175, 4e-6, 1, 8, 16)],
    "production-finance": [(0.02, 5e-6, 1, 8, 16)],
}
"""Beta, learning rate, epochs, rank and alpha of each stage."""


def recipe_of(name: str) -> Recipe:
    return load_recipe(FOLDER / f"{name}.yaml")


def experiment(name: str) -> str:
    return name.removesuffix("-as-designed").removesuffix("-as-built")


def test_every_experiment_is_there_twice_and_the_production_configurations_once() -> None:
    pairs = {f"{name}-as-{kind}" for name in SHAPES for kind in ("designed", "built")}
    assert set(RECIPES) == pairs | {name for name in TRAINED if name.startswith("production")}


@pytest.mark.parametrize("name", RECIPES)
def test_the_values_are_those_of_the_experiment(name: str) -> None:
    recipe, kind = recipe_of(name), experiment(name)
    assert (recipe.name, (FOLDER / f"{name}.yaml").read_text().splitlines()[0][-1]) == (name, "?")
    found = [
        (stage.dpo.beta, stage.optim.learning_rate, stage.optim.epochs, stage.lora.rank, stage.lora.alpha)
        for stage in recipe.stages
    ]
    assert found == TRAINED[kind]
    for stage in recipe.stages:
        assert (stage.optim.batch_size, stage.dpo.max_length, stage.dpo.max_prompt_length) == (64, 2560, 1536)
    eighth = kind == "8-progressive-3stage"
    assert recipe.model.id == ("Qwen/Qwen2.5-1.5B-Instruct" if eighth else "Qwen/Qwen3-1.7B")
    assert {task: spec.limit for task, spec in recipe.evaluation.tasks.chosen().items()} == {
        "tatqa": 250,
        "mt_bench": 50,
        "finance_instruct": 50,
        "reddit": 100,
    }


@pytest.mark.parametrize("name", SHAPES)
def test_built_has_the_counts_and_designed_the_shares(name: str) -> None:
    built, designed = (recipe_of(f"{name}-as-{kind}") for kind in ("built", "designed"))
    assert [stage.mix.counts for stage in built.stages] == SHAPES[name]
    for one, other, shape in zip(designed.stages, built.stages, SHAPES[name], strict=True):
        assert sum(asked(one.mix).values()) == sum(shape.values())
        assert (one.dpo, one.optim, one.lora, one.gate) == (other.dpo, other.optim, other.lora, other.gate)
    if name in DESIGNED:
        assert designed.stages[0].mix.shares == DESIGNED[name]
    reddit = [recipe.sources["reddit"].model_dump() for recipe in (built, designed)]
    assert [source["fallback"] for source in reddit] == [True, False]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_key_of_a_search_space_sets_something(path: Path) -> None:
    """Each key is one of the recipe: setting it to any of its values gives a recipe that loads and differs."""
    assert "?" in path.read_text().splitlines()[0]
    space = YAML(typ="safe", pure=True).load(path.read_text())["space"]
    assert space
    where = FOLDER / "1-pure-reddit-as-designed.yaml"
    for key, choices in space.items():
        assert set(choices) <= {"values", "low", "high", "log", "step"}
        values = choices["values"] if "values" in choices else [choices["low"], choices["high"]]
        assert len(values) >= 2
        for value in values:
            found: Any = load_recipe(where, [f"{key}={value}"])
            for part in key.split("."):
                found = found[int(part)] if part.isdigit() else getattr(found, part)
            assert found == value


def make_hub(folder: Path, architecture: str, scale: int) -> None:
    """Local folders in the hub's layout: the data sets with their real columns, the model's real configuration."""
    random = Random(0)
    for name in ("reddit", "finance", "general", "tatqa", "mt_bench", "model"):
        (folder / name).mkdir(parents=True)
    write_rows(folder / "reddit" / "train.jsonl", list(posts(round(1.3 * 22585 / scale) + 160, random)))
    asks = "Explain step by step why the profit of"
    answers = [f"Its profit was {n}.5 million dollars, because {said(random, 30)}" for n in range(10500 // scale + 120)]
    finance = [{"system": "", "user": f"{asks} {said(random, 6)}", "assistant": answer} for answer in answers]
    write_rows(folder / "finance" / "train.jsonl", finance)
    general = [
        {"system": "Be kind.", "question": said(random, 8), "chosen": said(random, 9), "rejected": said(random, 9)}
        for _ in range(4400 // scale + 60)
    ]
    write_rows(folder / "general" / "train.jsonl", general)
    questions = [
        {"uid": f"q{n}", "order": 1, "question": f"What was {said(random, 4)}", "answer": ["12"], "derivation": "",
         "answer_type": "span", "answer_from": "table", "rel_paragraphs": [], "req_comparison": False, "scale": ""}
        for n in range(20)
    ]  # fmt: skip
    documents = [
        {"table": {"uid": f"t{n}", "table": [["", "2019"], [said(random, 3), "12"]]}, "questions": [question],
         "paragraphs": [{"uid": f"p{n}", "order": 1, "text": said(random, 20)}]}
        for n, question in enumerate(questions)
    ]  # fmt: skip
    (folder / "tatqa" / "dev.json").write_text(json.dumps(documents))
    turns = [
        {"prompt_id": n, "category": "writing", "prompt": [said(random, 9), said(random, 5)], "reference": []}
        for n in range(10)
    ]
    write_rows(folder / "mt_bench" / "train.jsonl", turns)
    shapes: dict[str, Any] = {
        "Qwen3": {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
                  "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True,
                  "max_position_embeddings": 40960},
        "Qwen2": {"vocab_size": 151936, "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
                  "num_attention_heads": 12, "num_key_value_heads": 2, "tie_word_embeddings": True,
                  "max_position_embeddings": 32768},
    }  # fmt: skip
    config = getattr(transformers, f"{architecture}Config")
    config(architectures=[f"{architecture}ForCausalLM"], **shapes[architecture]).save_pretrained(folder / "model")


def plan(name: str, folder: Path, scale: int) -> dict[str, Any]:
    recipe = recipe_of(name)
    local = {f"sources.{source}.id": folder / source for source in recipe.sources}
    local |= {f"evaluation.tasks.{task}.id": folder / task for task in ("tatqa", "mt_bench", "reddit")}
    local |= {"evaluation.tasks.finance_instruct.id": folder / "finance", "model.id": folder / "model"}
    sets = [f"{key}={value}" for key, value in local.items()]
    for number, stage in enumerate(recipe.stages):
        counts = {source: -(-count // scale) for source, count in asked(stage.mix).items()}
        sets += [f"stages.{number}.mix={json.dumps(counts)}"] if scale > 1 else []
    words = ["plan", FOLDER / f"{name}.yaml", "--gpu", 32, "--json", *[word for one in sets for word in ("--set", one)]]
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def check(name: str, folder: Path, scale: int) -> None:
    found, recipe = plan(name, folder, scale), recipe_of(name)
    assert found["model"]["parameters"] == (1_543_714_304 if experiment(name)[0] == "8" else 1_720_574_976)
    assert found["memory"] == {"available": 32 * 2**30, "device": "cuda"}
    for stage, planned in zip(recipe.stages, found["stages"], strict=True):
        wanted = {source: -(-count // scale) for source, count in asked(stage.mix).items()}
        assert planned["by_source"] == wanted
        assert planned["fits"] and not planned["checkpointing"] and 2**30 < planned["memory"] < 32 * 2**30
        print(f"| {name} | {stage.name} | {planned['steps']} | {planned['memory'] / 2**30:.1f} |")
    assert not any("GiB are needed" in problem for problem in found["problems"])


@pytest.fixture(scope="module")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    """Made once for each architecture and size, when a test first asks."""
    return {}


@pytest.fixture
def hub(
    hubs: dict[tuple[str, int], Path], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, int], Path]:
    """The folder for a recipe at a scale; its sources are built once for all tests that use it."""

    def folder(name: str, scale: int) -> Path:
        found = _made(hubs, tmp_path_factory, name, scale)
        monkeypatch.setenv("EQUIPOISE_CACHE", str(found / "cache"))
        return found

    return folder


def _made(hubs: dict[tuple[str, int], Path], factory: pytest.TempPathFactory, name: str, scale: int) -> Path:
    architecture = "Qwen2" if experiment(name)[0] == "8" else "Qwen3"
    key = (architecture, scale)
    if key not in hubs:
        hubs[key] = factory.mktemp(f"hub-{architecture}-{scale}")
        make_hub(hubs[key], architecture, scale)
    return hubs[key]


def test_plan_at_a_hundredth(hub: Callable[[str, int], Path]) -> None:
    name = "7-progressive-2stage-as-built"
    check(name, hub(name, 100), 100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", RECIPES)
def test_plan_in_full(name: str, hub: Callable[[str, int], Path]) -> None:
    """Prints stage, steps and GiB with `-s`."""
    check(name, hub(name, 1), 1)
