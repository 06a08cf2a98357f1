"""The map to 0-10: worked constants, the built-in set, and that a model's map never moves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import median, pstdev
from typing import Any

import pytest
import torch

from equipoise.model import reward as reward_module
from equipoise.model.calibration import GRADES, Calibration, calibration_set, fit, read_calibration
from equipoise.model.ensemble import calibrate
from equipoise.model.reward import RewardModel
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, content_id
from equipoise.store import Store
from models import make_reward

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward(tmp_path_factory.mktemp("models") / "reward")


def model(folder: Path, **more: Any) -> RewardModel:
    return RewardModel(RewardSpec(id=str(folder), max_length=512, sanity="warn"), device=CPU, **more)


def test_worked_constants() -> None:
    """Five rewards 0 .. 4: the median is 2, the quartiles 1 and 3, and (3 - 1) / (2 ln 3) = 0.9102."""
    found = fit([3.0, 0.0, 4.0, 1.0, 2.0], 7, "test")
    assert found == Calibration(2.0, pytest.approx(0.910239), "set", 7, 5)
    assert [found.to_ten(raw) for raw in (1.0, 2.0, 3.0)] == pytest.approx([2.5, 5.0, 7.5])
    assert found.units(2.910239) == pytest.approx(1.0, abs=1e-5)


def test_of_logistic_rewards_the_map_is_their_distribution() -> None:
    shares = [(i + 0.5) / 4000 for i in range(4000)]
    rewards: list[float | str] = [3.0 + 2.0 * math.log(share / (1 - share)) for share in shares]
    found = fit(rewards, 1, "test")
    assert (found.centre, found.scale) == pytest.approx((3.0, 2.0), abs=2e-3)
    numbers = [reward for reward in rewards if not isinstance(reward, str)]
    assert found.scale == pytest.approx(pstdev(numbers) * math.sqrt(3) / math.pi, rel=5e-3)
    assert [found.to_ten(raw) for raw in numbers] == pytest.approx([10 * share for share in shares], abs=0.01)
    broken = [-1e6 if number < 400 else reward for number, reward in enumerate(numbers)]
    assert fit(broken, 1, "test") == found  # a tenth of extreme rewards moves neither median nor quartiles


def test_the_map_is_monotone_and_never_overflows() -> None:
    calibration = Calibration(2.0, 0.5)
    raws = [-1e9, -10.0, -0.01, 0.01, 1.0, 1.01, 2.0, 10.0, 1e9]
    tens = [calibration.to_ten(raw) for raw in raws]
    assert tens == sorted(tens) and (tens[0], calibration.to_ten(2.0), tens[-1]) == (0.0, 5.0, 10.0)


def test_answers_without_a_reward_are_left_out_up_to_half() -> None:
    assert fit([1.0, "too long", 2.0, "too long", 3.0], 1, "test").n == 3
    with pytest.raises(InputError, match=r"^here: only 1 of the calibration set's 3 answers get a reward \(too long\)"):
        fit([1.0, "too long", "too long"], 1, "here")


def test_a_model_that_gives_the_same_to_all_has_no_map(folder: Path) -> None:
    assert fit([0.0, 1e-7, 2e-7, 3e-7], 1, "test").scale > 0  # small is not equal
    for rewards in ([0.0] * 8, [5.0] * 7 + [9.0], [100.0, 100.0001, 100.0002, 100.0003]):
        with pytest.raises(InputError, match="gives the same reward"):
            fit(rewards, 1, "test")
    flat = model(folder)
    flat.loaded.model.score.weight.data.zero_()
    with pytest.raises(InputError, match=r"reward\.id: .*gives the same reward \(0\) to half") as stopped:
        _ = flat.calibration
    assert "\n" not in str(stopped.value)


def test_the_built_in_set() -> None:
    """Whoever changes a text raises the version and the identity here."""
    version, graded = calibration_set()
    texts = [[one.domain, [[turn.role, turn.content] for turn in one.messages], one.answer] for one in graded]
    assert (version, content_id(texts)) == (1, "b83c7f803b2ab81955924fd652c8a8c0")
    assert len(graded) == 240 and len({one.messages for one in graded}) == 60
    assert {one.domain for one in graded} == {"general", "finance", "reddit"}
    assert len({one.answer for one in graded}) == 240
    assert all([one.grade for one in graded[i : i + 4]] == list(GRADES) for i in range(0, 240, 4))
    for one in graded:
        assert one.answer.strip() == one.answer != "" and one.messages[-1].role == "user"
        assert not any(mark in one.answer for mark in ("<", "|>", "[INST]"))


def test_a_model_without_a_file_is_calibrated_on_the_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = model(folder)
    _, graded = calibration_set()
    rewards = plain.score([(one.messages, one.answer) for one in graded])
    found = plain.calibration
    assert (found.centre, found.source, found.version, found.n) == (median(rewards), "set", 1, 240)
    assert sum(2.5 <= found.to_ten(reward) <= 7.5 for reward in rewards) == pytest.approx(120, abs=40)
    assert calibrate(plain.spec, device=CPU) == found


def test_the_map_is_found_once_and_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    first = model(folder, store=store)
    known, identity = first.calibration, first.identity
    with monkeypatch.context() as patched:
        patched.setattr(RewardModel, "_score", lambda *_: pytest.fail("calibrated twice"))
        again = model(folder, store=store)
        assert again.calibration == known and again.identity == identity
        with pytest.raises(pytest.fail.Exception):
            _ = model(make_reward(tmp_path / "other", seed=1), store=store).calibration  # another model, another map
        patched.setattr(reward_module, "calibration_set", lambda: (2, calibration_set()[1]))
        with pytest.raises(pytest.fail.Exception):
            _ = model(folder, store=store).calibration  # another version of the set
    version, graded = calibration_set()
    monkeypatch.setattr(reward_module, "calibration_set", lambda: (version + 1, graded[:60]))
    other = model(folder, store=store)
    assert (other.calibration.version, other.calibration.n) == (2, 60) and other.identity != identity


def test_a_file_beside_the_model_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_reward(tmp_path / "reward")
    on_set = model(folder)
    (folder / "calibration.json").write_text('{"centre": 2, "scale": 0.5, "version": 3, "n": 900, "set": "ours"}')
    monkeypatch.setattr(RewardModel, "_score", lambda *_: pytest.fail("the file is enough"))
    with_file = model(folder)
    assert with_file.calibration == Calibration(2.0, 0.5, "file", 3, 900)
    assert calibrate(RewardSpec(id="pocket")).source == "file"
    monkeypatch.undo()
    assert with_file.identity != on_set.identity


@pytest.mark.parametrize(
    "text",
    [
        '{"centre": 0, "scale": 0}',
        '{"centre": "a", "scale": 1}',
        '{"centre": 0, "scale": true}',
        '{"centre": NaN, "scale": 1}',
        '{"centre": 0, "scale": 1, "version": "new"}',
        '{"centre": 0, "scale": 1, "n": -1}',
        "[1]",
        "{",
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json"):
        read_calibration(tmp_path)


def test_too_short_a_limit_is_named(folder: Path) -> None:
    short = RewardModel(RewardSpec(id=str(folder), max_length=16), device=CPU)
    with pytest.raises(InputError, match=r"raise reward\.max_length"):
        _ = short.calibration


def test_what_a_run_writes_can_be_read_back_and_said() -> None:
    found = Calibration(0.4185, 2.0736, "set", 1, 240)
    assert Calibration.from_record(json.loads(json.dumps({"id": "some/model", **found.record()}))) == found
    assert found.words() == "the built-in calibration set version 1, 240 answers: centre 0.4185, scale 2.074"
    said = replace(found, source="file", version=0, n=0).words()
    assert said == "calibration.json beside the model: centre 0.4185, scale 2.074"
