"""Words in blocks are the words one by one; near duplicates are those that a plain comparison finds."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import equipoise.data.near
import equipoise.data.words
from equipoise.data.minhash import BANDS, ROWS, buckets, runs_of
from equipoise.data.near import near_duplicates
from equipoise.data.words import hashed, over_blocks, words

WORDS = [f"w{i}" for i in range(3000)]
Document = tuple[str, ...]


def _text(rng: random.Random, count: int) -> str:
    return " ".join(rng.choices(WORDS, k=count))


def _changed(rng: random.Random, text: str, count: int) -> str:
    """The text with `count` words changed that are no neighbours: each takes three runs with it."""
    said = text.split()
    for place in rng.sample(range(1, len(said) // 4), count):
        said[4 * place] = f"new{rng.randrange(10**6)}"
    return " ".join(said)


@cache
def _runs(text: str) -> frozenset[tuple[str, ...]]:
    said = words(text)
    return frozenset(tuple(said[start : start + 3]) for start in range(len(said) - 2))


def _similarity(one: str, other: str) -> float:
    return len(_runs(one) & _runs(other)) / len(_runs(one) | _runs(other))


def _near(one: Document, other: Document) -> bool:
    return all(_similarity(*parts) >= 0.8 for parts in zip(one, other, strict=True))


# --- words ---


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(alphabet=st.characters(exclude_categories=[]), max_size=40), max_size=8))
@example(["", "?!", "The_end 99's", "the_END"])
@example(["e\u0301tude…fin\u00a0ﬁn", "ÉTUDE fin fin", "ΟΔΟΣ ΟΔΟΣ'", "İ", "\ud800a\ud800", "a\nb", "≠\u0338"])
@example(["eightchr", "eightchrs", "eightchr eightchr", "x" * 16, "x" * 17, "日本語のことば"])
@example(["aaaaaaaab", "baaaaaaaa", "aaaaaaaa b"])
def test_words_in_blocks_are_the_words_one_by_one(texts: list[str]) -> None:
    found = hashed(texts)
    plain = [words(text) for text in texts]
    assert found.counts.tolist() == [len(said) for said in plain]
    flat = [word for said in plain for word in said]
    number = dict(zip(flat, found.words.tolist(), strict=True))
    assert [number[word] for word in flat] == found.words.tolist()  # equal words: equal hashes
    assert len(set(number.values())) == len(number)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=40))
@example("a…\u0301b\u00a0\u0338 ﷺ")
def test_words_are_runs_of_letters_after_nfkc(text: str) -> None:
    plain = unicodedata.normalize("NFKC", text).lower()
    spaced = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in plain)
    assert words(text) == [word for word in spaced.split(" ") if word]


def test_hashes_are_the_same_in_every_process() -> None:
    found = hashed(["Bond bond", "étude, photosynthesis"]).words.tolist()
    long = _mixed(_mixed(int.from_bytes(b"photosyn", "little")) ^ int.from_bytes(b"thesis", "little"))
    assert found == [*[_mixed(int.from_bytes(b"bond", "little"))] * 2, 470520564847851954, long]


def _mixed(value: int) -> int:
    for shift in (32, 29):
        value = (value ^ value >> shift) * 0x9E3779B97F4A7C15 % 2**64
    return value


def test_blocks_come_in_order_and_hold_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equipoise.data.words, "BLOCK", 10_000)
    items = [random.Random(0).randrange(3000) for _ in range(200)]
    stops, results = zip(*over_blocks(list, items, lambda item: item), strict=True)
    assert [item for block in results for item in block] == items
    assert list(stops) == np.cumsum([len(block) for block in results]).tolist() and len(stops) > 10
    assert list(over_blocks(list, [], lambda item: 0)) == []


# --- near duplicates ---


def _check(documents: list[Document], found: list[int | None]) -> None:
    """What is reported is true: an earlier document that stays, and near in all parts."""
    for place, twin in enumerate(found):
        if twin is not None:
            assert twin < place and found[twin] is None and _near(documents[twin], documents[place])


@pytest.mark.parametrize(
    ("changed", "similarity", "least"),
    [(8, 0.814, 0.92), (6, 0.856, 0.97), (4, 0.901, 1.0), (1, 0.974, 1.0), (0, 1.0, 1.0)],
)
def test_recall_against_a_plain_comparison(changed: int, similarity: float, least: float) -> None:
    # 16 bands of 8 rows find 1 - (1 - s ** 8) ** 16: 0.96, 0.995 and 0.9999 of the first three; 400 pairs each.
    rng = random.Random(changed)
    first = [(_text(rng, 236),) for _ in range(400)]
    second = [(_changed(rng, text, changed),) for (text,) in first]
    assert _similarity(first[0][0], second[0][0]) == pytest.approx(similarity, abs=0.002)
    documents = first + second
    found = near_duplicates(documents)
    _check(documents, found)
    right = [found[400 + place] == place for place in range(400)]
    assert sum(right) / 400 >= least
    assert found[:400] == [None] * 400


def test_below_the_threshold_nothing_is_near_however_often_it_collides() -> None:
    rng = random.Random(3)
    first = [(_text(rng, 236),) for _ in range(200)]
    documents = first + [(_changed(rng, text, 9),) for (text,) in first]
    assert 0.78 < _similarity(first[0][0], documents[200][0]) < 0.8
    collided = (buckets(documents, lambda done: None)[200:] >= 0).any(axis=1).mean()
    assert collided > 0.8 and near_duplicates(documents) == [None] * 400


def test_exactly_at_the_threshold_is_near() -> None:
    said = [f"x{i}" for i in range(1, 11)]  # 8 runs; with two words more 10: 8 / 10 is near, 8 / 11 is not
    documents = [(" ".join(said),), (" ".join([*said, "y", "z"]),), (" ".join([*said, "y", "z", "u"]),)]
    assert near_duplicates(documents * 2) == [None, 0, None, 0, 0, 2]


def test_the_first_stays_and_only_what_stays_counts() -> None:
    rng = random.Random(5)
    one = _text(rng, 240)
    two = _changed(rng, one, 4)
    three = _changed(rng, two, 5)
    assert _similarity(one, two) > 0.9 and _similarity(two, three) > 0.85 and _similarity(one, three) < 0.8
    assert near_duplicates([(one,), (two,), (three,), (three,), (two,)]) == [None, 0, None, 2, 0]


def test_all_parts_must_be_near_and_parts_do_not_mix() -> None:
    rng = random.Random(6)
    a, b, c = (_text(rng, 60) for _ in range(3))
    assert near_duplicates([(a, b), (b, a), (a, c), (a, a), (a, b)]) == [None, None, None, None, 0]
    same_runs = runs_of([("one two three", "one two three")])[0]
    assert len(set(same_runs.tolist())) == 2


def test_short_texts_and_texts_without_words() -> None:
    texts = ["yes", "Yes!", "no", "yes no", "no yes", "yes, NO", "", "?", "?", "", "yes no yes", "yes yes no yes yes"]
    expected = [None, 0, None, None, None, 3, None, None, 7, 6, None, None]
    assert near_duplicates([(text,) for text in texts]) == expected
    assert near_duplicates([(_text(random.Random(1), 50), text) for text in texts]) == expected
    assert near_duplicates([]) == [] and near_duplicates([("a",)]) == [None]


def _template(rng: random.Random, count: int) -> list[Document]:
    """Documents that share a prompt and an answer, and whose other answer differs in one word of 19: 14/20 alike."""
    prompt, answer, said = _text(rng, 200), _text(rng, 60), _text(rng, 19).split()
    return [(" ".join([*said[:9], f"x{i}", *said[10:]]), answer, prompt) for i in range(count)]


def test_thousands_of_one_template_all_stay() -> None:
    documents = _template(random.Random(8), 2500)
    assert _similarity(documents[0][0], documents[1][0]) == pytest.approx(14 / 20)
    copies = [(chosen, answer + " indeed", prompt) for chosen, answer, prompt in documents[::10]]
    found = near_duplicates(documents + copies)
    assert found == [None] * 2500 + list(range(0, 2500, 10))


def _mixed_documents(rng: random.Random) -> list[Document]:
    """Templates, near and exact copies and others, in disorder."""
    documents = _template(rng, 150) + [document[::-1] for document in _template(rng, 150)]
    documents += [(_text(rng, 30), _text(rng, 30), _text(rng, 90)) for _ in range(100)]
    documents += [(chosen, f"{answer} now", prompt) for chosen, answer, prompt in rng.sample(documents, 150)]
    rng.shuffle(documents)
    return documents


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (equipoise.data.near, "_FEW", 0),  # scan all that stay instead of gathering some
        (equipoise.data.near, "_FEW", 10**9),  # and the other way round
        (equipoise.data.near, "_KEPT_BYTES", 1),  # keep no sets
        (equipoise.data.words, "BLOCK", 3000),  # many small blocks
        (equipoise.data.words, "_THREADS", 1),
    ],
)
def test_no_setting_of_speed_or_memory_changes_the_result(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, value: int
) -> None:
    documents = _mixed_documents(random.Random(9))
    monkeypatch.setattr(module, name, value)
    found = near_duplicates(documents)
    assert found == _plain(documents)
    assert sum(twin is not None for twin in found) == 150


def _plain(documents: Iterable[Document]) -> list[int | None]:
    """The rule, all with all."""
    result: list[int | None] = []
    staying: list[tuple[int, Document]] = []
    for place, document in enumerate(documents):
        twin = next((earlier for earlier, other in staying if _near(document, other)), None)
        result.append(twin)
        if twin is None:
            staying.append((place, document))
    return result


def test_progress_counts_to_twice_the_documents() -> None:
    told: list[tuple[int, int]] = []
    near_duplicates(_template(random.Random(1), 50), progress=lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (100, 100)


def test_bands_and_rows_are_those_of_the_docstring() -> None:
    found = {s: 1 - (1 - s**ROWS) ** BANDS for s in (0.5, 0.8, 0.9)}
    assert found == pytest.approx({0.5: 0.06, 0.8: 0.947, 0.9: 0.9999}, abs=0.002)
