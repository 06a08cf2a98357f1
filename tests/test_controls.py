"""Controls: the same experiment with one thing taken away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.commands import find_recipe
from equipoise.controls import CONTROLS, control
from equipoise.draw import flipped
from equipoise.recipe import Recipe
from equipoise.recipe_file import load_recipe
from equipoise.recipe_text import plain_recipe, recipe_text
from equipoise.records import InputError, Message, Pair

STAGED = "8-progressive-3stage-as-designed"


def staged(**changes: Any) -> dict[str, Any]:
    """Two stages: 40 pairs of a for half an epoch, then 60 of a and b for two."""
    stages = [
        {
            "name": "first",
            "mix": {"a": 40},
            "dpo": {"beta": 0.1},
            "optim": {"learning_rate": 1e-3, "epochs": 0.5, "batch_size": 10},
            "lora": {"rank": 16, "alpha": 8},
            "gate": {"improve": {"reddit": 0.0}, "on_fail": "stop"},
        },
        {
            "name": "second",
            "mix": {"pairs": 60, "shares": {"a": 0.25, "b": 0.75}},
            "dpo": {"beta": 0.2},
            "optim": {"learning_rate": 2e-3, "epochs": 2, "batch_size": 10},
            "gate": {"hold": {"tatqa": 0.1}, "on_fail": "retry", "retry": {"scale": {"beta": 2.0}}, "shrink": True},
            **changes,
        },
    ]
    sources = {name: {"kind": "pocket", "domain": "general", "seed": seed} for seed, name in enumerate("ab")}
    tasks = {name: {"id": "pocket", "limit": 20} for name in ("tatqa", "reddit")}
    return {
        "name": "staged",
        "model": {"id": "pocket"},
        "reward": {"id": "pocket"},
        "sources": sources,
        "stages": stages,
        "evaluation": {"tasks": tasks},
    }


def test_one_mixture_by_hand() -> None:
    one = Recipe.model_validate(control(staged(), "one-mixture"))
    (stage,) = one.stages
    # Half an epoch of 40 and two of 15 are 20 + 30 of a; two of 45 are 90 of b.
    assert stage.mix.counts == {"a": 50, "b": 90}
    assert stage.mix.when_short == "repeat"
    # 2 steps of the first stage and 12 of the second: (2 x 0.1 + 12 x 0.2) / 14 = 0.1857, and as many steps in all.
    assert stage.dpo.beta == 0.186
    assert stage.optim.learning_rate == 0.00186
    assert stage.optim.epochs * 140 / stage.optim.batch_size == 2 + 12
    assert (stage.lora.rank, stage.lora.alpha) == (16, 8)
    assert stage.gate.hold == {"tatqa": 0.1}


@pytest.mark.parametrize("kind", CONTROLS)
def test_no_gate_of_a_control_acts(kind: str) -> None:
    made = Recipe.model_validate(control(staged(), kind))
    assert made.name == f"staged-{kind}"
    for stage in made.stages:
        assert (stage.gate.on_fail, stage.gate.on_undecided) == ("continue", "continue")
        assert stage.gate.retry is None and not stage.gate.scales
        assert stage.gate.domains  # and still each gate is judged


def test_each_control_changes_one_thing() -> None:
    before = control(staged(), "ungated")
    flip, back = control(staged(), "flipped"), control(staged(), "reversed")
    assert [{**stage, "flipped": 0.0} for stage in flip["stages"]] == [
        {**stage, "flipped": 0.0} for stage in before["stages"]
    ]
    assert all(stage["flipped"] == 1.0 for stage in flip["stages"])
    assert back["stages"] == before["stages"][::-1]
    assert {**back, "name": "", "stages": 0} == {**before, "name": "", "stages": 0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replay": {"share": 0.5}}, "stage second replays earlier stages"),
        ({"dpo": {"beta": {"kind": "linear", "start": 0.1, "end": 0.2}}}, "stage second has a schedule of beta"),
        ({"mix": {"pairs": 60, "shares": {"a": 1.0}, "by": "tokens"}}, "stage second divides its mix"),
    ],
)
def test_what_cannot_become_one_mixture_is_said(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        control(staged(**changes), "one-mixture")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"flipped": 1.0}, "flipped (0.0, 1.0)"),
        ({"dpo": {"beta": 0.2, "loss": "ipo"}}, "dpo.loss (sigmoid, ipo)"),
        ({"dpo": {"beta": 0.2, "label_smoothing": 0.1, "loss": "robust"}}, "dpo.loss"),
        ({"dpo": {"beta": 0.2, "sft_weight": 0.1}}, "dpo.sft_weight (0.0, 0.1)"),
        ({"reference": "base"}, "reference (previous, base)"),
        ({"order": "curriculum"}, "order (shuffle, "),
        ({"optim": {"epochs": 2, "batch_size": 32}}, "optim.batch_size (10, 32)"),
        ({"optim": {"epochs": 2, "batch_size": 10, "schedule": "linear"}}, "optim.schedule (cosine, linear)"),
    ],
)
def test_stages_that_differ_are_no_one_mixture(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        control(staged(**changes), "one-mixture")
    assert f"stages first and second differ in {field}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_mixture_has_room_for_the_longest_pairs() -> None:
    recipe = staged(dpo={"beta": 0.2, "max_length": 300, "max_prompt_length": 200})
    recipe["stages"][0]["dpo"] |= {"max_length": 700, "max_prompt_length": 100}
    (stage,) = Recipe.model_validate(control(recipe, "one-mixture")).stages
    assert (stage.dpo.max_length, stage.dpo.max_prompt_length) == (700, 200)


def test_what_is_flipped_cannot_be_flipped() -> None:
    with pytest.raises(InputError, match="staged: stage second is flipped already"):
        control(staged(flipped=1.0), "flipped")
    assert [stage["flipped"] for stage in control(staged(flipped=0.2), "flipped")["stages"]] == [1.0, 1.0]


@pytest.mark.parametrize("kind", ["one-mixture", "reversed"])
def test_one_stage_has_no_order(kind: str) -> None:
    recipe = staged()
    with pytest.raises(InputError, match="of one stage"):
        control({**recipe, "stages": recipe["stages"][:1]}, kind)


def pairs(count: int) -> list[Pair]:
    return [Pair((Message("user", f"q{n}"),), f"good {n}", f"bad {n}", "general", "a", str(n)) for n in range(count)]


def test_flipped_pairs() -> None:
    own = pairs(400)
    assert flipped(own, 0.0) == own
    assert [(pair.chosen, pair.rejected) for pair in flipped(own, 1.0)] == [
        (pair.rejected, pair.chosen) for pair in own
    ]
    some, more = (
        {place for place, pair in enumerate(flipped(own, share)) if pair != own[place]} for share in (0.2, 0.5)
    )
    assert some < more  # a larger share changes the same pairs and more
    assert len(some) == pytest.approx(80, abs=30) and len(more) == pytest.approx(200, abs=40)


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "control.yaml"
    result = CliRunner().invoke(app, ["recipes", "control", STAGED, "--as", "reversed", "--out", str(out)])
    assert result.exit_code == 0, result.output
    before = load_recipe(find_recipe(Path(STAGED)))
    made = load_recipe(out)
    assert [stage.name for stage in made.stages] == [stage.name for stage in before.stages][::-1]
    assert plain_recipe(made)["sources"] == plain_recipe(before)["sources"]
    for words in (["control", STAGED], ["control", STAGED, "--as", "nothing"], ["show", STAGED, "--as", "flipped"]):
        assert CliRunner().invoke(app, ["recipes", *words]).exit_code == 2


def test_a_plan_says_what_is_replayed_and_what_it_does_not_count(tmp_path: Path) -> None:
    recipe = staged(replay={"share": 0.2})
    recipe["stages"][1]["flipped"] = 0.5
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(recipe, "What is planned?"))
    shown = CliRunner().invoke(app, ["plan", str(path), "--json"])
    assert shown.exit_code == 0, shown.stderr
    plan = json.loads(shown.stdout)
    assert plan["stages"][1]["by_source"] == {"a": 15, "b": 45, "a replayed": 15}  # 60 are four fifths of 75
    notes = "\n".join(plan["notes"])
    assert "stage second: up to 2 further trainings where its gate fails" in notes
    assert "stage second: up to 4 further evaluations on dev items" in notes
    assert "stage second: 50% of its preferences are turned round" in notes
