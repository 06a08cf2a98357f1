"""Pairs of generated answers: what is ranked against what, when it is enough, and that a killed build goes on."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.data.sampling import Judge, Ranked, compared_pairs, ranked_pairs, said, sample_seed
from equipoise.data.sources import on_policy
from equipoise.data.workshop import Finished, Workshop
from equipoise.model import generate
from equipoise.model.generate import Answer, TransformersGenerator
from equipoise.model.load import Loaded, load_policy
from equipoise.model.reward import RewardModel
from equipoise.pocket import world
from equipoise.recipe import ModelSpec, OnPolicySource, RewardSpec, Sampling
from equipoise.records import InputError, Message, Pair
from equipoise.store import Store
from models import make_policy, make_reward
from samplers import LastWord, answer, workshop

torch.set_num_threads(1)
PROMPT = (Message("user", "Why?"),)


def drafts(count: int) -> list[Pair]:
    return [
        Pair((Message("user", f"question {number}"),), "", "", domain="d", source="s", group=str(number))
        for number in range(count)
    ]


def judged(*answers: list[Answer], min_gap: float = 0.0) -> list[Ranked | str]:
    return Judge(LastWord(), min_gap=min_gap).best_and_worst([PROMPT] * len(answers), answers)


def test_the_best_against_the_worst() -> None:
    found = judged([answer("a 2"), answer(" b 5.5\n"), answer("c -1"), answer("d 3")])
    assert found == [Ranked("b 5.5", "c -1", 6.5)]


def test_why_there_is_no_pair() -> None:
    cut, refused = Answer("cut 9", 9, cut_off=True), Answer("", 0, cut_off=False, refused="prompt too long")
    thought, broken = Answer("<think> so", 3, cut_off=False), answer("caf\ufffd 3")
    good = answer("good 2")
    assert judged(
        [good, cut],
        [good, refused],
        [good, answer(" \n")],
        [good, thought],
        [good, broken],
        [good, answer("good 2 "), cut],
        [good, answer("why not")],
        [good, answer("as good 2")],
        [good, answer("bad 1"), cut, answer("why not")],
    ) == [
        *["one answer only"] * 5,
        "all samples equal",
        "no reward",
        "answers too close",
        Ranked("good 2", "bad 1", 1.0),
    ]


def test_why_no_answer_is_fit() -> None:
    """The reason of most answers, the first of two that are as frequent; one that is fit is one too few."""
    cut, empty, broken = Answer("cut 9", 9, cut_off=True), answer(" \n"), answer("caf\ufffd 3")
    refused = Answer("", 0, cut_off=False, refused="prompt too long: 9000 tokens")
    thought = Answer("<think> so", 3, cut_off=False)
    assert judged(
        [refused, refused], [cut, empty, empty], [empty, cut, cut], [broken, empty], [thought], [answer("good 2")]
    ) == [
        "prompt too long for the model",
        "empty answer",
        "cut off",
        "broken unicode",
        "empty answer",
        "one answer only",
    ]


def test_a_comparison_without_a_fit_answer_says_why() -> None:
    shop, _ = workshop(lambda prompt, sample: Answer("", 0, cut_off=False, refused="too long"), wanted=9)
    found = compared_pairs("s", spec(), drafts(3), shop, lambda draft, texts: "never asked", samples=1)
    assert found == Finished([], {"prompt too long for the model": 3})


def test_thinking_is_no_part_of_an_answer() -> None:
    assert said(answer("<think>He asks.</think>\n\nYes 4")) == "Yes 4"
    assert said(Answer("<think>He asks.</think>\n\nYes 4", 9, cut_off=True)) == ""
    assert judged([answer("hm</think> 4"), answer("<think>9</think> 3")]) == [Ranked("4", "3", 1.0)]


def test_a_gap_is_measured_in_standard_deviations_of_the_rewards() -> None:
    rewards = [[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]]
    spread = statistics.stdev([0, 1, 0, 2, 0, 3])
    answers = [[answer(f"{reward}") for reward in row] for row in rewards]
    assert [isinstance(one, Ranked) for one in judged(*answers, min_gap=2 / spread)] == [False, True, True]
    assert [isinstance(one, Ranked) for one in judged(*answers, min_gap=2.01 / spread)] == [False, False, True]


def test_the_spread_stays_that_of_the_first_answers() -> None:
    judge = Judge(LastWord(), min_gap=1.0)
    judge.best_and_worst([PROMPT], [[answer("0"), answer("4")]])
    assert judge.spread == pytest.approx(8**0.5)
    assert judge.best_and_worst([PROMPT], [[answer("0"), answer("2")]]) == ["answers too close"]
    assert judge.spread == pytest.approx(8**0.5)


def test_a_reward_model_that_cannot_rank_is_named() -> None:
    with pytest.raises(InputError, match="gives 7 to each of the first 2 answers") as error:
        judged([answer("yes 7"), answer("no 7")])
    assert "\n" not in str(error.value)


def scored(prompt: str, sample: int) -> Answer:
    """Answers of many kinds, by the number of the question."""
    number = int(prompt.split()[-1])
    if number % 7 == 3:
        return Answer("", 0, cut_off=True)
    if number % 7 == 4:
        return answer("1")
    return answer(f"sample {sample} {(number % 5) * sample / 4}")


def spec(**options: Any) -> Sampling:
    return Sampling(**{"batch_size": 4, "samples": 2, "min_gap": 0.25, **options})


def test_the_spread_is_that_of_the_first_64_rewards_and_judges_them_too() -> None:
    shop, model = workshop(scored, wanted=1000)
    found = ranked_pairs("s", spec(), drafts(200), shop)
    first: list[float] = []
    asked = [prompt for call in model.calls[::2] for prompt in call]
    for start in range(0, 200, 4):
        for prompt in asked[start : start + 4]:
            texts = {said(scored(prompt, sample)) for sample in range(2)} - {""}
            first += [float(text.split()[-1]) for text in texts if len(texts) == 2]
        if len(first) >= 64:
            break
    assert 64 <= len(first) < 72
    assert found.spread == pytest.approx(statistics.stdev(first))
    gaps = {(int(prompt.split()[-1]) % 5) / 4 for prompt in asked}
    kept = {pair.reward_gap for pair in found.pairs}
    assert kept == {gap for gap in gaps if gap >= 0.25 * found.spread and gap > 0}


def test_a_larger_build_begins_with_the_smaller_one() -> None:
    all_drafts = drafts(300)
    small_shop, small_model = workshop(scored, wanted=20)
    large_shop, large_model = workshop(scored, wanted=90)
    small, large = (ranked_pairs("s", spec(), all_drafts, shop) for shop in (small_shop, large_shop))
    assert small.pairs == large.pairs[: len(small.pairs)] and small.spread == large.spread
    assert small_model.calls == large_model.calls[: len(small_model.calls)]
    assert 20 <= len(small.pairs) < 24 and 90 <= len(large.pairs) < 94
    assert ranked_pairs("other", spec(), all_drafts, workshop(scored, 20)[0]).pairs != small.pairs


@pytest.mark.parametrize("wanted", [0, 1, 30, 10_000])
@pytest.mark.parametrize("most", [None, 1, 50, 61])
@pytest.mark.parametrize("samples", [2, 3])
def test_drafts_are_pairs_and_what_was_dropped(wanted: int, most: int | None, samples: int) -> None:
    def usable(pair: Pair) -> str | None:
        return "no room" if int(pair.group) % 6 == 0 else None

    given = drafts(120)
    shop, model = workshop(scored, wanted, usable)
    found = ranked_pairs("s", spec(max_prompts=most, samples=samples), given, shop)
    assert len(given) == len(found.pairs) + sum(found.dropped.values())
    assert all(found.dropped.values())
    assert not any(usable(pair) for pair in found.pairs)
    assert len({prompt for call in model.calls for prompt in call}) <= (120 if most is None else most)
    enough = len(found.pairs) >= wanted
    assert ("not needed" in found.dropped) <= enough
    assert ("beyond max_prompts" in found.dropped) == (not enough and most is not None)
    if wanted == 10_000 and most is None:
        assert found.dropped["no room"] and found.dropped["cut off"] and found.dropped["all samples equal"]


def test_every_sample_has_a_seed_of_its_own() -> None:
    seeds = [sample_seed(seed, sample) for seed in range(20) for sample in range(20)]
    assert len(set(seeds)) == 400 and all(0 <= seed < 2**31 for seed in seeds)


def test_progress_counts_pairs_and_ends_once() -> None:
    told: list[tuple[str, int, int]] = []
    shop, model = workshop(scored, wanted=40)
    watched = Workshop(
        wanted=40,
        usable=shop.usable,
        generator=shop.generator,
        judge=shop.judge,
        progress=lambda *one: told.append(one),
    )
    ranked_pairs("s", spec(), drafts(300), watched)
    done = [one for _, one, _ in told]
    assert {(label, total) for label, _, total in told} == {("s: pairs", 40)}
    assert done == sorted(done) and done[0] == 0 and done.count(40) == 1
    assert len(told) > len(model.calls)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Path]:
    """A policy with random weights whose answers end before a byte that is no ASCII, and a reward model."""
    folder = tmp_path_factory.mktemp("models")
    loaded = load_policy(ModelSpec(id=str(make_policy(folder / "policy"))), torch.device("cpu"))
    tokens = range(len(loaded.tokenizer))
    ends = [token for token in tokens if not loaded.tokenizer.decode([token]).isascii()]
    loaded.model.generation_config.eos_token_id = [*ends, loaded.tokenizer.eos_token_id]
    return loaded, make_reward(folder / "reward")


def test_a_killed_build_goes_on_and_a_larger_one_extends_it(
    models: tuple[Loaded, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, folder = models
    written: Counter[str] = Counter()
    write = generate.write

    def counted(loaded: Any, batch: Any, settings: Any, ends: Any) -> Any:
        written[f"{settings.seed} {batch}"] += 1
        return write(loaded, batch, settings, ends)

    monkeypatch.setattr(generate, "write", counted)

    def made(store: Store, wanted: int, kill_after: int | None = None) -> Finished:
        calls = []

        def progress(label: str, done: int, total: int) -> None:
            calls.append(done)
            if len(calls) == kill_after:
                raise KeyboardInterrupt

        shop = Workshop(
            wanted=wanted,
            usable=lambda pair: None,
            generator=lambda policy: TransformersGenerator(loaded, identity="policy", batch_size=4, store=store),
            judge=lambda: RewardModel(RewardSpec(id=str(folder), sanity="warn"), store=store),
            progress=progress,
        )
        sampling = Sampling(batch_size=8, samples=3, max_new_tokens=12, min_gap=0.1, temperature=1.0)
        return ranked_pairs("s", sampling, drafts(64), shop)

    expected = made(Store(tmp_path / "whole"), wanted=12)
    once = dict(written)
    assert len(expected.pairs) >= 12 and expected.dropped["not needed"] and max(once.values()) == 1
    assert all(pair.reward_gap and pair.chosen != pair.rejected for pair in expected.pairs)
    written.clear()
    store = Store(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        made(store, wanted=12, kill_after=9)
    assert 0 < len(written) < len(once)
    assert made(store, wanted=12) == expected
    assert written == once  # nothing twice
    larger = made(store, wanted=30)
    assert larger.pairs[: len(expected.pairs)] == expected.pairs and len(larger.pairs) > len(expected.pairs)
    assert max(written.values()) == 1 and len(written) > len(once)


def on_policy_source(path: Path, rows: list[dict[str, Any]], **options: Any) -> OnPolicySource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return OnPolicySource(kind="on_policy", id=str(path), domain="general", **options)


def test_on_policy_reads_prompts_of_any_table(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"ask": "One?", "role": "Be brief.", "topic": 7},
        {"ask": "One?", "role": "Be brief.", "topic": 8},
        {"ask": "Two?", "role": None, "topic": "b"},
        {"ask": [{"role": "user", "content": "A"}, {"from": "gpt", "value": "B"}, {"from": "human", "value": "C"}]},
        {"ask": 3},
    ]
    columns = {"prompt": "ask", "system": "role"}
    source = on_policy_source(tmp_path / "asked.jsonl", rows, columns=columns)
    built = on_policy.build("s", source)
    assert built.dropped == {"duplicate prompt": 1, "wrong type": 1} and built.rows == 5
    assert [pair.prompt for pair in built.pairs] == [
        (Message("system", "Be brief."), Message("user", "One?")),
        (Message("user", "Two?"),),
        (Message("user", "A"), Message("assistant", "B"), Message("user", "C")),
    ]
    assert {(pair.chosen, pair.rejected, pair.source, pair.domain) for pair in built.pairs} == {
        ("", "", "s", "general")
    }
    grouped = on_policy_source(tmp_path / "some.jsonl", rows[:3], columns={**columns, "group": "topic"})
    assert [pair.group for pair in on_policy.build("s", grouped).pairs] == ["7", "b"]
    with pytest.raises(InputError, match="no column 'prompt'"):
        on_policy.build("s", on_policy_source(tmp_path / "asked.jsonl", rows))


def test_on_policy_knows_the_columns_of_the_world() -> None:
    for domain, columns in {"general": ["question"], "finance": ["user"], "reddit": ["title", "selftext"]}.items():
        rows = world.rows(domain, split="train", n=60)
        asked = dict.fromkeys("\n\n".join(row[column] for column in columns) for row in rows)
        built = on_policy.build("s", OnPolicySource(kind="on_policy", id="pocket", domain=domain, rows=60))
        assert [pair.prompt[-1].content for pair in built.pairs] == list(asked)
        assert sum(built.dropped.values()) == 60 - len(asked)
        assert {pair.group for pair in built.pairs} == {row["group"] for row in rows}
        assert {pair.prompt[0].role for pair in built.pairs} == ({"user"} if domain == "reddit" else {"system"})


def test_on_policy_in_a_domain_that_the_world_has_not() -> None:
    with pytest.raises(InputError, match="source s: "):
        on_policy.build("s", OnPolicySource(kind="on_policy", id="pocket", domain="mt_bench"))


def test_on_policy_ranks_what_the_model_says(tmp_path: Path) -> None:
    source = on_policy_source(
        tmp_path / "asked.jsonl",
        [{"prompt": f"question {number}"} for number in range(8)],
        sampling={"samples": 3, "min_gap": 0.0},
    )
    shop, model = workshop(lambda prompt, sample: answer(f"{prompt} says {sample} {-sample}"), wanted=8)
    found = on_policy.finish("s", source, on_policy.build("s", source).pairs, shop)
    assert len(found.pairs) == 8 and found.dropped == {} and len(model.calls) == 3
    for pair in found.pairs:
        question = pair.prompt[-1].content
        assert (pair.chosen, pair.rejected) == (f"{question} says 0 0", f"{question} says 2 -2")
        assert pair.reward_gap == 2.0
