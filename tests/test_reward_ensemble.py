"""Several reward models: the mean in calibrated units, their disagreement, and one identity for all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from equipoise.measure import load_reward
from equipoise.model.calibration import Calibration
from equipoise.model.ensemble import RewardEnsemble, open_reward, reward_identity
from equipoise.model.reward import RewardModel
from equipoise.progress import Silent
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, Message
from equipoise.store import Store
from models import make_reward

torch.set_num_threads(1)
CPU = torch.device("cpu")
HI = (Message("user", "What is a bond?"),)
CONVERSATIONS = [(HI, "A loan to a state."), (HI, "A bank."), (HI, "")]
MAPS = {"a": (0.1, 0.5), "b": (-0.2, 2.0), "c": (0.0, 1.0)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    made = {name: make_reward(place / name, seed=seed) for seed, name in enumerate(MAPS)}
    for name, (centre, scale) in MAPS.items():
        (made[name] / "calibration.json").write_text(json.dumps({"centre": centre, "scale": scale}))
    return made


def spec(folders: dict[str, Path], *names: str, **more: Any) -> RewardSpec:
    one, *others = (RewardSpec(id=str(folders[name]), sanity="warn") for name in names)
    return one.model_copy(update={"also": tuple(others), **more})


def alone(folders: dict[str, Path], name: str) -> list[float | str]:
    return open_reward(spec(folders, name), device=CPU).score(CONVERSATIONS)


def test_the_value_is_the_mean_in_calibrated_units(folders: dict[str, Path]) -> None:
    both = open_reward(spec(folders, "a", "b"), device=CPU)
    values, details = both.score(CONVERSATIONS), both.details(CONVERSATIONS)
    for place in (0, 1):
        a, b = alone(folders, "a")[place], alone(folders, "b")[place]
        assert isinstance(a, float) and isinstance(b, float)
        z = (a - 0.1) / 0.5, (b + 0.2) / 2.0
        assert values[place] == pytest.approx((z[0] + z[1]) / 2)
        assert details[place] == pytest.approx({"reward_1": a, "reward_2": b, "disagreement": abs(z[0] - z[1]) / 2})
    assert values[2] == "empty answer" and details[2] == {}
    assert both.calibration == Calibration(0.0, 1.0, "members")
    assert both.calibration.to_ten(0.0) == 5.0


def test_three_members_and_one(folders: dict[str, Path]) -> None:
    three = open_reward(spec(folders, "a", "b", "c"), device=CPU)
    assert set(three.details(CONVERSATIONS)[0]) == {"reward_1", "reward_2", "reward_3", "disagreement"}
    single = open_reward(spec(folders, "a"), device=CPU)
    assert isinstance(single, RewardModel)
    assert single.details(CONVERSATIONS) == [{}, {}, {}]
    assert three.record() == {
        "members": [
            {"id": str(folders[name]), "revision": None, "centre": centre, "scale": scale, "source": "file",
             "version": 0, "n": 0}
            for name, (centre, scale) in MAPS.items()
        ]
    }  # fmt: skip
    assert single.record()["members"] == three.record()["members"][:1]


def test_what_one_cannot_score_is_unscored(folders: dict[str, Path]) -> None:
    short = RewardSpec(id=str(folders["b"]), max_length=60, sanity="warn")
    both = open_reward(spec(folders, "a", also=(short,)), device=CPU)
    long = [(HI, "Pay interest every year. " * 12), *CONVERSATIONS[:1]]
    reason, value = both.score(long)
    assert isinstance(reason, str) and reason.startswith("answer too long for the reward model")
    assert isinstance(value, float) and both.details(long)[0] == {}


def test_each_conversation_is_asked_for_once(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    both = open_reward(spec(folders, "a", "b"), device=CPU)
    seen: list[tuple[int, int]] = []
    values = both.score(CONVERSATIONS, lambda done, total: seen.append((done, total)))
    assert seen[0] == (2, 4) and seen[-1] == (4, 4)
    monkeypatch.setattr(RewardModel, "score", lambda *_: pytest.fail("scored twice"))
    assert both.score(CONVERSATIONS[::-1]) == values[::-1]
    assert both.details(CONVERSATIONS)[0]["disagreement"] > 0


def test_the_identity_covers_all_members(folders: dict[str, Path], tmp_path: Path) -> None:
    several = [("a",), ("b",), ("a", "b"), ("b", "a"), ("a", "c"), ("a", "b", "c")]
    assert len({open_reward(spec(folders, *names), device=CPU).identity for names in several}) == len(several)
    assert len({reward_identity(spec(folders, *names), CPU) for names in several}) == len(several)
    moved = make_reward(tmp_path / "moved", seed=1)
    (moved / "calibration.json").write_text('{"centre": -0.2, "scale": 3.0}')
    other = spec({**folders, "b": moved}, "a", "b")
    assert open_reward(other, device=CPU).identity != open_reward(spec(folders, "a", "b"), device=CPU).identity
    assert reward_identity(other, CPU) != reward_identity(spec(folders, "a", "b"), CPU)


def test_the_sanity_of_every_member_is_checked(folders: dict[str, Path], tmp_path: Path) -> None:
    mad = make_reward(tmp_path / "mad", seed=5)
    case = {"prompt": [{"role": "user", "content": "Hi"}], "good": "Hello.", "bad": "Hello."}
    (mad / "sanity.json").write_text(json.dumps([case]))
    both = open_reward(spec(folders, "a", also=(RewardSpec(id=str(mad)),)), device=CPU)
    with pytest.raises(InputError, match="mad: prefers the obviously worse answer"):
        both.require_sanity()


def test_the_same_model_twice(folders: dict[str, Path]) -> None:
    one = RewardSpec(id="pocket")
    with pytest.raises(ValidationError, match="pocket is named twice"):
        RewardSpec(id="pocket", also=(one,))
    with pytest.raises(ValidationError, match="no `also` of its own"):
        RewardSpec(id="a/b", also=(RewardSpec(id="c/d", also=(one,)),))
    again = RewardModel(RewardSpec(id=str(folders["a"]), revision="main"), device=CPU)
    with pytest.raises(InputError, match="is the same model as"):
        RewardEnsemble([RewardModel(RewardSpec(id=str(folders["a"])), device=CPU), again])


def test_a_recipe_can_name_several() -> None:
    several = RewardSpec.model_validate({"id": "pocket", "also": [{"id": "a/b"}, {"id": "a/b", "revision": "v2"}]})
    assert {several: 1}[RewardSpec.model_validate(several.model_dump(mode="json"))] == 1
    assert [member.id for member in several.members] == ["pocket", "a/b", "a/b"]
    assert all(member.also == () for member in several.members)


def test_a_run_is_told_which_map_is_used(folders: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    plain = make_reward(tmp_path / "plain", seed=3)
    reward = load_reward(
        spec(folders, "a", also=(RewardSpec(id=str(plain), sanity="warn"),)), Store(tmp_path / "store"), Listening()
    )
    assert isinstance(reward, RewardEnsemble)
    assert len(said) == 1 and said[0].startswith(f"{plain}: 0-10 values by the built-in calibration set version 1")
    assert load_reward(None, Store(tmp_path / "store"), Listening()) is None
