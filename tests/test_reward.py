"""Reward models: padding and company do not matter, answers are never cut, bad models are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from equipoise.model.load import load_tokenizer
from equipoise.model.reward import Calibration, RewardModel, padded_length, render
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, Message
from equipoise.store import Store
from models import make_policy, make_reward

torch.set_num_threads(1)
CONVERSATIONS = [
    ((Message("system", "You are a helpful assistant."), Message("user", "What is a bond?")), "A loan to a state."),
    ((Message("user", "What is a bond?"),), "A loan."),
    ((Message("user", "Should I pay my loans first? " * 5),), "Yes, pay interest every year. " * 6),
    ((Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "A letter, please.")), "Dear bank,"),
    ((Message("user", "Hi"),), ""),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reward(tmp_path_factory.mktemp("models") / "reward")


def model(folder: Path, *, max_length: int = 400, sanity: Any = "warn", **more: Any) -> RewardModel:
    spec = RewardSpec(id=str(folder), max_length=max_length, sanity=sanity)
    return RewardModel(spec, device=torch.device("cpu"), **more)


def test_the_reward_is_the_logit_of_the_whole_rendered_conversation(folder: Path) -> None:
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = load_tokenizer(folder, "test")
    for (messages, answer), reward in zip(CONVERSATIONS, model(folder).score(CONVERSATIONS), strict=True):
        turns = [{"role": m.role, "content": m.content} for m in messages] + [{"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.inference_mode():
            assert plain(input_ids=ids).logits.item() == pytest.approx(reward, abs=1e-5)


def test_batch_size_order_and_company_do_not_matter(folder: Path) -> None:
    eight = model(folder).score(CONVERSATIONS)
    one = model(folder, rows=1).score(CONVERSATIONS)
    assert eight == pytest.approx(one, abs=1e-5)
    rng = random.Random(0)
    for _ in range(5):
        some = rng.sample(range(len(CONVERSATIONS)), 3)
        assert model(folder).score([CONVERSATIONS[i] for i in some]) == [eight[i] for i in some]  # to the last bit


def test_padding_token_equal_to_the_end_of_turn(tmp_path: Path) -> None:
    folder = make_reward(tmp_path / "reward")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template.replace("<|im_end|>\\n", "<|im_end|>"))
    expected = model(folder, rows=1).score(CONVERSATIONS)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token": config["eos_token"]}))
    same = model(folder)
    assert same.loaded.tokenizer.pad_token_id == same._encode(*CONVERSATIONS[1])[-1]
    assert same.score(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


def test_a_long_conversation_loses_its_beginning_and_never_the_answer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, "test")
    messages, answer = (Message("user", "What about the bank? " * 30),), "Pay interest every year."
    ids, protected = render(tokenizer, messages, answer)
    assert tokenizer.decode(ids[-protected:]) == "Pay interest every year.<|im_end|>\n"
    short = model(folder, max_length=40)
    assert len(ids) > 40
    assert short._encode(messages, answer) == tuple(ids[-40:])
    other = (Message("user", "Something else entirely. " + messages[0].content),)
    assert short.score([(other, answer)]) == short.score([(messages, answer)])
    refused = short.score([(messages, answer * 9)])[0]
    assert isinstance(refused, str) and "answer too long" in refused


def test_no_second_beginning_of_sequence(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, "test")
    tokenizer.chat_template = "<|endoftext|>" + tokenizer.chat_template
    tokenizer.bos_token, tokenizer.add_bos_token = "<|endoftext|>", True
    ids, _ = render(tokenizer, CONVERSATIONS[0][0], "A loan.")
    assert ids.count(tokenizer.bos_token_id) == 1


def test_what_cannot_be_scored_says_why(folder: Path) -> None:
    silent = model(folder)
    assert isinstance(silent.score([((Message("user", "Hi"),), "")])[0], float)
    silent.loaded.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert silent.score([((Message("user", "Hi"),), "")]) == ["empty answer"]
    broken = model(folder)
    assert isinstance(broken.score([((Message("user", "bad \ud800"),), "unicode \udfff")])[0], float)
    broken.loaded.model.score.weight.data.fill_(float("nan"))
    assert broken.score([((Message("user", "Hi"),), "no")]) == ["the reward model returned nan"]


def test_rewards_come_from_the_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    first = model(folder, store=store).score(CONVERSATIONS[:3])
    again = model(folder, store=store)
    monkeypatch.setattr(again, "_forward", lambda batch: pytest.fail("scored twice"))
    assert again.score(CONVERSATIONS[2::-1]) == first[::-1]


def test_a_head_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its head has 2 outputs"):
        model(make_reward(tmp_path / "two", num_labels=2))
    with pytest.raises(InputError):
        model(make_policy(tmp_path / "policy"))


def with_cases(folder: Path, good: str, bad: str, count: int = 3) -> Path:
    case = {"prompt": [{"role": "user", "content": "Hi"}], "good": good, "bad": bad}
    (folder / "sanity.json").write_text(json.dumps([case] * count))
    return folder


def test_a_model_that_prefers_bad_answers_stops_or_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_reward(tmp_path / "reward")
    a, b = (Message("user", "Hi"),), (Message("user", "Hi"),)
    first, second = model(folder).score([(a, "A loan."), (b, "A bank.")])
    better, worse = ("A loan.", "A bank.") if first > second else ("A bank.", "A loan.")
    assert model(with_cases(folder, better, worse), sanity="stop").sanity_check() == []
    model(folder, sanity="stop").score(CONVERSATIONS)
    with_cases(folder, worse, better)
    with pytest.raises(InputError, match="obviously worse answer in 3 of 3 sanity cases") as stopped:
        model(folder, sanity="stop").score(CONVERSATIONS)
    assert "\n" not in str(stopped.value)
    capsys.readouterr()
    model(folder, sanity="warn").score(CONVERSATIONS)
    assert "warning: reward.id" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["[]", '[{"prompt": "Hi"}]', "{", '{"a": 1}'])
def test_malformed_sanity_file(tmp_path: Path, text: str) -> None:
    folder = make_reward(tmp_path / "reward")
    (folder / "sanity.json").write_text(text)
    with pytest.raises(InputError, match=r"sanity\.json"):
        model(folder)


def test_calibration_is_monotone_and_read_from_the_folder(tmp_path: Path) -> None:
    folder = make_reward(tmp_path / "reward")
    assert model(folder).calibration == Calibration(0.0, 1.0, calibrated=False)
    (folder / "calibration.json").write_text('{"centre": 2, "scale": 0.5}')
    calibration = model(folder).calibration
    assert calibration == Calibration(2.0, 0.5, calibrated=True)
    assert calibration.to_ten(2.0) == 5.0
    raws = [-1e9, -10.0, -0.01, 0.01, 1.0, 1.01, 2.0, 10.0, 1e9]
    tens = [calibration.to_ten(raw) for raw in raws]
    assert tens == sorted(tens) and tens[0] == 0.0 and tens[-1] == 10.0
    for bad in ('{"centre": 0, "scale": 0}', '{"centre": "a", "scale": 1}', "[1]"):
        (folder / "calibration.json").write_text(bad)
        with pytest.raises(InputError, match=r"calibration\.json"):
            model(folder)


def test_padded_lengths_are_few_and_near() -> None:
    lengths = {padded_length(n) for n in range(1, 4097)}
    assert len(lengths) < 60
    assert all(n <= padded_length(n) <= max(n + 15, 1.13 * n) for n in range(1, 4097))
