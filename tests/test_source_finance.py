"""Finance-Instruct: which rows pass the filters and why the others do not, and the four ways to a worse answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.data.sources import finance_instruct
from equipoise.data.sources.finance_texts import is_complex, is_financial, is_label, number_is_asked
from equipoise.model.generate import Answer
from equipoise.recipe import FinanceInstructSource
from equipoise.records import InputError, Message, Pair
from samplers import answer, workshop

QUESTION = "What is the present value of a bond?"
ANSWER = "It is what all its payments are worth today, each one discounted by the interest rate."


def row(user: Any = QUESTION, assistant: Any = ANSWER, **more: Any) -> dict[str, Any]:
    return {"system": "You are an analyst.", "user": user, "assistant": assistant, **more}


def source(path: Path, rows: list[dict[str, Any]], **options: Any) -> FinanceInstructSource:
    (path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return FinanceInstructSource(kind="finance_instruct", id=str(path / "rows.jsonl"), max_malformed=1.0, **options)


def built(path: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[list[Pair], dict[str, int]]:
    made = finance_instruct.build("finance", source(path, rows, **options))
    assert made.rows == len(rows) == len(made.pairs) + sum(made.dropped.values())
    return made.pairs, made.dropped


def test_a_row_is_a_draft_with_its_reference_answer(tmp_path: Path) -> None:
    pairs, dropped = built(
        tmp_path, [row(f" {QUESTION}\n", f"{ANSWER} ", group="bonds"), row("Why hold bonds?", system="")]
    )
    assert dropped == {}
    assert pairs[0] == Pair(
        (Message("system", "You are an analyst."), Message("user", QUESTION)),
        ANSWER,
        "",
        domain="finance",
        source="finance",
        group="bonds",
    )
    assert pairs[1].prompt == (Message("user", "Why hold bonds?"),) and pairs[1].group not in ("", "bonds")


def test_every_drop_has_its_reason(tmp_path: Path) -> None:
    rows = [
        row(),
        row("what is THE present-value of a bond"),
        row("Bonds?"),
        row(f"{QUESTION} " * 10),
        row("What does a bank pay?", "Interest."),
        row("What does a fund pay?", "It pays what its assets earn. " * 20),
        row("What is the tone of this bank's report?", "mildly positive"),
        row("Who wrote this old play?", "It was written by a man from a small town."),
        row("Name a bond that a bank sells.", "A bond of the state, which a bank sells too."),
        row("Why do banks sell bonds?" + "!" * 1000),
        row(None),
        row(3),
        row("Why do banks buy bonds?", " "),
        row(" "),
        row("Why do banks \ufffd bonds?"),
    ]
    limits: dict[str, Any] = {
        "min_question_chars": 10,
        "max_question_chars": 200,
        "min_answer_chars": 10,
        "max_answer_chars": 300,
        "max_chars": 1000,
        "complexity_filter": True,
    }
    pairs, dropped = built(tmp_path, [row("How is it found? " + QUESTION), *rows], **limits)
    assert len(pairs) == 1
    assert dropped == {
        "question too simple": 3,
        "question too short": 1,
        "question too long": 1,
        "answer too short": 1,
        "answer too long": 1,
        "answer is a label": 1,
        "not about finance": 1,
        "too long": 1,
        "missing value": 1,
        "wrong type": 1,
        "empty answer": 1,
        "empty prompt": 1,
        "broken unicode": 1,
    }
    pairs, dropped = built(tmp_path, rows[:2])
    assert len(pairs) == 1 and pairs[0].prompt[1].content == QUESTION and dropped == {"duplicate question": 1}


def test_filters_are_options(tmp_path: Path) -> None:
    rows = [row("Who wrote this old play?", "neutral"), row("Hi?", "5")]
    pairs, dropped = built(tmp_path, rows, finance_only=False, drop_labels=False, min_question_chars=0)
    assert len(pairs) == 2 and dropped == {}


def test_a_row_that_is_dropped_takes_no_other_with_it(tmp_path: Path) -> None:
    pairs, dropped = built(tmp_path, [row(assistant="neutral"), row()])
    assert [pair.chosen for pair in pairs] == [ANSWER] and dropped == {"answer is a label": 1}


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'assistant'"):
        built(tmp_path, [{"system": "", "user": QUESTION, "output": ANSWER}])


@pytest.mark.parametrize(
    "text",
    [
        "What is a dividend?",
        "Explain the balance sheet of a firm.",
        "How do interest rates move bonds?",
        "Is my 401(k) safe?",
        "The bank charges a fee.",
        "The fee is $5.",
        "Who files a 10-K?",
        "The S&P 500 fell.",
        "FUNDS",
        "How did its revenues and expenses change?",
    ],
)
def test_it_is_about_finance(text: str) -> None:
    assert is_financial(text, "Yes.") and is_financial("So?", text)


@pytest.mark.parametrize(
    "text",
    [
        "We sat on the bank of the river.",
        "My interests are interesting stories.",
        "Write a poem about spring.",
        "Compare the price of fame to the taste of tea.",
        "He shared a hedgehog with the refund-free bondage club.",
        "The balance of the sheet was off.",
        "Money is not all.",
        "The company saves paper at a cost of $5.",
    ],
)
def test_it_is_not_about_finance(text: str) -> None:
    assert not is_financial(text, "Yes.")


def test_two_different_words_are_needed() -> None:
    assert not is_financial("The bank, the banks.", "A bank!")
    assert is_financial("The bank has one market.", "")


@pytest.mark.parametrize(
    "question",
    [
        "Explain what a bond is.",
        "Why do rates rise?",
        "Calculate the yield.",
        "How much is 5% of 80?",
        "What is the difference between stocks and bonds?",
        "What is a bond? And a share?",
        "Give: 1. its name 2. its price",
        "Is it (a) safe or (b) cheap",
        "What would happen to prices?",
    ],
)
def test_a_complex_question(question: str) -> None:
    assert is_complex(question)


@pytest.mark.parametrize(
    "question",
    [
        "What is a bond?",
        "Name the CEO of the firm.",
        "Translate: the whyte compass",
        "What is the sentiment of this news? Why did it fall? Choose: positive, negative or neutral.",
        "Classify the text and explain it: is the category A or B?",
        "True or false: rates explain prices?",
    ],
)
def test_a_simple_question(question: str) -> None:
    assert not is_complex(question)


@pytest.mark.parametrize(
    "label",
    ["neutral", "Positive.", "B", "(b)", "yes", "NO!", "mildly positive", "strong buy", "Label: neutral", "Option 2",
     "The sentiment is negative.", "Technology", "..."],
)  # fmt: skip
def test_a_label(label: str) -> None:
    assert is_label(label) and is_label(label, numbers=False)


@pytest.mark.parametrize(
    "text",
    ["It is neutral on rates.", "Buy bonds.", "12.5 million", "up 5%", "positive " * 6, "a" * 31,
     "利率上升时债券价格下跌因为新债券支付更高的利息而旧债券变得不那么有吸引力"],
)  # fmt: skip
def test_no_label(text: str) -> None:
    assert not is_label(text)


@pytest.mark.parametrize("text", ["5", "12.5%", "$1,234.50", "-3", "(7)"])
def test_a_bare_number_is_a_label_where_numbers_are(text: str) -> None:
    assert is_label(text) and not is_label(text, numbers=False)


def test_the_question_asks_for_a_number() -> None:
    assert number_is_asked("How much is it after 8 months?", "That makes 48.")
    assert number_is_asked("What was the total revenue in 2019?", "It was $5 million.")
    assert number_is_asked("Tell me.", "The answer is 5.") and number_is_asked("And?", "$12.5 million")
    assert not number_is_asked("How much is it?", "A lot.")
    assert not number_is_asked("Which fund is cheaper?", "The first: 19 is less than 67.")


def test_corrupted_answers_need_no_model(tmp_path: Path) -> None:
    rows = [row("What did it earn?", "The company earned 12.5 million dollars, as it said."), row()]
    pairs, dropped = built(tmp_path, rows, rejected="corrupted")
    assert dropped == {"nothing to corrupt": 1}
    assert pairs[0].chosen == rows[0]["assistant"] and pairs[0].rejected not in ("", pairs[0].chosen)
    assert pairs == built(tmp_path, rows, rejected="corrupted")[0]
    with pytest.raises(InputError, match="nothing to corrupt: 1"):
        built(tmp_path, [row()], rejected="corrupted")


def finished(path: Path, rows: list[dict[str, Any]], say: Any, wanted: int = 100, **options: Any) -> Any:
    spec = source(path, rows, **options)
    shop, model = workshop(say, wanted)
    drafts = finance_instruct.build("finance", spec).pairs
    found = finance_instruct.finish("finance", spec, drafts, shop)
    assert len(drafts) == len(found.pairs) + sum(found.dropped.values())
    return found, model


MANY = [row(f"Why does the bank call bond {number} safe?", f"Bond {number} is safe. {number}") for number in range(6)]


def test_sampled_answers_are_ranked_among_themselves(tmp_path: Path) -> None:
    found, model = finished(tmp_path, MANY, lambda prompt, sample: answer(f"{prompt} {sample}"))
    assert len(found.pairs) == 6 and len(model.calls) == 4  # four samples of one chunk
    for pair in found.pairs:
        question = pair.prompt[-1].content
        assert (pair.chosen, pair.rejected, pair.reward_gap) == (f"{question} 3", f"{question} 0", 3.0)
    assert found.spread == pytest.approx((6 * 5 / 23) ** 0.5)  # each of 0, 1, 2, 3 six times


def test_the_reference_against_one_sample(tmp_path: Path) -> None:
    def say(prompt: str, sample: int) -> Answer:
        if "bond 1 " in prompt:
            return Answer("Bond 1 is", 3, cut_off=True)
        return answer("Bond 2 is safe. 2" if "bond 2 " in prompt else "It is. ")

    found, model = finished(tmp_path, MANY, say, rejected="reference_vs_sample")
    assert found.dropped == {"sample equals the reference": 1, "cut off": 1} and len(model.calls) == 1
    assert {(pair.chosen[:4], pair.rejected, pair.reward_gap) for pair in found.pairs} == {("Bond", "It is.", None)}


def test_right_numbers_against_wrong_ones(tmp_path: Path) -> None:
    rows = [row(f"How much is the fee of fund {name}?", "The fee is 12.5 million.") for name in "abcdef"]
    rows.append(row("Which fund is it?", "It is fund 7, the one of the bank."))
    say = {
        "a": ["It is 12.5 million.", "It is 13 million.", "It is 14 million."],
        "b": ["It is 12,510,000.", "It is 12.5 million", "No, 12.46 million"],
        "c": ["It is 3 million.", "I do not know.", "It is 4."],
        "d": ["About 12 million.", "It is 12.5.", "I do not know."],
        "e": ["It is 12.5 billion.", "It is 12.5 million, so the answer is 12.5 million.", "No."],
    }

    def said(prompt: str, sample: int) -> Answer:
        name = prompt[-2]
        return answer(say[name][sample]) if name in say else Answer("It is 3 mil", 4, cut_off=True)

    options: dict[str, Any] = {"rejected": "correctness", "sampling": {"samples": 3}}
    assert built(tmp_path, rows, **options)[1] == {"answer is no number": 1}
    found, _ = finished(tmp_path, rows, said, **options)
    assert found.dropped == {"every sample is right": 1, "no sample surely wrong": 1, "cut off": 1}
    assert {pair.prompt[-1].content[-2]: (pair.chosen, pair.rejected) for pair in found.pairs} == {
        "a": ("It is 12.5 million.", "It is 14 million."),  # 13 million is 12.5 million, rounded
        "c": ("The fee is 12.5 million.", "It is 3 million."),
        "e": ("It is 12.5 million, so the answer is 12.5 million.", "It is 12.5 billion."),
    }


def test_bare_numbers_are_answers_where_numbers_are_compared(tmp_path: Path) -> None:
    rows = [row("How much money is it?", "$48")]
    assert [pair.chosen for pair in built(tmp_path, rows, rejected="correctness")[0]] == ["$48"]
    with pytest.raises(InputError, match="answer is a label: 1"):
        built(tmp_path, rows)


@pytest.mark.parametrize("rejected", ["sampled", "correctness", "corrupted"])
def test_rows_of_the_world(rejected: str) -> None:
    spec = FinanceInstructSource(kind="finance_instruct", id="pocket", rows=200, rejected=rejected)
    made = finance_instruct.build("finance", spec)
    assert len(made.pairs) + sum(made.dropped.values()) == made.rows == 200 and len(made.pairs) > 20
    assert all(pair.group.startswith("finance:") for pair in made.pairs)
    assert len({pair.id for pair in made.pairs}) == len(made.pairs)
    assert all(bool(pair.rejected) == (rejected == "corrupted") for pair in made.pairs)
    if rejected == "correctness":
        assert all(pair.group.startswith("finance:plan:") for pair in made.pairs)
