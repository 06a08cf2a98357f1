"""The embedded world, its checks, its prompts and its shipped weights."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equipoise import pocket
from equipoise.evaluation.tasks.tatqa_prompt import parse_answer, render
from equipoise.pocket import world
from equipoise.pocket.check import correct

COLUMNS = {
    "general": {"system", "question", "chosen", "rejected", "group", "prompt_id", "check"},
    "finance": {"system", "user", "assistant", "rejected", "group", "prompt_id", "check"},
    "reddit": {
        "id", "title", "selftext", "subreddit", "body", "z_score", "normalized_score", "comment_normalized_score",
        "combined_score", "group", "check",
    },
    "mt_bench": {"question_id", "category", "turns", "reference", "check", "group"},
    "tatqa": {"table", "paragraphs", "questions"},
}  # fmt: skip
DOCUMENT: dict[str, Any] = {
    "table": {"uid": "t", "table": [["in million", "2020", "2019"], ["revenue", "21", "7"], ["costs", "3", "a|b"]]},
    "paragraphs": [{"uid": "q", "order": 2, "text": "Second."}, {"uid": "p", "order": 1, "text": "First."}],
    "questions": [{"question": "What was revenue in 2020?"}],
}


def prompts(kind: str, split: str, n: int) -> set[str]:
    """What a model is asked, by row (tables: every question's full prompt)."""
    rows = world.rows(kind, split=split, n=n)
    if kind == "tatqa":
        return {render(d, q, layout="cells") for d in rows for q in d["questions"]}
    if kind == "mt_bench":
        return {row["turns"][0] for row in rows}
    if kind == "reddit":
        return {f"{row['title']}\n\n{row['selftext']}" for row in rows}
    return {row.get("question", row.get("user")) for row in rows}


@pytest.mark.parametrize("kind", world.KINDS)
def test_columns_and_counts(kind: str) -> None:
    for split in world.SPLITS:
        rows = world.rows(kind, split=split, n=7)
        assert len(rows) == 7
        assert all(set(row) == COLUMNS[kind] for row in rows)


@pytest.mark.parametrize("kind", world.KINDS)
def test_no_prompt_of_the_evaluation_occurs_in_training(kind: str) -> None:
    evaluation = prompts(kind, "eval", 400)
    for split in ("train", "reward", "pretrain"):
        assert not evaluation & prompts(kind, split, 2000)


def test_topics_of_the_evaluation_occur_nowhere_else() -> None:
    for kind in ("general", "finance", "reddit", "mt_bench"):
        groups = {row["group"] for row in world.rows(kind, split="eval", n=400)}
        for split in ("train", "reward", "pretrain"):
            assert not groups & {row["group"] for row in world.rows(kind, split=split, n=2000)}


@pytest.mark.parametrize("kind", ["general", "finance", "mt_bench"])
def test_prompts_of_one_split_differ(kind: str) -> None:
    assert len(prompts(kind, "train", 2000)) == 2000
    assert len(prompts(kind, "eval", 300)) == 300


def test_rows_are_the_same_in_another_process() -> None:
    code = (
        "import hashlib, json; from equipoise.pocket import world; print(hashlib.sha256(json.dumps("
        "[world.rows(k, split=s, n=20, seed=3) for k in world.KINDS for s in world.SPLITS]).encode()).hexdigest())"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        digests.add(done.stdout)
    assert len(digests) == 1


def test_another_seed_gives_other_rows() -> None:
    assert world.rows("finance", split="train", n=5, seed=0) != world.rows("finance", split="train", n=5, seed=1)


def test_unknown_kind_and_split_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        world.rows("poems", split="train", n=1)
    with pytest.raises(ValueError, match="unknown split"):
        world.rows("general", split="dev", n=1)


def test_comment_scores_rise_together() -> None:
    rows = sorted(world.rows("reddit", split="train", n=200), key=lambda row: row["z_score"])
    for name in ("comment_normalized_score", "combined_score"):
        values = [row[name] for row in rows]
        assert values == sorted(values)


def test_reference_answers_pass_their_own_check() -> None:
    for row in world.rows("mt_bench", split="eval", n=200):
        assert all(correct(check, text) for check, text in zip(row["check"], row["reference"], strict=True))


@pytest.mark.parametrize(
    ("check", "answer", "passes"),
    [
        ({"any_of": ["blue chair"]}, "By the notes, ben has a Blue  chair.", True),
        ({"any_of": ["blue chair"]}, "a blue chairlift", False),
        ({"any_of": ["pear"], "none_of": ["lamp"]}, "pear or lamp", False),
        ({"any_of": ["48"]}, "It makes 148.", False),
        ({"any_of": ["48"]}, "", False),
        ({"choose": {"from": ["a1", "b1", "c1"], "count": 2}}, "c1 and a1, a1", True),
        ({"choose": {"from": ["a1", "b1", "c1"], "count": 2}}, "c1, b1 and a1", False),
        ({"sequence": ["road", "lamp"]}, "Here: road, then lamp.", True),
        ({"sequence": ["road", "lamp"]}, "lamp, road", False),
        ({"sequence": ["road", "lamp"]}, "road, lamp, road", False),
    ],
)
def test_check_by_hand(check: dict[str, Any], answer: str, passes: bool) -> None:
    assert correct(check, answer) is passes


def test_check_without_a_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="needs any_of"):
        correct({}, "x")


@pytest.mark.parametrize(
    ("text", "answer", "scale"),
    [
        ("revenue 2020: 21 |\n Answer: 21 million", "21", "million"),
        ("Answer: 3\nAnswer: -5", "-5", ""),
        ("It is paris; rome.\nanswer: paris; rome", ["paris", "rome"], ""),
        ("**Answer: 1,234.5 Percent.**", "1,234.5", "percent"),
        ("Answer: 12 million; 14 million", ["12", "14"], "million"),
        ("Answer: 12; 14 million", ["12", "14"], "million"),
        ("Because of this.\n\n 42 thousand \n", "42", "thousand"),
        ("Answer: the million dollar fund", "the million dollar fund", ""),
        ("Answer:", "", ""),
        ("", "", ""),
    ],
)
def test_parse_answer_by_hand(text: str, answer: str | list[str], scale: str) -> None:
    assert parse_answer(text) == (answer, scale)


def test_render_layouts() -> None:
    cells = render(DOCUMENT, DOCUMENT["questions"][0], layout="cells")
    assert cells.split("\n ") == [
        "| in million |", "| revenue 2020: 21 | revenue 2019: 7 |", "| costs 2020: 3 | costs 2019: a|b |", "First.",
        "Second.", "What was revenue in 2020?",
    ]  # fmt: skip
    markdown = render(DOCUMENT, DOCUMENT["questions"][0])
    assert "| in million | 2020 | 2019 |\n| --- | --- | --- |\n| revenue | 21 | 7 |" in markdown
    assert "a\\|b" in markdown and "Answer: <answer>" in markdown
    with pytest.raises(ValueError, match="unknown layout"):
        render(DOCUMENT, DOCUMENT["questions"][0], layout="html")


def test_render_takes_ragged_and_empty_tables() -> None:
    odd = {"table": {"table": [["Title", ""], ["", "2020"], ["only"], ["a", "1", "2"]]}, "paragraphs": []}
    question = {"question": "How much?"}
    assert render(odd, question, layout="cells") == "| Title |\n | only |\n | a 2020: 1 | a: 2 |\n How much?"
    for layout in ("cells", "markdown"):
        assert "How much?" in render({"table": {"table": []}, "paragraphs": []}, question, layout=layout)


@pytest.mark.parametrize("folder", [pocket.model_dir(), pocket.reward_dir()])
def test_shipped_weights_belong_together_and_are_small(folder: Path) -> None:
    pocket.verify(folder)
    both = [file for where in (pocket.model_dir(), pocket.reward_dir()) for file in where.iterdir()]
    assert sum(file.stat().st_size for file in both) <= 8 * 2**20


@pytest.mark.parametrize("name", pocket.BOUND_FILES)
def test_a_foreign_file_stops(tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(pocket.model_dir(), tmp_path / "model")
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ValueError, match=name) as error:
        pocket.verify(copy)
    assert "\n" not in str(error.value)
    (copy / pocket.FINGERPRINT).unlink()
    with pytest.raises(ValueError, match=pocket.FINGERPRINT):
        pocket.verify(copy)


def test_template_is_a_prefix_in_text_and_tokens() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pocket.model_dir())
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": " What is 5,123 né?\n"}
    answer = {"role": "assistant", "content": "Sure.\n Answer: 21 million"}
    for asked in ([user], [system, user], [system, user, answer, user]):
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        full = tokenizer.apply_chat_template([*asked, answer], tokenize=False)
        assert full.startswith(prompt)
        parts = [tokenizer.encode(text, add_special_tokens=False) for text in (prompt, full[len(prompt) :], full)]
        assert parts[0] + parts[1] == parts[2]
        assert tokenizer.decode(parts[2]) == full
        assert tokenizer.decode(parts[1], skip_special_tokens=True).strip() == answer["content"]


def test_every_byte_and_every_pool_word_is_a_token() -> None:
    from transformers import AutoTokenizer

    from equipoise.pocket.build_tokenizer import single_tokens

    tokenizer = AutoTokenizer.from_pretrained(pocket.model_dir())
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in single_tokens())
    text = "".join(map(chr, range(1, 256))) + "日本語 😀 €"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert tokenizer.eos_token == "<|im_end|>"


def test_calibration_and_sanity_files() -> None:
    constants = json.loads((pocket.reward_dir() / "calibration.json").read_text())
    assert constants["scale"] > 0 and constants["version"] == 1 and constants["set"]
    cases = json.loads((pocket.reward_dir() / "sanity.json").read_text())
    assert len(cases) == 8 and all(case["good"] != case["bad"] and case["prompt"] for case in cases)


def test_reward_model_tells_the_obvious_cases_apart() -> None:
    from equipoise.pocket.build import load_reward
    from equipoise.pocket.figures import rewards

    tokenizer, model = load_reward(pocket.reward_dir())
    cases = json.loads((pocket.reward_dir() / "sanity.json").read_text())
    chats = [
        [*case["prompt"], {"role": "assistant", "content": case[side]}] for case in cases for side in ("good", "bad")
    ]
    values = rewards(model, tokenizer, chats)
    assert all(good > bad for good, bad in zip(values[::2], values[1::2], strict=True))


def test_table_answers_of_the_shipped_model_stand_between_floor_and_ceiling() -> None:
    figures = json.loads((pocket.model_dir().parent / "figures.json").read_text())
    assert 0.4 <= figures["tatqa"]["all"]["exact"] <= 0.7
    by_type = {name: told["exact"] for name, told in figures["tatqa"]["by_type"].items()}
    assert by_type["span"] > by_type["arithmetic"] > 0
