"""Reward models: padding and company do not matter, answers are never cut, bad models are refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from equipoise.model.load import classifier_identity, load_tokenizer
from equipoise.model.reward import RewardModel, padded_length
from equipoise.model.reward_text import encode
from equipoise.model.sanity import Case
from equipoise.recipe import RewardSpec
from equipoise.records import InputError, Message
from equipoise.store import Store
from models import make_policy, make_reward, make_tokenizer, settings

torch.set_num_threads(1)
CONVERSATIONS = [
    ((Message("system", "You are a helpful assistant."), Message("user", "What is a bond?")), "A loan to a state."),
    ((Message("user", "What is a bond?"),), "A loan."),
    ((Message("user", "Should I pay my loans first? " * 5),), "Yes, pay interest every year. " * 6),
    ((Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "A letter, please.")), "Dear bank,"),
    ((Message("user", "Hi"),), "No"),
]
CLASSIFIERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen3": ("Qwen3Config", {}),
    "Llama": ("LlamaConfig", {}),
    "Mistral": ("MistralConfig", {"sliding_window": 16}),
    "Gemma2": ("Gemma2Config", {"query_pre_attn_scalar": 12}),
    "Gemma": ("GemmaConfig", {}),
    "Gemma3Text": ("Gemma3TextConfig", {"query_pre_attn_scalar": 12, "sliding_window": 16}),
}
"""Sequence classifiers of transformers by the beginning of their class, with what their configuration needs."""


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
    assert same.loaded.tokenizer.pad_token_id == encode(same.loaded.tokenizer, *CONVERSATIONS[1], 400)[-1]
    assert same.score(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


def test_a_padding_token_beyond_the_embeddings_is_not_used(tmp_path: Path) -> None:
    folder = make_reward(tmp_path / "reward")
    expected = model(folder).score(CONVERSATIONS)
    tokenizer = load_tokenizer(folder, "test")
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(folder)
    other = model(folder)
    assert other.loaded.tokenizer.pad_token_id >= other.loaded.model.get_input_embeddings().num_embeddings
    assert other.score(CONVERSATIONS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_other_architectures(name: str, tmp_path: Path) -> None:
    """Each is scored as it scores one whole conversation by itself, without padding; each is refused without a head."""
    configuration, more = CLASSIFIERS[name]
    tokenizer = make_tokenizer()
    values = settings(tokenizer, num_labels=1, tie_word_embeddings=False, **more)
    torch.manual_seed(1)
    made = getattr(transformers, f"{name}ForSequenceClassification")(
        getattr(transformers, configuration)(**values)
    ).eval()
    made.save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    rewards = model(tmp_path / "reward").score(CONVERSATIONS)
    for (messages, answer), reward in zip(CONVERSATIONS, rewards, strict=True):
        ids = encode(tokenizer, messages, answer, 400)
        with torch.inference_mode():
            assert made(input_ids=torch.tensor([ids])).logits.item() == pytest.approx(reward, abs=1e-5)
    made.model.save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(InputError, match=r"score\.weight; they would be random"):
        model(tmp_path / "headless")


def test_half_precision_and_batches_of_one_shape(folder: Path) -> None:
    """In bf16, as on CUDA: near the fp32 rewards, and the same to the last bit in any company."""
    shapes = []
    half = model(folder)
    half.loaded.model.to(torch.bfloat16)
    half.loaded.model.register_forward_pre_hook(
        lambda module, given, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    many = [((Message("user", "Pay " * n),), "Yes, a loan.") for n in range(1, 40)] + CONVERSATIONS
    rewards = half.score(many)
    assert rewards == pytest.approx(model(folder).score(many), abs=0.05)
    assert all(isinstance(reward, float) for reward in rewards)
    assert {rows for rows, _ in shapes} == {8} and {length % 16 for _, length in shapes} == {0}
    assert len(shapes) < len(many) / 2
    assert half.score(many[5:9]) == rewards[5:9]


def test_long_conversations_come_in_smaller_batches(folder: Path) -> None:
    wide = model(folder, rows=32)
    wide.longest = 8192
    assert [wide._shape(tokens) for tokens in (100, 1024, 2000, 4096, 8192)] == [
        (32, 112), (32, 1024), (16, 2048), (8, 4096), (4, 8192)
    ]  # fmt: skip
    assert model(folder, rows=1)._shape(400) == (1, 400)


def test_precision_on_cuda(folder: Path) -> None:
    """The identity of a reward model holds its precision: float32 on a CPU, bfloat16 on CUDA."""
    spec = RewardSpec(id=str(folder))
    assert classifier_identity(spec, torch.device("cpu")) != classifier_identity(spec, torch.device("cuda"))


def test_keys_and_values_are_not_kept(folder: Path) -> None:
    plain = model(folder)
    ids = torch.tensor([[5, 6, 7]])
    assert plain.loaded.model(input_ids=ids).past_key_values is None


def test_no_number_is_no_reward(folder: Path) -> None:
    broken = model(folder)
    broken.loaded.model.score.weight.data.fill_(float("nan"))
    assert broken.score([((Message("user", "Hi"),), "no")]) == ["the reward model returned nan"]


def test_rewards_come_from_the_store(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    first = model(folder, store=store).score(CONVERSATIONS[:3])
    again = model(folder, store=store)
    monkeypatch.setattr(again, "_forward", lambda batch: pytest.fail("scored twice"))
    assert again.score(CONVERSATIONS[2::-1]) == first[::-1]


def test_a_head_of_another_kind_is_refused(tmp_path: Path) -> None:
    two = make_reward(tmp_path / "two", num_labels=2)
    with pytest.raises(InputError, match="its head has 2 outputs"):
        model(two)
    with pytest.raises(InputError, match="a reward model has one"):
        model(make_policy(tmp_path / "policy"))
    with pytest.raises(InputError, match=r"the weights lack score\.weight; they would be random"):
        model(make_policy(tmp_path / "policy with one label", num_labels=1))
    config = json.loads((two / "config.json").read_text())
    config |= {"id2label": {"0": "reward"}, "label2id": {"reward": 0}}
    (two / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the model cannot be loaded"):  # one output promised, weights for two
        model(two)


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


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        '[{"prompt": "Hi"}]',
        "{",
        '{"a": 1}',
        '[{"prompt": [{"role": "user", "content": "Hi"}], "good": "Hello.", "bad": 5}]',
        '[{"prompt": [{"role": "user", "content": null}], "good": "Hello.", "bad": "No."}]',
    ],
)
def test_malformed_sanity_file(tmp_path: Path, text: str) -> None:
    folder = make_reward(tmp_path / "reward")
    (folder / "sanity.json").write_text(text)
    with pytest.raises(InputError, match=r"sanity\.json"):
        model(folder)


@pytest.mark.parametrize(("wrong", "count", "passes"), [(1, 8, True), (2, 8, False), (0, 3, True), (1, 3, False)])
def test_one_case_in_eight_may_go_wrong(folder: Path, wrong: int, count: int, passes: bool) -> None:
    prompt = (Message("user", "Hi"),)
    judge = model(folder, sanity="stop")
    low, high = sorted(("A loan.", "A bank."), key=lambda answer: judge._score([(prompt, answer)], None)[0])
    judge.cases = (Case(prompt, low, high),) * wrong + (Case(prompt, high, low),) * (count - wrong)
    if passes:
        judge.require_sanity()
    else:
        with pytest.raises(InputError, match=f"in {wrong} of {count} sanity cases"):
            judge.require_sanity()


def test_padded_lengths_are_few_and_near() -> None:
    lengths = {padded_length(n) for n in range(1, 4097)}
    assert len(lengths) < 60
    assert all(n <= padded_length(n) <= max(n + 15, 1.13 * n) for n in range(1, 4097))
