"""Evaluation: real second turns, reasons for what is unscored, the same bytes twice, exact dev shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.evaluation.evaluate import Instruments, conversation, evaluate
from equipoise.evaluation.items import load_items, splits
from equipoise.model import generate
from equipoise.model.generate import Answer, TransformersGenerator
from equipoise.model.load import Loaded, load_policy
from equipoise.model.reward import Calibration, RewardModel
from equipoise.recipe_evaluation import Evaluation, Generation, Tasks, TaskSpec, TatqaSpec
from equipoise.recipe_parts import ModelSpec, RewardSpec
from equipoise.records import InputError, Item, Message, Score
from equipoise.run_folder import Run
from equipoise.store import Store
from models import make_policy, make_reward

torch.set_num_threads(1)
CPU = torch.device("cpu")
EVALUATION = Evaluation(
    tasks=Tasks.model_validate({"tatqa": {}}),
    generation=Generation(max_new_tokens={"mt_bench": 6}, batch_size=4),
    dev_share=0.5,
)


class Says:
    """A generator that answers with the given function of the prompt and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]

    def generate(self, prompts: Sequence[Sequence[Message]], **settings: Any) -> list[Answer]:
        self.asked.append((list(prompts), settings))
        given = [self.answer(prompt) for prompt in prompts]
        return [one if isinstance(one, Answer) else Answer(one, 3, False) for one in given]


class Rates:
    """A reward model that rates with the given function."""

    identity, calibration = "rates", Calibration()

    def details(self, conversations: Any) -> list[dict[str, float]]:
        return [{} for _ in conversations]

    def __init__(self, rate: Any) -> None:
        self.rate, self.asked = rate, []  # type: ignore[var-annotated]

    def score(self, conversations: Any, progress: Any = None) -> list[float | str]:
        self.asked += conversations
        return [self.rate(answer) for _, answer in conversations]


def item(id: str, task: str = "finance_instruct", **more: Any) -> Item:
    return Item(id=id, task=task, prompt=(Message("user", f"Question {id}"),), group=id, **more)


def scores(items: dict[str, list[Item]], generator: Any, reward: Any, **more: Any) -> dict[str, list[Score]]:
    return evaluate(items, Instruments(generator, reward), EVALUATION, seed=0, **more)


def test_the_second_turn_is_asked_after_the_models_own_first_answer() -> None:
    two = item("81", "mt_bench", follow_ups=("Shorten it.",))
    model = Says(lambda prompt: f"answer to {prompt[-1].content}")
    reward = Rates(len)
    (score,) = scores({"mt_bench": [two]}, model, reward)["mt_bench"]
    first, second = "answer to Question 81", "answer to Shorten it."
    told = (Message("user", "Question 81"), Message("assistant", first), Message("user", "Shorten it."))
    assert model.asked[1][0] == [told]
    assert reward.asked == [((Message("user", "Question 81"),), first), (told, second)]
    assert score.answers == (first, second) and score.value == len(first)
    assert model.asked[0][1]["max_new_tokens"] == 6


def test_what_cannot_be_scored_has_a_reason_and_is_not_zero() -> None:
    items = {
        "finance_instruct": [item("a"), item("b"), item("c")],
        "mt_bench": [item("d", "mt_bench", follow_ups=("More.",))],
        "tatqa": [item("e", "tatqa", gold={"answer": None, "answer_type": "span", "scale": ""})],
    }
    too_long = Answer("", 0, False, "prompt too long: 900 tokens, room for 500 beside 12 new ones")
    texts = {"Question a": too_long, "Question b": "", "More.": too_long}
    model = Says(lambda prompt: texts.get(prompt[-1].content, "fine"))
    found = scores(items, model, Rates(lambda answer: 1.0 if answer else "empty answer"))
    a, b, c = found["finance_instruct"]
    (d,), (e,) = found["mt_bench"], found["tatqa"]
    assert (a.value, a.unscored, a.answers, a.health.empty) == (None, too_long.refused, (), True)
    assert (b.value, b.unscored, b.answers) == (None, "no reward: empty answer", ("",))
    assert (c.value, c.unscored, c.health.words) == (1.0, None, 1)
    assert (d.unscored, d.answers) == (too_long.refused, ("fine",))
    assert e.value is None and e.unscored is not None and e.unscored.startswith("malformed gold")
    assert b.health.empty and not c.health.empty


def test_a_task_that_needs_a_reward_model_is_refused_without_one() -> None:
    with pytest.raises(InputError, match=r"evaluation.tasks.finance_instruct: .*name one under `reward`"):
        scores({"finance_instruct": [item("a")]}, Says(lambda _: "x"), None)
    with pytest.raises(InputError, match="no task 'unknown'"):
        scores({"unknown": []}, Says(lambda _: "x"), None)


def test_thinking_is_neither_scored_nor_shown_again() -> None:
    two = item("81", "mt_bench", follow_ups=("Shorten it.",))
    model = Says(lambda prompt: "<think>\nhm\n</think>\n\nA loan." if len(prompt) == 1 else "<think>\nhm, wel")
    (score,) = scores({"mt_bench": [two]}, model, Rates(lambda _: 0.0), thinking=True)["mt_bench"]
    assert score.answers == ("A loan.",) and score.unscored == "the answer is thinking alone"
    assert model.asked[1][0][0][1] == Message("assistant", "A loan.")


def test_cut_off_answers_show_in_the_health() -> None:
    model = Says(lambda prompt: Answer("and so on", 6, cut_off=prompt[0].content.endswith("a")))
    a, b = scores({"finance_instruct": [item("b"), item("a")]}, model, Rates(lambda _: 0.0))["finance_instruct"]
    assert [a.id, b.id, a.health.cut_off, b.health.cut_off] == ["a", "b", True, False]


@pytest.mark.parametrize(
    ("count", "share", "dev"), [(10, 0.4, 4), (80, 0.4, 32), (2, 0.1, 1), (3, 0.9, 2), (1, 0.4, 0)]
)
def test_the_dev_share_of_groups_is_exact(count: int, share: float, dev: int) -> None:
    groups = [f"document {number}" for number in range(count)]
    found = splits(groups * 2, share)
    assert list(found.values()).count("dev") == dev and len(found) == count
    assert splits(reversed(groups), share) == found


def test_items_of_one_group_are_on_one_side() -> None:
    items = [Item(str(i), "finance_instruct", (Message("user", "?"),), group=str(i % 7)) for i in range(70)]
    found = scores({"finance_instruct": items}, Says(lambda _: "x"), Rates(lambda _: 0.0))["finance_instruct"]
    assert len({(score.group, score.split) for score in found}) == 7


def test_conversation_stops_where_the_answers_stop() -> None:
    two = item("81", "mt_bench", follow_ups=("Second.", "Third."))
    assert conversation(two, []) == two.prompt
    assert len(conversation(two, [Answer("a", 1, False)])) == 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, RewardSpec]:
    folder = tmp_path_factory.mktemp("models")
    policy = make_policy(folder / "policy", max_position_embeddings=600)
    reward = make_reward(folder / "reward", max_position_embeddings=900)
    return load_policy(ModelSpec(id=str(policy)), CPU), RewardSpec(id=str(reward), sanity="warn")


def test_twice_gives_the_same_bytes_and_the_second_time_is_free(
    models: tuple[Loaded, RewardSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, spec = models
    items = {
        name: load_items(name, (TatqaSpec if name == "tatqa" else TaskSpec)(id="pocket", limit=6))
        for name in ("tatqa", "mt_bench", "finance_instruct", "reddit")
    }
    run = Run(tmp_path / "run")

    def once(point: str, store: Store, given: dict[str, list[Item]]) -> dict[str, bytes]:
        generator = TransformersGenerator(loaded, identity=loaded.identity, batch_size=4, store=store)
        asked = EVALUATION.model_copy(update={"generation": Generation(max_new_tokens=8, batch_size=4)})
        reward = RewardModel(spec, store=store, device=CPU)
        found = evaluate(given, Instruments(generator, reward), asked, seed=0)
        for name, made in found.items():
            assert [score.id for score in made] == sorted(score.id for score in made)
            run.write_scores(point, name, made)
        assert run.scores(point) == found
        return {name: run.score_file(point, name).read_bytes() for name in found}

    store = Store(tmp_path / "store")
    first = once("base", store, items)
    assert once("base", Store(tmp_path / "another store"), items) == first
    monkeypatch.setattr(generate, "write", lambda *_: pytest.fail("generated twice"))
    monkeypatch.setattr(RewardModel, "_forward", lambda *_: pytest.fail("scored twice"))
    assert once("base", store, {name: given[::-1] for name, given in reversed(items.items())}) == first
