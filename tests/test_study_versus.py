"""Every recipe against one of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.records import InputError
from equipoise.study.entrants import read_entrants
from equipoise.study.leaderboard import make_board
from equipoise.study.versus import versus
from study_runs import spread, write_run


def two(folder: Path) -> list[Path]:
    """Seeds 0 and 1 of two recipes: `better` is 1 above `plain` in tatqa and as good in mt_bench."""
    runs = []
    for name, gain, rate in (("plain", 0.5, "1e-5"), ("better", 1.5, "2e-5")):
        gains = {"tatqa": spread(gain), "mt_bench": spread(0.0)}
        runs += [write_run(folder / f"{name}-{seed}", gains, name=name, seed=seed, rate=rate) for seed in (0, 1)]
    return runs


def test_the_difference_is_that_of_the_gains(tmp_path: Path) -> None:
    board = make_board(read_entrants(two(tmp_path), "test"))
    (found,) = versus(board, "plain")
    assert found.name == "better"
    assert found.domains["tatqa"].difference == pytest.approx(1.0)
    assert found.domains["tatqa"].seeds == 2
    assert found.domains["mt_bench"].difference == 0.0
    (back,) = versus(board, "better")
    assert back.domains["tatqa"].difference == pytest.approx(-1.0)
    # The standard deviation of 0, 1, 2, 3, 4 (eight times each, n - 1) is 1.4322: the mean of 1/1.4322 and 0.
    assert found.overall.difference == pytest.approx(1 / 1.4322 / 2, abs=1e-4)


def test_an_unknown_recipe(tmp_path: Path) -> None:
    board = make_board(read_entrants(two(tmp_path), "test"))
    with pytest.raises(InputError, match="--versus other: no such recipe here; there are better, plain"):
        versus(board, "other")


def test_the_command(tmp_path: Path) -> None:
    places = [str(place) for place in two(tmp_path)]
    shown = CliRunner().invoke(app, ["leaderboard", *places, "--versus", "plain"])
    assert shown.exit_code == 0 and "How much more each gained than plain" in shown.output
    record = json.loads(CliRunner().invoke(app, ["leaderboard", *places, "--versus", "plain", "--json"]).stdout)
    assert record["versus"]["to"] == "plain"
    assert record["versus"]["rows"][0]["domains"]["tatqa"]["difference"] == pytest.approx(1.0)
    assert CliRunner().invoke(app, ["leaderboard", *places, "--versus", "other"]).exit_code == 2
