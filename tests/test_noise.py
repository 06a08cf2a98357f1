"""The instrument's own noise, by hand and in a run; and what it forbids to say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import equipoise
from equipoise.evaluation.compare import compare
from equipoise.evaluation.noise import noise
from equipoise.evaluation.stats_words import sentence
from equipoise.records import Health, Score
from equipoise.verify import verify
from experiments import make_experiment

FINE = Health(empty=False, cut_off=False, repeated=False, words=3)


def scores(*values: float | None) -> list[Score]:
    return [
        Score(str(n), "d", "c", str(n), "", "test", ("x",), FINE, value, None if value is not None else "lost")
        for n, value in enumerate(values)
    ]


def test_noise_by_hand() -> None:
    found = noise([scores(1.0, 0.0, 1.0, 0.0), scores(1.0, 1.0, 1.0, 0.0)])
    assert found is not None and (found.repeats, found.n, found.moved) == (2, 4, 0.25)
    assert found.spread == 0.25  # means 0.5 and 0.75
    within = 1.959964 * math.sqrt(2 * 0.5) / 4  # one item with variance 0.5
    assert found.limit == pytest.approx(within, rel=1e-6)
    still = noise([scores(0.3, 0.4)] * 3)
    assert still is not None and (still.limit, still.moved) == (0.0, 0.0)
    assert noise([scores(None), scores(1.0)]) is None
    with pytest.raises(ValueError, match="at least two"):
        noise([scores(1.0)])


def test_a_difference_within_the_noise_is_neither_improved_nor_worse() -> None:
    before = {"d": scores(*[0.0, 0.1] * 20)}
    after = {"d": scores(*[0.2, 0.3] * 20)}
    assert compare(before, after)["d"].verdict == "improved"
    assert compare(before, after, noise={"d": 0.1})["d"].verdict == "improved"
    noisy = compare(before, after, noise={"d": 0.25})["d"]
    assert (noisy.verdict, noisy.noise) == ("undecided", 0.25)
    assert "measuring the unchanged model again moves it by up to 0.25" in sentence(noisy)
    assert compare(after, before, noise={"d": 0.25})["d"].verdict == "undecided"
    assert compare(before, after, noise={"d": 0.25}, margins={"d": 0.1})["d"].verdict == "held"


def test_items_that_lose_their_score_forbid_good_news() -> None:
    before = scores(*[0.0, 0.1] * 20)
    after = scores(*[0.2, 0.3] * 19, None, 0.3)
    found = compare({"d": before}, {"d": after})["d"]
    assert (found.verdict, found.lost, found.unscored) == ("undecided", 1, 1)
    assert "1 questions had a score before and have none after" in sentence(found)
    back = compare({"d": after}, {"d": before})["d"]
    assert (back.verdict, back.lost) == ("worse", 0)


def test_a_run_measures_its_base_again_and_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQUIPOISE_CACHE", str(tmp_path / "cache"))
    path = make_experiment(tmp_path)
    recipe = equipoise.load_recipe(path, ["evaluation.repeats=3", "stages.1.mix={general: 4}"])
    outcome = equipoise.run(recipe, out=tmp_path / "runs", name="again")
    folder = outcome.run.folder
    assert sorted(path.name for path in (folder / "repeats").iterdir()) == ["1", "2"]
    stored = json.loads((folder / "noise.json").read_text())
    assert {row["repeats"] for row in stored.values()} == {3}
    assert all(outcome.verdict[name]["noise"] == stored[name]["limit"] for name in stored)
    assert verify(outcome.run) == []
    lines = (folder / "repeats" / "1" / "mt_bench.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    next(record for record in records if record["split"] == "test")["value"] = 99.0
    (folder / "repeats" / "1" / "mt_bench.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert any(problem.startswith("noise.json: mt_bench") for problem in verify(outcome.run))
