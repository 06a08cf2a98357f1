"""Recommend: the choice, its price, what it was not told apart from, and a recipe that runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise import cli
from equipoise.recipe_file import fingerprint, load_recipe, stored_recipe
from equipoise.records import InputError
from equipoise.run_folder import read_json, write_json
from equipoise.study.entrants import read_entrants
from equipoise.study.leaderboard import make_board
from equipoise.study.recommend import Recommendation, ready_recipe, recommend
from study_runs import spread, write_run


def choice(folder: Path, priority: str = "balanced") -> Recommendation:
    return recommend(make_board(read_entrants([folder])), priority)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    write_run(folder / "even", {"tatqa": spread(2.0), "mt_bench": spread(2.0)})
    write_run(folder / "table", {"tatqa": spread(3.5), "mt_bench": spread(-0.1)}, rate="2e-5")
    write_run(folder / "greedy", {"tatqa": spread(9.0), "mt_bench": spread(-3.0)}, rate="3e-5")
    write_run(folder / "twin", {"tatqa": spread(1.9, size=2.0), "mt_bench": spread(2.0)}, rate="4e-5")
    return folder


def test_balanced_takes_the_best_overall(runs: Path) -> None:
    found = choice(runs)
    assert found.row and found.row.name == "even"
    assert found.alike == ("twin",)  # `table` is shown to have gained less overall
    assert "not feasible: greedy, worse in mt_bench" in found.why
    assert [cost.partition(":")[0] for cost in found.costs] == ["tatqa", "mt_bench"]


def test_a_priority_takes_the_best_there_that_loses_nothing(runs: Path) -> None:
    """`greedy` gains most in tatqa and is not feasible."""
    found = choice(runs, "tatqa")
    assert found.row and found.row.name == "table"
    assert found.alike == ()
    assert len(found.costs) == 1 and found.costs[0].startswith("mt_bench: -0.1")
    with pytest.raises(InputError, match="balanced, tatqa, mt_bench"):
        choice(runs, "tatqua")


def test_a_domain_must_be_improved_after_correction(tmp_path: Path) -> None:
    """tatqa alone is significant, and no longer when corrected for two domains: as in the leaderboard, undecided."""
    write_run(tmp_path / "hint", {"tatqa": spread(0.36), "mt_bench": spread(0.02)})
    gain = make_board(read_entrants([tmp_path])).row("hint").gains["tatqa"]
    assert gain.effect.ci[0] > 0 and gain.effect.p_value < 0.05 < gain.p_holm
    found = choice(tmp_path, "tatqa")
    assert found.row is None and found.candidate and found.candidate.name == "hint"
    assert any("its verdict there is held (alone p = 0.0" in reason for reason in found.why)


def test_a_shown_gain_goes_before_a_larger_one_that_is_not(tmp_path: Path) -> None:
    write_run(tmp_path / "loud", {"tatqa": spread(0.0), "mt_bench": spread(0.6, size=4.0)})
    write_run(tmp_path / "sure", {"tatqa": spread(0.0), "mt_bench": spread(0.4, size=0.5)}, rate="2e-5")
    found = choice(tmp_path, "mt_bench")
    assert found.row and found.row.name == "sure" and found.alike == ("loud",)
    assert any("sure has the largest gain that is shown of them in mt_bench" in reason for reason in found.why)


def test_what_may_be_lost_is_a_condition(runs: Path) -> None:
    """`table` in mt_bench: -0.1, 40 gains of which half are 1 above and half 1 below, so -0.42 to +0.22."""
    found = choice(runs, "tatqa")
    assert found.condition == "if a possible loss in mt_bench (up to 0.42) is acceptable"
    assert found.record()["possible_losses"] == {"mt_bench": pytest.approx(0.424, abs=0.001)}
    shown = CliRunner().invoke(cli.app, ["recommend", str(runs), "--priority", "tatqa"])
    assert f"ship table\n  {found.condition}\n" in shown.stdout
    assert choice(runs).condition == ""  # `even` is improved in both domains


def test_runs_without_their_adapter_are_named(tmp_path: Path) -> None:
    gains = {"tatqa": spread(2.0), "mt_bench": spread(2.0)}
    whole, bare = (write_run(tmp_path / f"r-{seed}", gains, name="r", seed=seed) for seed in (0, 1))
    write_json(whole / "stages/1-only/adapter/adapter_config.json", {})
    assert choice(tmp_path).without_adapter == (str(bare),)
    shown = CliRunner().invoke(cli.app, ["recommend", str(tmp_path)])
    assert f"the adapter of these runs is missing, so they cannot be shipped as they are: {bare}\n" in shown.stdout
    write_json(bare / "stages/1-only/adapter/finance/adapter_config.json", {})  # adapters by domain
    assert choice(tmp_path).without_adapter == ()


def test_without_an_overall_score_a_domain_must_be_named(tmp_path: Path) -> None:
    write_run(tmp_path / "one", {"tatqa": spread(2.0)}, base={"tatqa": [3.0] * 40})
    found = choice(tmp_path)
    assert found.row is None and found.candidate is None
    assert found.why[0].endswith("there is no overall score to choose by; name a domain with --priority")
    by_domain = choice(tmp_path, "tatqa")
    assert by_domain.row and by_domain.row.name == "one"


def test_the_base_stays_where_nothing_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "noise", {"tatqa": spread(0.1), "mt_bench": spread(0.1)})
    found = choice(tmp_path)
    assert found.row is None and found.candidate and found.candidate.name == "noise"
    assert any("which stays" in reason for reason in found.why)
    write_run(tmp_path / "noise", {"tatqa": spread(-2.0), "mt_bench": spread(9.0)})
    found = choice(tmp_path)
    assert found.row is None and found.candidate is None
    with pytest.raises(InputError, match="base model stays"):
        ready_recipe(make_board(read_entrants([tmp_path])), found)


def test_the_recipe_is_ready(runs: Path, tmp_path: Path) -> None:
    written = tmp_path / "ship.yaml"
    shown = CliRunner().invoke(cli.app, ["recommend", str(runs), "--priority", "tatqa", "--out", str(written)])
    assert shown.exit_code == 0, shown.stderr
    assert "ship table" in shown.stdout
    again = load_recipe(written)
    assert fingerprint(again) == fingerprint(stored_recipe(read_json(runs / "table" / "recipe.json")))
    assert again.name == "table"
    text = written.read_text()
    assert text.startswith("# Is table as good again") and "costs:" not in text
    assert "in the other domains: mt_bench: -0.1" in text and "ship it if a possible loss in mt_bench" in text


def test_no_file_where_the_base_stays(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "noise", {"tatqa": spread(0.1), "mt_bench": spread(0.1)})
    shown = CliRunner().invoke(cli.app, ["recommend", str(tmp_path / "runs"), "--out", str(tmp_path / "ship.yaml")])
    assert shown.exit_code == 1
    assert "keep the base model" in shown.stdout
    assert not (tmp_path / "ship.yaml").exists()
