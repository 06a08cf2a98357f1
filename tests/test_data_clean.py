"""Cleaning: what counts as a duplicate, and what touches the evaluation."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

import equipoise.data.words
from equipoise.data.clean import clean
from equipoise.data.overlap import EVALUATED, OVERLAP, Overlap
from equipoise.data.words import words
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


def test_a_run_in_twenty_texts_tells_and_one_in_twenty_one_does_not() -> None:
    run = _text(6, 13)
    items = [f"{run} {_text(100 + i, 9)}" for i in range(21)]
    pair = _pair("Say it.", run, "no")
    assert clean([pair], evaluation_texts=items[:20])[1] == {"13 words of the evaluation": 1}
    assert clean([pair], evaluation_texts=items) == ([pair], {})
    assert clean([pair], evaluation_texts=[*items[:20], items[0]])[0] == []  # the same text twice is one text


def test_words_of_two_texts_are_no_run() -> None:
    said = _text(5, 13).split()
    apart = _pair("Say it.", " ".join(said[:6]), " ".join(said[6:]))
    split = replace(apart, prompt=(Message("user", "so " + apart.chosen), Message("user", apart.rejected)))
    pairs = [apart, replace(split, chosen="yes", rejected="no")]
    assert clean(pairs, evaluation_texts=[" ".join(said)]) == (pairs, {})


def test_a_question_with_the_same_first_and_last_word_is_another() -> None:
    pair = _pair("What was the largest of France", "Paris", "Rome")
    assert clean([pair], evaluation_texts=["What's the capital of France?"]) == ([pair], {})


def test_texts_without_words() -> None:
    pairs = [_pair("?", "!", "?!"), _pair("?", "!!", "..."), _pair("", "", "")]
    kept, reasons = clean(pairs, evaluation_texts=["...", "?"])
    assert kept == pairs and reasons == {}
    assert clean([], evaluation_texts=["a"]) == ([], {})


def test_groups_of_the_evaluation_go_before_their_texts_are_looked_at() -> None:
    asked, other = _pair("What is a bond?", "a loan", "a cat"), _pair("What is a share?", "a part", "a cat")
    pairs = [replace(asked, group="post 7"), replace(other, group="post 7"), replace(other, chosen="a piece")]
    kept, reasons = clean(pairs, evaluation_texts=["what is a bond"], evaluated_groups=frozenset({"post 7", "post 8"}))
    assert kept == pairs[2:] and reasons == {"group of the evaluation": 2}


def test_drafts_are_judged_by_the_texts_they_have() -> None:
    item = _text(5, 40)
    drafts = [_pair(_text(0, 40), "", ""), _pair(_text(1, 40), _text(2, 40), ""), _pair(_text(3, 40), "", "")]
    again = [replace(draft, prompt=(Message("user", draft.prompt[0].content + " please"),)) for draft in drafts]
    leaked = [_pair("Say it.", item, ""), _pair(item, "", ""), _pair(f"so {item}", "", "")]
    kept, reasons = clean(drafts + again + leaked, evaluation_texts=[item])
    assert kept == drafts
    assert reasons == {"13 words of the evaluation": 2, "near duplicate": 3, "prompt of the evaluation": 1}


def test_an_overlap_made_once_serves_many_calls() -> None:
    pairs = [_pair("What is a bond?", "a loan", "a cat"), _pair("What is a share?", "a part", "a cat")]
    overlap = Overlap(["what is a bond"])
    assert clean(pairs, evaluation_texts=[], overlap=overlap) == clean(pairs, evaluation_texts=["what is a bond"])
    assert [overlap.reason(pair) for pair in pairs] == overlap.reasons(pairs) == [EVALUATED, None]
    with pytest.raises(ValueError, match="either"):
        clean(pairs, evaluation_texts=["x"], overlap=overlap)


def test_progress_names_what_is_done_and_ends() -> None:
    told: list[tuple[str, int, int]] = []
    pairs = [_pair(_text(i, 20), _text(i + 50, 20), "no") for i in range(20)]
    clean(pairs, evaluation_texts=["a"], progress=lambda *state: told.append(state))
    ends = {label: (done, total) for label, done, total in told}
    assert list(ends.values()) == [(20, 20), (40, 40)]


def test_many_pairs_are_judged_as_a_plain_search_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equipoise.data.words, "BLOCK", 20_000)  # several blocks
    rng = random.Random(7)
    vocabulary = [*WORDS[:150], "café", "naïve", "ﬁne", "ŝtono", "I’m", "9"]
    texts = [" ".join(rng.choices(vocabulary, k=rng.randint(0, 40))) for _ in range(60)]
    template = " ".join(rng.choices(vocabulary, k=15))
    texts += [f"{template} {text}" for text in texts[:30]]

    def cut() -> str:
        source = rng.choice(texts).split()
        start = rng.randrange(len(source) + 1)
        return " ".join([_text(rng.randrange(1000), 3), *source[start : start + rng.randint(8, 18)], "end"])

    pairs = [_pair(rng.choice([cut, lambda: rng.choice(texts).upper()])(), cut(), cut()) for _ in range(300)]
    found = Overlap(texts).reasons(pairs)
    assert found == _plain_reasons(pairs, texts)
    assert min(found.count(reason) for reason in (EVALUATED, OVERLAP, None)) > 20


def _runs(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[start : start + 13]) for start in range(len(said) - 12)}


def _plain_reasons(pairs: list[Pair], texts: list[str]) -> list[str | None]:
    """The rule with lists and sets of words alone."""
    counts = Counter(run for text in set(texts) for run in _runs(text))
    telling = {run for run, count in counts.items() if count <= 20}
    questions = [words(text) for text in texts if words(text)]
    result: list[str | None] = []
    for pair in pairs:
        asked = [message.content for message in pair.prompt]
        shared = any(_runs(text) & telling for text in [*asked, pair.chosen, pair.rejected])
        evaluated = any(words(text) in questions for text in asked)
        result.append(EVALUATED if evaluated else OVERLAP if shared else None)
    return result
