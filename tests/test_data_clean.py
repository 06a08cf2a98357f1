"""Cleaning: what counts as a duplicate, and what touches the evaluation."""

from __future__ import annotations

import random
from dataclasses import replace

from equipoise.data.clean import clean
from equipoise.records import Message, Pair

WORDS = [f"word{i}" for i in range(400)]


def _text(seed: int, n: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=n))


def _pair(prompt: str, chosen: str, rejected: str) -> Pair:
    return Pair((Message("user", prompt),), chosen, rejected, domain="d", source="s", group="g")


def test_exact_and_near_duplicates_leave_the_first() -> None:
    one = _pair(_text(0, 60), _text(1, 60), _text(2, 60))
    words = one.chosen.split()
    words[30] = "changed"
    near = replace(one, chosen=" ".join(words))
    shouted = replace(one, chosen=one.chosen.upper() + "!")
    kept, reasons = clean([one, near, replace(one, source="other", group="h"), shouted], evaluation_texts=[])
    assert kept == [one]
    assert reasons == {"exact duplicate": 1, "near duplicate": 2}


def test_pairs_that_share_a_prompt_a_template_or_a_document_are_no_duplicates() -> None:
    document = _text(0, 500)
    same_prompt = [_pair(document, f"it is {i}", "no idea") for i in range(5)]
    questions = [_pair(f"{document} {_text(i, 8)}", f"{i} percent", f"{i} million") for i in range(9, 14)]
    template = [
        _pair(f"The offer of {w} pays 13 and the offer of ember pays 38. I want the money.",
              f"Take the offer of {w}. You get 13 there.", "My cat likes to sleep all day.")
        for w in WORDS[:20]
    ]  # fmt: skip
    pairs = same_prompt + questions + template
    assert clean(pairs, evaluation_texts=[]) == (pairs, {})


def test_near_duplicates_do_not_depend_on_what_lies_between() -> None:
    pairs = [_pair(_text(i, 40), _text(1000 + i, 30), _text(2000 + i, 30)) for i in range(300)]
    again = [replace(pair, rejected=pair.rejected + " end") for pair in pairs]
    kept, reasons = clean(pairs + again, evaluation_texts=[])
    assert kept == pairs and reasons == {"near duplicate": 300}
    assert clean(pairs + again, evaluation_texts=[]) == (kept, reasons)


def test_prompts_of_the_evaluation_go_however_they_are_written() -> None:
    pairs = [
        _pair("  what's the\nCAPITAL of France", "Paris", "Rome"),
        _pair("What is the capital of Spain?", "Madrid", "Rome"),
    ]
    kept, reasons = clean(pairs, evaluation_texts=["What's the capital of France?", ""])
    assert kept == pairs[1:] and reasons == {"prompt of the evaluation": 1}


def test_an_earlier_turn_counts_too() -> None:
    turns = (Message("user", "Name a river."), Message("assistant", "Rhine"), Message("user", "Another?"))
    pair = replace(_pair("x", "Elbe", "Berlin"), prompt=turns)
    assert clean([pair], evaluation_texts=["name a river"])[1] == {"prompt of the evaluation": 1}


def test_thirteen_words_are_an_overlap_and_twelve_are_none() -> None:
    item = _text(5, 40)
    words = item.split()
    inside = [
        _pair("a b " + " ".join(words[4:17]) + " c", "yes", "no"),
        _pair("Say it.", "Well: " + ", ".join(words[20:33]).upper(), "no"),
        _pair("a b " + " ".join(words[4:16]) + " c " + " ".join(words[16:28]), "yes", "no"),
    ]
    kept, reasons = clean(inside, evaluation_texts=[item])
    assert kept == inside[2:] and reasons == {"13 words of the evaluation": 2}


def test_the_evaluations_own_instruction_is_no_overlap() -> None:
    instruction = _text(6, 30)
    items = [f"{instruction} {_text(100 + i, 20)}" for i in range(30)]
    template = _pair(f"{instruction} {_text(9, 20)}", "a", "b")
    leaked = _pair(f"{_text(9, 5)} {_text(103, 20)}", "a", "b")
    assert clean([template, leaked], evaluation_texts=items) == ([template], {"13 words of the evaluation": 1})
    assert clean([template, leaked], evaluation_texts=items[:5])[0] == []  # too few to know a template


def test_texts_without_words() -> None:
    pairs = [_pair("?", "!", "?!"), _pair("?", "!!", "..."), _pair("", "", "")]
    kept, reasons = clean(pairs, evaluation_texts=["...", "?"])
    assert kept == pairs and reasons == {}
    assert clean([], evaluation_texts=["a"]) == ([], {})
