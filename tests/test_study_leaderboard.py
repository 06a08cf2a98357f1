"""Leaderboard: feasible, front, ties, the overall score and its sensitivity; worked by hand where that can be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from equipoise import cli
from equipoise.recipe_file import parse_recipe, resolved
from equipoise.records import InputError
from equipoise.run_folder import write_json
from equipoise.study.board_json import board_record
from equipoise.study.entrants import read_entrants
from equipoise.study.evidence import Side, contrast, effect
from equipoise.study.leaderboard import Board, make_board
from equipoise.study.overall import overall, ranks, unit
from equipoise.study.pareto import front, letters, tied_groups
from study_runs import RECIPE, spread, write_run

NAN = float("nan")


def board(*folders: Path) -> Board:
    return make_board(read_entrants(folders))


def test_the_front_needs_something_better_and_nothing_worse() -> None:
    better = {("a", "b"): ["x"], ("a", "c"): ["x"], ("c", "a"): ["y"]}
    worse = {("c", "a"): ["x"], ("a", "c"): ["y"]}
    assert front(["a", "b", "c"], better, worse) == {"a": [], "b": ["a"], "c": []}


def test_a_hint_of_a_loss_is_enough_to_stay_on_the_front() -> None:
    """`b` is better in y without being shown so: `a` does not dominate it."""
    assert front(["a", "b"], {("a", "b"): ["x"]}, {("a", "b"): ["y"]}) == {"a": [], "b": []}


def test_groups_of_recipes_that_cannot_be_told_apart() -> None:
    """a from b no, b from c no, a from c yes: b stands in both groups."""
    groups = tied_groups(["a", "b", "c"], {("a", "c"): ["x"]})
    assert groups == [["a", "b"], ["b", "c"]]
    assert letters(["a", "b", "c"], groups) == {"a": "a", "b": "ab", "c": "b"}
    assert tied_groups(["a", "b"], {}) == [["a", "b"]]
    assert tied_groups(["a", "b", "c"], {("a", "b"): "x", ("a", "c"): "x", ("b", "c"): "x"}) == [["a"], ["b"], ["c"]]


def test_the_overall_score_by_hand() -> None:
    """Gains 3 in units of 2 and 0.5 in units of 1: (1.5 + 0.5) / 2. The item without a score does not count."""
    gains = {"x": np.array([[2.0, 2.0, 4.0, 4.0, NAN]]), "y": np.array([[0.0, 1.0]])}
    groups = {"x": list("abcde"), "y": list("ab")}
    assert overall(gains, {"x": 2.0, "y": 1.0}, groups, 0.95).difference == pytest.approx(1.0)
    assert overall(gains, {"x": 2.0, "y": 0.0}, groups, 0.95).difference == pytest.approx(1.5)
    with pytest.raises(ValueError, match="no domain"):
        overall(gains, {"x": 0.0, "y": 0.0}, groups, 0.95)


def test_the_unit_is_the_bases_spread() -> None:
    assert unit("tatqa", np.array([[1.0, 3.0, NAN], [1.0, 3.0, 5.0]])) == pytest.approx(2**0.5)
    assert unit("tatqa", np.array([[2.0, 2.0]])) == 0.0


def test_pairs_count_although_the_base_has_a_half_on_each(tmp_path: Path) -> None:
    """30 of 40 pairs right: 0.75 - 0.5 in units of 0.5. tatqa gains nothing, so the mean of two domains is 0.25."""
    pairs = "preference_accuracy:own"
    gains = {"tatqa": [0.0] * 40, pairs: [0.5] * 30 + [-0.5] * 10}
    one = write_run(tmp_path / "one", gains, base={pairs: [0.5] * 40})
    text = RECIPE.format(name="one", seed=0, rate="1e-5").replace("mt_bench: {}", f'"{pairs}": {{source: mine}}')
    write_json(one / "recipe.json", resolved(parse_recipe(text)))
    found = board(one)
    assert found.units[pairs] == 0.5 and found.rows[0].gains[pairs].standardised == pytest.approx(0.5)
    assert found.rows[0].overall and found.rows[0].overall.difference == pytest.approx(0.25)
    assert not any("no part in the overall score" in note for note in found.notes)


def test_a_board_without_an_overall_score(tmp_path: Path) -> None:
    """All scores of the base are equal: the domains are shown all the same."""
    for name, mean, rate in (("one", 2.0, "1e-5"), ("two", 1.0, "2e-5")):
        write_run(tmp_path / name, {"tatqa": spread(mean)}, base={"tatqa": [3.0] * 40}, rate=rate)
    found = board(tmp_path)
    assert [(row.name, row.overall, row.ranks) for row in found.rows] == [("one", None, None), ("two", None, None)]
    assert found.rows[0].gains["tatqa"].effect.difference == pytest.approx(2.0)
    shown = CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path), "--versus", "two"])
    assert shown.exit_code == 0 and "there is no overall score, and no ranks" in shown.stdout
    record = json.loads(CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path), "--versus", "two", "--json"]).stdout)
    assert record["rows"][0]["overall"] is None and record["versus"]["rows"][0]["overall"] is None


def test_the_interval_of_the_overall_score_is_that_of_a_mean_of_domains() -> None:
    """Var(mean of two means) = (s1^2 / n1 + s2^2 / n2) / 4, far from that of 450 items in one heap."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 1.0, 400), rng.normal(-3.0, 2.0, 50)
    groups = {"x": [str(i) for i in range(400)], "y": [str(i) for i in range(50)]}
    found = overall({"x": x[None], "y": y[None]}, {"x": 1.0, "y": 1.0}, groups, 0.95)
    expected = 1.96 * ((x.var(ddof=1) / 400 + y.var(ddof=1) / 50) / 4) ** 0.5
    assert (found.ci[1] - found.ci[0]) / 2 == pytest.approx(expected, rel=0.06)


def test_ranks_under_other_weights() -> None:
    found = ranks({"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [-1.0, -1.0]})
    assert (found["a"].rank, found["b"].rank, found["c"].rank) == (1, 1, 3)
    assert (found["a"].low, found["a"].high) == (1, 2)
    assert found["a"].first + found["b"].first == pytest.approx(1.0)
    assert found["a"].first == pytest.approx(0.5, abs=0.03)
    assert (found["c"].low, found["c"].high, found["c"].first) == (3, 3, 0.0)
    assert ranks({}) == ranks({"a": [], "b": []}) == {}


def test_seeds_widen_the_interval() -> None:
    """Two seeds of which one gains 2 and the other nothing: the next training may give either."""
    zeros, groups = np.zeros((2, 40)), [str(i) for i in range(40)]
    after = np.array([spread(2.0), spread(0.0)])
    one = effect(zeros[:1], after.mean(axis=0, keepdims=True), groups, 0.95)
    both = effect(zeros, after, groups, 0.95)
    assert one.difference == both.difference == pytest.approx(1.0)
    assert one.ci[0] > 0 > both.ci[0]
    assert (one.seeds, both.seeds) == (1, 2)


def test_recipes_are_contrasted_seed_by_seed() -> None:
    """What a seed does to both recipes falls out: 1 remains under every seed."""
    groups, base = [str(i) for i in range(40)], np.zeros((3, 40))
    low = np.array([spread(mean) for mean in (-2.0, 0.0, 5.0)])
    one, other = Side(base, low[::-1] + 1.0, (2, 1, 0)), Side(base, low, (0, 1, 2))
    found = contrast(one, other, groups, 0.95)
    assert found.difference == pytest.approx(1.0)
    assert 0.8 < found.ci[0] <= found.ci[1] < 1.2  # although the seeds lie 7 apart
    assert contrast(Side(base[:1], low[2:], (7,)), other, groups, 0.95).seeds == 1


def test_the_whole_table(tmp_path: Path) -> None:
    good = write_run(tmp_path / "good", {"tatqa": spread(2.0), "mt_bench": spread(2.0)})
    weak = write_run(tmp_path / "weak", {"tatqa": spread(0.0), "mt_bench": spread(2.0)}, rate="2e-5")
    other = write_run(tmp_path / "other", {"tatqa": spread(3.5), "mt_bench": spread(0.0)}, rate="3e-5")
    bad = write_run(tmp_path / "bad", {"tatqa": spread(9.0), "mt_bench": spread(-3.0)}, rate="4e-5")
    found = board(bad, weak, other, good)
    assert [row.name for row in found.rows] == ["good", "other", "weak", "bad"]
    assert [row.on_front for row in found.rows] == [True, True, False, False]
    assert found.row("weak").dominated_by == ("good",)
    assert found.row("bad").worse == ("mt_bench",)
    assert found.row("bad").ranks is None
    unit_ = np.array([i % 5 for i in range(40)]).std(ddof=1)
    assert found.row("other").overall.difference == pytest.approx(1.75 / unit_)
    assert found.row("weak").gains["tatqa"].verdict == "held"  # within the gate's margin of 0.5
    record = json.loads(json.dumps(board_record(found)))
    assert record["rows"][0]["domains"]["tatqa"]["difference"] == pytest.approx(2.0)
    assert any("one seed only" in note for note in record["notes"])
    assert any("corrected for 12 comparisons (6 pairs of recipes, 2 domains)" in note for note in record["notes"])


def test_runs_that_kept_nothing_stand_in_the_table(tmp_path: Path) -> None:
    """Their gains are 0, with or without a seed that did keep a stage."""
    for seed in (0, 1):
        folder = write_run(tmp_path / f"n-{seed}", {"tatqa": spread(2.0), "mt_bench": spread(2.0)}, name="n", seed=seed)
        write_json(folder / "verdict.json", {"gates": [], "kept_stage": "base", "point": "1-only"})
    write_run(tmp_path / "one", {"tatqa": spread(2.0), "mt_bench": spread(0.0)}, rate="2e-5")
    nothing = board(tmp_path).row("n")
    assert (nothing.overall.difference, nothing.feasible, nothing.entrant.kept) == (0.0, True, ("base", "base"))
    write_json(tmp_path / "n-1" / "verdict.json", {"gates": [], "kept_stage": "1-only", "point": "1-only"})
    assert board(tmp_path).row("n").gains["tatqa"].effect.difference == pytest.approx(1.0)
    assert any("ended at different points" in note for note in board(tmp_path).notes)


def test_what_lost_its_score_is_not_feasible(tmp_path: Path) -> None:
    """Two of 40 answers have no score after training; where the base had none either nothing was lost."""
    gains = {"tatqa": [*spread(2.0, n=38), NAN, NAN], "mt_bench": spread(2.0)}
    never = write_run(tmp_path / "never", gains, base={"tatqa": [*spread(2.0, n=38), NAN, NAN]})
    broken = write_run(tmp_path / "broken", gains, rate="2e-5")
    found = board(never, broken)
    assert found.row("never").feasible and found.row("never").gains["tatqa"].effect.unscored == 2
    assert found.row("broken").worse == ("tatqa",)
    assert any("broken: tatqa: 5% of the answers lost their score" in note for note in found.notes)


def test_nothing_within_the_noise_of_the_instrument_is_shown(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", {"tatqa": spread(2.0), "mt_bench": spread(-2.0)})
    two = write_run(tmp_path / "two", {"tatqa": spread(0.0), "mt_bench": spread(-2.0)}, rate="2e-5")
    assert board(one, two).better
    write_json(one / "noise.json", {"tatqa": {"limit": 2.5}, "mt_bench": {"limit": 2.5}})
    found = board(one, two)
    assert not found.better
    assert [found.row("one").gains[name].verdict for name in found.units] == ["held", "undecided"]
    assert found.row("one").feasible and not found.row("two").feasible


def test_seeds_of_a_recipe_are_one_row(tmp_path: Path) -> None:
    for seed, mean in enumerate((1.0, 2.0, 3.0)):
        write_run(tmp_path / f"r-{seed}", {"tatqa": spread(mean), "mt_bench": spread(0.0)}, name="r", seed=seed)
    (row,) = board(tmp_path).rows
    assert (row.name, row.entrant.seeds, row.gains["tatqa"].effect.seeds) == ("r", (0, 1, 2), 3)
    assert row.gains["tatqa"].effect.difference == pytest.approx(2.0)


def test_ties_are_shown_and_recipes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = write_run(tmp_path / "x", {"tatqa": spread(1.0), "mt_bench": spread(1.0)}, name="same")
    two = write_run(tmp_path / "y", {"tatqa": spread(1.1, size=3), "mt_bench": spread(1.0)}, name="same", rate="2e-5")
    found = board(one, two)
    assert {row.name for row in found.rows} == {"same (x)", "same (y)"}
    assert {row.letters for row in found.rows} == {"a"}
    assert found.groups == (("same (y)", "same (x)"),)


def test_one_domain_that_not_all_evaluated_is_left_out(tmp_path: Path) -> None:
    full = write_run(tmp_path / "full", {"tatqa": spread(1.0), "mt_bench": spread(1.0)})
    half = write_run(tmp_path / "half", {"tatqa": spread(1.0)}, rate="2e-5")
    found = board(full, half)
    assert list(found.units) == ["tatqa"]
    assert any(note.startswith("mt_bench: left out") for note in found.notes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"question": "another", "rate": "2e-5"}, "40 of 40 shared items differ in content"),
        ({"reward": "other", "rate": "2e-5"}, "another reward model"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, options: dict[str, str], said: str) -> None:
    gains = {"tatqa": spread(1.0), "mt_bench": spread(1.0)}
    one, two = write_run(tmp_path / "one", gains), write_run(tmp_path / "two", gains, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=said) as error:
        board(one, two)
    assert "\n" not in str(error.value)


def test_the_same_run_twice_is_no_further_evidence(tmp_path: Path) -> None:
    gains = {"tatqa": spread(1.0), "mt_bench": spread(1.0)}
    write_run(tmp_path / "one", gains)
    write_run(tmp_path / "two", gains)  # another name, and the same experiment
    found = board(tmp_path)
    assert [row.name for row in found.rows] == ["one"] and len(found.rows[0].entrant.seeds) == 1
    assert any("two: left out, the same recipe with the same seed" in note for note in found.notes)


def test_unfinished_runs(tmp_path: Path) -> None:
    gains = {"tatqa": spread(1.0), "mt_bench": spread(1.0)}
    write_run(tmp_path / "one", gains)
    two = write_run(tmp_path / "two", gains, rate="2e-5")
    (two / "done").unlink()
    assert any("two: left out, not finished" in note for note in board(tmp_path).notes)
    with pytest.raises(InputError, match="not finished"):
        board(two)
    with pytest.raises(InputError, match="neither a run nor a folder of runs"):
        board(tmp_path / "nothing")


def test_the_command(tmp_path: Path) -> None:
    write_run(tmp_path / "good", {"tatqa": spread(2.0), "mt_bench": spread(2.0)})
    write_run(tmp_path / "bad", {"tatqa": spread(-2.0), "mt_bench": spread(2.0)}, rate="2e-5")
    shown = CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path), "--json"])
    assert shown.exit_code == 0, shown.stderr
    assert [row["feasible"] for row in json.loads(shown.stdout)["rows"]] == [True, False]
    table = CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path)])
    assert "worse: tatqa" in table.stdout and "overall = mean over domains" in table.stdout
    assert CliRunner().invoke(cli.app, ["leaderboard", str(tmp_path), "--split", "all"]).exit_code == 2
