"""Tasks: items from hand-made rows, from the embedded world and from the real files; scores of known answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.prompts import REDDIT_INSTRUCTION, reddit_prompt
from equipoise.evaluation.items import evaluation_texts, load_items, read_items, task, task_version
from equipoise.evaluation.tasks import TASKS
from equipoise.evaluation.tasks.base import Evidence, PairLikelihood, Rewards
from equipoise.evaluation.tasks.tatqa import exact_match_and_f1
from equipoise.model.generate import Answer
from equipoise.model.reward import Calibration
from equipoise.recipe_evaluation import Tasks, TaskSpec, TatqaSpec
from equipoise.records import InputError, Item, Message

DOCUMENT: dict[str, Any] = {
    "table": {"uid": "t1", "table": [["", "2019", "2018"], ["Sales", "$1,496.5", "1,202.9"]]},
    "paragraphs": [{"uid": "p1", "order": 1, "text": "Figures are in millions."}],
    "questions": [
        {
            "uid": "q1",
            "question": "Sales in 2019?",
            "answer": ["$1,496.5"],
            "answer_type": "span",
            "scale": "million",
            "answer_from": "table",
        },
        {"uid": "q2", "question": "Change?", "answer": "a lot", "answer_type": "arithmetic", "scale": ""},
    ],
}
MT = {"question_id": 81, "category": "writing", "turns": ["Write a letter.", "Shorten it."]}
FINANCE = {"system": "You advise.", "user": "What is a bond?", "assistant": "A loan."}
POST = {"id": "a1", "title": "Which loan?", "selftext": "I have two.", "subreddit": "debt", "body": "The dear one."}
IFEVAL = {
    "key": 7,
    "prompt": "Name a colour. Use no comma.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "at least", "num_words": 3, "language": None}],
}
ROWS = {"tatqa": [DOCUMENT], "mt_bench": [MT], "finance_instruct": [FINANCE], "reddit": [POST], "ifeval": [IFEVAL]}


def spec(name: str, **more: Any) -> TaskSpec:
    return TatqaSpec(**more) if name == "tatqa" else TaskSpec(**more)


def from_rows(name: str, rows: list[Any], tmp_path: Path, **more: Any) -> list[Item]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_items(name, spec(name, id=str(path), **more))


def said(*texts: str) -> list[Answer]:
    return [Answer(text, len(text), False) for text in texts]


def rewards(*raw: float) -> Rewards:
    return Rewards(raw, Calibration().to_ten)


def test_every_task_is_complete_and_the_recipe_knows_it() -> None:
    assert [*TASKS] == [name for name in Tasks.model_fields if name not in ("harness", "preferences")] + ["lm_eval"]
    for name, found in TASKS.items():
        assert found.name == name and found.version == task_version(name) >= 1
        module = __import__(f"equipoise.evaluation.tasks.{name}", fromlist=["TASK"])
        assert all(word in module.__doc__ for word in ("Link:", "Licence", "Sample", "Chance level", "Version"))
    with pytest.raises(InputError, match="no task 'gsm8k'"):
        task("gsm8k")


def test_tatqa_items_and_scores(tmp_path: Path) -> None:
    items = {item.id: item for item in from_rows("tatqa", [DOCUMENT], tmp_path)}
    first, second = items["q1"], items["q2"]
    assert (first.group, first.category, second.category) == ("t1", "span, table", "arithmetic")
    assert [m.role for m in first.prompt] == ["user"] and "| Sales |" in first.prompt[0].content
    assert "| Sales 2019: $1,496.5 |" in from_rows("tatqa", [DOCUMENT], tmp_path, layout="cells")[0].prompt[0].content
    score = TASKS["tatqa"].score
    right = score(first, Evidence(said("It says so.\nAnswer: $1,496.5 million")))
    assert (right.value, right.metrics) == (1.0, {"f1": 1.0, "format": 1.0})
    wrong = score(first, Evidence(said("$1,496.5")))
    assert (wrong.value, wrong.metrics["format"]) == (0.0, 0.0)
    assert score(first, Evidence(said(""))).value == 0.0
    malformed = score(second, Evidence(said("Answer: 5")))
    assert malformed.value is None and malformed.unscored is not None
    assert malformed.unscored.startswith("malformed gold")
    assert exact_match_and_f1("5", "", gold_answer=5, answer_type="arithmetic", gold_scale="") == (1.0, 1.0)


def test_mt_bench_in_both_layouts(tmp_path: Path) -> None:
    (item,) = from_rows("mt_bench", [MT], tmp_path)
    assert (item.id, item.category, item.follow_ups) == ("81", "writing", ("Shorten it.",))
    on_hub = {"prompt_id": 81, "category": "writing", "prompt": MT["turns"], "reference": []}
    assert from_rows("mt_bench", [on_hub], tmp_path) == [item]
    outcome = TASKS["mt_bench"].score(item, Evidence(said("Dear bank", "Bank"), rewards(1.0, -3.0)))
    assert outcome.value == -1.0
    assert (outcome.metrics["turn_1"], outcome.metrics["turn_2"]) == (1.0, -3.0)
    to_ten = Calibration().to_ten
    assert outcome.metrics["ten"] == pytest.approx((to_ten(1.0) + to_ten(-3.0)) / 2)
    (checked,) = from_rows("mt_bench", [{**MT, "check": [{"any_of": ["bank"]}, {"any_of": ["state"]}]}], tmp_path)
    assert (
        TASKS["mt_bench"].score(checked, Evidence(said("Dear bank", "Bank"), rewards(0, 0))).metrics["correct"] == 0.5
    )


def test_finance_success_and_check(tmp_path: Path) -> None:
    (item,) = from_rows("finance_instruct", [FINANCE, FINANCE], tmp_path)
    assert item.prompt == (Message("system", "You advise."), Message("user", "What is a bond?"))
    score = TASKS["finance_instruct"].score
    assert score(item, Evidence(said("A loan."), rewards(0.9))).metrics["success"] == 1.0  # 7.1 of 10
    assert score(item, Evidence(said("A loan."), rewards(0.8))).metrics["success"] == 0.0  # 6.9 of 10
    assert "correct" not in score(item, Evidence(said("A loan."), rewards(0.8))).metrics
    (checked,) = from_rows("finance_instruct", [{**FINANCE, "check": {"any_of": ["loan"]}}], tmp_path)
    assert score(checked, Evidence(said("A loan."), rewards(0.8))).metrics["correct"] == 1.0


def test_reddit_has_one_item_for_a_post(tmp_path: Path) -> None:
    (item,) = from_rows("reddit", [POST, {**POST, "body": "No idea."}], tmp_path)
    assert (item.id, item.group, item.category) == ("a1", "a1", "debt")
    assert item.prompt == reddit_prompt(POST)
    assert item.prompt[0].content == f"Subreddit: r/debt\nTitle: Which loan?\n\nI have two.\n\n{REDDIT_INSTRUCTION}"
    assert TASKS["reddit"].score(item, Evidence(said("The dear one."), rewards(0.5))).value == 0.5
    with pytest.raises(ValueError, match="no title"):
        reddit_prompt({"title": " ", "selftext": None})
    with pytest.raises(ValueError, match="title is not text"):
        reddit_prompt({"title": 3})


BAD = {
    "tatqa": [
        ({**DOCUMENT, "table": None}, "the table is not a list of rows"),
        ({**DOCUMENT, "paragraphs": [{"text": 1}]}, "the paragraphs are not a list of texts"),
        ({**DOCUMENT, "questions": [{"uid": "q9", "question": 7}]}, "question is not text"),
        ({**DOCUMENT, "questions": [7]}, "a question is not an object"),
    ],
    "mt_bench": [
        ({**MT, "turns": ["One."]}, "1 turns instead of 2"),
        ({**MT, "turns": "One."}, "turns is not a list of texts"),
        ({**MT, "turns": ["One.", None]}, "turns is not a list of texts"),
        ({**MT, "question_id": None}, "question_id is missing"),
    ],
    "finance_instruct": [({**FINANCE, "user": " "}, "user is empty"), ({**FINANCE, "user": 3}, "user is not text")],
    "reddit": [
        ({**POST, "id": "x", "title": "", "selftext": None}, "no title and no text"),
        ({**POST, "id": "y", "title": 5}, "title is not text"),
        ({**POST, "id": None}, "id is not text"),
    ],
    "ifeval": [
        ({**IFEVAL, "key": None}, "key is missing"),
        ({**IFEVAL, "kwargs": [{}]}, "kwargs are not one object for each instruction"),
        ({**IFEVAL, "instruction_id_list": "no_comma"}, "instruction_id_list is not a list of names"),
    ],
}


@pytest.mark.parametrize(("name", "row", "reason"), [(name, *case) for name, cases in BAD.items() for case in cases])
def test_bad_rows_are_counted_and_reported(
    name: str, row: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = from_rows(name, [*ROWS[name], row], tmp_path)
    assert len(kept) == (2 if name == "tatqa" else 1)
    assert f"1 left out ({reason}: 1)" in capsys.readouterr().err
    with pytest.raises(InputError, match=f"no usable item.*{reason}"):
        from_rows(name, [row], tmp_path)


@pytest.mark.parametrize("name", list(ROWS))
def test_missing_columns_stop(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"evaluation.tasks.{name}: no column"):
        from_rows(name, [{"something": 1}], tmp_path)


def test_invalid_unicode_becomes_readable(tmp_path: Path) -> None:
    (item,) = from_rows("finance_instruct", [{**FINANCE, "user": "bad \ud800 text"}], tmp_path)
    item.prompt[1].content.encode("utf-8")


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.pocket_kind])
def test_pocket_items_and_limits(name: str) -> None:
    everything = read_items(name, spec(name, id="pocket"))
    assert not everything.left_out and len(everything.items) >= 200
    assert len({item.id for item in everything.items}) == len(everything.items)
    few, more = (load_items(name, spec(name, id="pocket", limit=limit)) for limit in (20, 50))
    assert (len(few), more[:20], everything.items[:50]) == (20, few, more)
    if name != "tatqa":
        assert all("check" in item.gold for item in few)
    else:
        assert len({item.group for item in everything.items}) == 100


def test_finance_wins_against_the_answer_of_the_data(tmp_path: Path) -> None:
    (item,) = from_rows("finance_instruct", [FINANCE], tmp_path)
    assert item.gold == {"reference": "A loan."}
    score = TASKS["finance_instruct"].score
    wins = [
        score(item, Evidence(said("x"), Rewards([0.5], Calibration().to_ten, reference))).metrics.get("win")
        for reference in (0.4, 0.5, 0.6, None)
    ]
    assert wins == [1.0, 0.5, 0.0, None]


def test_reddit_asks_which_of_two_comments_the_model_prefers(tmp_path: Path) -> None:
    said_of = {"body": "Take the dear one first, since it costs you more.", "selftext": "I have two loans. " * 10}
    best = {
        **POST,
        **said_of,
        "comment_normalized_score": 0.9,
        "z_score": 1,
        "combined_score": 1,
        "normalized_score": 1,
    }
    worst = {**best, "body": "Take the cheap one first, as I always do it.", "comment_normalized_score": 0.1}
    others = [
        {
            **best,
            "id": f"o{n}",
            "body": f"Some other {n} comment that says a few words.",
            "comment_normalized_score": 0.5,
        }
        for n in range(3)
    ]
    items = {item.id: item for item in from_rows("reddit", [worst, best, *others], tmp_path)}
    assert items["a1"].gold == {"pair": [best["body"], worst["body"]]} and items["o1"].gold == {}
    pair = PairLikelihood(-10.0, -12.0, -9.0, -8.0, chosen_tokens=5, rejected_tokens=10)
    metrics = TASKS["reddit"].score(items["a1"], Evidence(said("x"), rewards(0.5), pair=pair)).metrics
    assert (metrics["prefers"], metrics["learned"]) == (0.0, 1.0)  # -2 against -1.2 a token; -1 against -4 nats


def test_ifeval_is_strict_loose_and_by_instruction(tmp_path: Path) -> None:
    (item,) = from_rows("ifeval", [IFEVAL], tmp_path)
    assert (item.category, item.gold["kwargs"][1]) == (
        "length_constraints, punctuation",
        {"relation": "at least", "num_words": 3},
    )
    score = TASKS["ifeval"].score
    assert score(item, Evidence(said("Red it is"))).value == 1.0
    half = score(item, Evidence(said("Red, I think.")))
    assert (half.value, half.metrics) == (0.0, {"loose": 0.0, "instructions": 0.5, "instructions_loose": 0.5})
    loose = score(item, Evidence(said("Sure, here:\nRed it is")))
    assert (loose.value, loose.metrics["loose"], loose.metrics["instructions"]) == (0.0, 1.0, 0.5)
    (unknown,) = from_rows("ifeval", [{**IFEVAL, "instruction_id_list": ["a:b", "punctuation:no_comma"]}], tmp_path)
    outcome = score(unknown, Evidence(said("Red")))
    assert outcome.value is None and str(outcome.unscored).startswith("malformed gold: unknown instruction id 'a:b'")


def test_real_ifeval(real_data: Path) -> None:
    """The task's own way through the official table: strict and loose of every prompt that has all values."""
    built = read_items("ifeval", TaskSpec(id=str(real_data / "ifeval" / "input_data.jsonl")))
    assert (len(built.items), built.left_out) == (541, {})
    items = {item.id: item for item in built.items}
    checked = 0
    with gzip.open(real_data / "ifeval" / "official_scores.jsonl.gz", "rt") as file:
        for line in file:
            row = json.loads(line)
            if None in row["strict"] or row["key"] == 1129:  # there the published program draws a random letter
                continue
            outcome = TASKS["ifeval"].score(items[str(row["key"])], Evidence(said(row["response"])))
            assert outcome.value == float(all(row["strict"])) and outcome.metrics["loose"] == float(all(row["loose"]))
            checked += 1
    assert checked > 450


def test_preferred_by_hand() -> None:
    pair = PairLikelihood(-10.0, -12.0, -11.0, -13.0, chosen_tokens=5, rejected_tokens=6)
    item = Item("p", "preference_accuracy", (Message("user", "?"),), "p", gold={"pair": ["a", "b"]})
    outcome = TASKS["preference_accuracy"].score(item, Evidence(pair=pair))
    assert (outcome.value, outcome.metrics) == (0.5, {"prefers": 0.5, "margin": 0.0})


def test_evaluation_texts_are_all_user_turns(tmp_path: Path) -> None:
    assert evaluation_texts(from_rows("mt_bench", [MT], tmp_path)) == ["Write a letter.", "Shorten it."]
    assert evaluation_texts(from_rows("finance_instruct", [FINANCE], tmp_path)) == ["What is a bond?"]


def test_real_tatqa(real_data: Path) -> None:
    path = str(real_data / "tatqa" / "tatqa_dataset_dev.json.gz")
    built = read_items("tatqa", TatqaSpec(id=path))
    assert (len(built.items), built.left_out) == (1668, {})
    assert len({item.group for item in built.items}) == 278
    unscored = [item.id for item in built.items if TASKS["tatqa"].score(item, Evidence(said("Answer: 5"))).unscored]
    assert not unscored
    assert all(text for text in evaluation_texts(built.items))


def test_real_mt_bench(real_data: Path) -> None:
    built = read_items("mt_bench", TaskSpec(id=str(real_data / "mt_bench" / "question.jsonl")))
    assert (len(built.items), built.left_out) == (80, {})
    assert len({item.category for item in built.items}) == 8
    assert len(evaluation_texts(built.items)) == 160
