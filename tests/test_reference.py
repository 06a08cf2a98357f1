"""The recipe reference and the JSON Schema: made from the classes, true to what the reader of recipes takes."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

jsonschema = pytest.importorskip("jsonschema")

from equipoise.recipe_file import RecipeError, load_recipe, parse_recipe  # noqa: E402
from equipoise.records import canonical  # noqa: E402
from equipoise.reference.pages import SECTIONS, reference_text  # noqa: E402
from equipoise.reference.schema import plain_schema, recipe_schema, schema_text  # noqa: E402
from equipoise.reference.words import type_words  # noqa: E402
from equipoise.yaml_text import parse_yaml, plain  # noqa: E402

ROOT = Path(__file__).parents[1]
RECIPES = [path for path in sorted((ROOT / "recipes").rglob("*.yaml")) if path.parent.name != "spaces"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCKS = [
    (page.name, text)
    for page in PAGES
    for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), flags=re.DOTALL)
    if "stages:" in text
]
BASE: dict[str, Any] = {
    "name": "base",
    "model": {"id": "pocket"},
    "reward": {"id": "pocket"},
    "sources": {"general": {"kind": "pocket", "domain": "general"}, "finance": {"kind": "pocket", "domain": "finance"}},
    "stages": [{"name": "one", "mix": {"general": 80}, "gate": {"hold": {"mt_bench": 0.1}}}],
    "evaluation": {"tasks": {"mt_bench": {"id": "pocket"}}},
}


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def changed(path: str, value: Any) -> dict[str, Any]:
    """The base recipe with the value at `a.b.0.c`."""
    made = copy.deepcopy(BASE)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    here: Any = made
    for part in parents:
        here = here[part] if isinstance(part, int) else here.setdefault(part, {})
    here[last] = value
    return made


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_built_in_recipe_is_valid(path: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(plain(parse_yaml(path.read_text(), path.name)))] == []


@pytest.mark.parametrize(("page", "text"), BLOCKS, ids=[f"{page}-{place}" for place, (page, _) in enumerate(BLOCKS)])
def test_every_recipe_of_the_docs_is_valid(page: str, text: str, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(plain(parse_yaml(text, page)))] == []


TAKEN = {
    "counts and what when short": ("stages/0/mix", {"general": 80, "finance": 20, "when_short": "shrink"}),
    "counts in full": ("stages/0/mix", {"counts": {"general": 80}, "by": "pairs"}),
    "shares": ("stages/0/mix", {"pairs": 100, "shares": {"general": 0.5, "finance": 0.5}, "by": "tokens"}),
    "a number of beta": ("stages/0/dpo", {"beta": 0.3}),
    "a schedule of beta": ("stages/0/dpo", {"beta": {"kind": "cosine", "start": 0.3, "end": 0.1}}),
    "an adaptive beta": ("stages/0/dpo", {"beta": {"kind": "adaptive", "beta": 0.1}}),
    "shrink": ("stages/0/gate", {"hold": {"mt_bench": 0.1}, "shrink": True}),
    "shrink in steps": ("stages/0/gate", {"hold": {"mt_bench": 0.1}, "shrink": {"steps": 3}}),
    "a percentage": ("stages/0/gate", {"improve": {"mt_bench.ten": "2%"}}),
    "an order by its name": ("stages/0/order", "curriculum"),
    "an order in full": ("stages/0/order", {"by": "length", "bands": 3}),
    "one adapter": ("stages/0/lora", {"rank": 16, "target_modules": ["q_proj"]}),
    "an adapter for each domain": ("stages/0/lora", {"general": {"rank": 16, "learning_rate": 1e-4}}),
    "a task with nothing after it": ("evaluation/tasks", {"mt_bench": None, "ifeval": None}),
    "a task of the harness": ("evaluation/tasks", {"mt_bench": {}, "lm_eval:arc_easy": {"limit": 10}}),
    "named pairs": ("evaluation/tasks", {"mt_bench": {}, "preference_accuracy:x": {"source": "general"}}),
    "a table": (
        "sources/mine",
        {
            "kind": "table",
            "id": "a.csv",
            "domain": "d",
            "columns": {"prompt": ["a", "b"], "chosen": "c", "rejected": "r"},
        },
    ),
    "longest answers": ("evaluation/generation", {"max_new_tokens": {"mt_bench": 10}}),
    "a variable as a number": ("seed", "${EQUIPOISE_TEST_SEED:-3}"),
    "a variable as a word": ("model/dtype", "${EQUIPOISE_TEST_TYPE:-float32}"),
    "a variable in a path": ("model/id", "${EQUIPOISE_TEST_FOLDER:-x}/model"),
    "a variable in a list": ("trackers", ["${EQUIPOISE_TEST_TRACKER:-wandb}"]),
    "a variable in a short mix": ("stages/0/mix", {"general": "${EQUIPOISE_TEST_PAIRS:-80}"}),
}


@pytest.mark.parametrize("name", TAKEN)
def test_forms_that_both_take(name: str, validator: Any) -> None:
    recipe = changed(*TAKEN[name])
    parse_recipe(canonical(recipe))
    assert [error.message for error in validator.iter_errors(recipe)] == []


REFUSED = {
    "an unknown key": ("stages/0/dpo", {"betta": 0.1}),
    "a key one level too high": ("stages/0/learning_rate", 1e-5),
    "a word where a number belongs": ("stages/0/optim", {"batch_size": "many"}),
    "a rate of 0": ("stages/0/optim", {"learning_rate": 0}),
    "half a pair": ("stages/0/optim", {"batch_size": 2.5}),
    "a share above 1": ("stages/0/optim", {"warmup": 1.5}),
    "an unknown loss": ("stages/0/dpo", {"loss": "dpo"}),
    "an unknown kind": ("sources/general", {"kind": "csv", "id": "a.csv"}),
    "a source without a file": ("sources/general", {"kind": "orca"}),
    "a table without columns": ("sources/general", {"kind": "table", "id": "a.csv", "domain": "d"}),
    "half of the columns": (
        "sources/general",
        {"kind": "table", "id": "a.csv", "domain": "d", "columns": {"prompt": "p", "chosen": "c"}},
    ),
    "an option of another kind": ("sources/general", {"kind": "orca", "id": "a.csv", "rule": "gap"}),
    "counts and shares": ("stages/0/mix", {"counts": {"general": 1}, "pairs": 1, "shares": {"general": 1.0}}),
    "shares without pairs": ("stages/0/mix", {"shares": {"general": 1.0}}),
    "a negative count": ("stages/0/mix", {"general": -1}),
    "a negative margin": ("stages/0/gate", {"hold": {"mt_bench": -0.1}}),
    "a percentage without a number": ("stages/0/gate", {"improve": {"mt_bench": "some%"}}),
    "a retry without its values": ("stages/0/gate", {"hold": {"mt_bench": 0.1}, "on_fail": "retry"}),
    "a schedule without an end": ("stages/0/dpo", {"beta": {"kind": "linear", "start": 0.3}}),
    "an unknown task": ("evaluation/tasks", {"mtbench": {}}),
    "pairs without a source": ("evaluation/tasks", {"preference_accuracy:x": {}}),
    "a server without an address": ("evaluation/generation", {"backend": "openai"}),
    "a name with a space": ("name", "my recipe"),
    "no stage": ("stages", []),
    "a source with a bad name": ("sources/a b", {"kind": "pocket", "domain": "general"}),
    "one adapter and those of domains": ("stages/0/lora", {"rank": 8, "general": {"rank": 4}}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_that_both_refuse(name: str, validator: Any) -> None:
    recipe = changed(*REFUSED[name])
    with pytest.raises(RecipeError):
        parse_recipe(canonical(recipe))
    assert list(validator.iter_errors(recipe))


def test_the_base_of_these_tests_is_taken(validator: Any) -> None:
    parse_recipe(canonical(BASE))
    assert not list(validator.iter_errors(BASE))


def test_the_committed_files_are_what_the_commands_make() -> None:
    assert (ROOT / "docs" / "recipe.md").read_text() == reference_text(), (
        "equipoise recipes reference --out docs/recipe.md"
    )
    committed = (ROOT / "docs" / "recipe.schema.json").read_text()
    assert committed == schema_text(), "equipoise recipes schema --out docs/recipe.schema.json"


def test_the_page_has_every_key_with_its_meaning() -> None:
    page = reference_text()
    for name, part in plain_schema()["$defs"].items():
        assert name in SECTIONS.values()
        for form in [part, *part.get("anyOf", [])]:
            for key in form.get("properties", {}):
                assert f"| `{key}` | " in page, f"{name}.{key}"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for row in rows:
        cells = re.split(r"(?<!\\)\|", row)
        assert len(cells) == 6 and all(cell.strip() for cell in cells[1:-1]), row
    for target in re.findall(r"\]\(#([^)]+)\)", page):
        headings = {
            re.sub(r"[^a-z0-9 _-]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in page.splitlines()
        }
        assert target in headings


def test_words_of_types_by_hand() -> None:
    def words(node: dict[str, Any]) -> str:
        return type_words(node, lambda name: f"[{name}]")

    assert words({"type": "integer", "exclusiveMinimum": 0}) == "whole number above 0"
    assert words({"type": "number", "minimum": 0.0, "maximum": 1.0}) == "number from 0 to 1"
    assert words({"enum": ["a", "b", "c"], "type": "string"}) == "`a`, `b` or `c`"
    assert words({"anyOf": [{"$ref": "#/$defs/Stop"}, {"type": "null"}]}) == "[Stop]"
    assert words({"type": "array", "items": {"type": "string"}}) == "list of text"


def test_defaults_of_the_page_are_those_that_load() -> None:
    """By hand, of values that people rely on."""
    page = reference_text()
    stage = load_recipe(ROOT / "recipes" / "pocket.yaml").stages[0]
    assert type(stage.optim).model_fields["learning_rate"].default == 5e-6
    assert "| `learning_rate` | number above 0 | `5e-6` |" in page
    assert "| `rank` | whole number above 0 | `8` |" in page
    assert "| `on_fail` | `stop`, `rollback`, `continue` or `retry` | `rollback` |" in page
