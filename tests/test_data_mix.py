"""The mixture is exactly the one that was asked for, and stays so whatever is added to it."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data.built import Built
from equipoise.data.ledger import (
    Ledger,
    Spread,
    Tokens,
    encoded,
    lengths,
    problems,
    seen,
    source_line,
    spread_of,
    stage_ledger,
)
from equipoise.data.mix import allocate, expected_gradient, mix
from equipoise.data.order import bands_of, epoch_order, evenly
from equipoise.model.chat import EncodedPair
from equipoise.recipe import Curriculum, Mix
from equipoise.records import InputError, Message, Pair


def _pairs(source: str, n: int) -> list[Pair]:
    return [Pair((Message("user", f"{source} {i}"),), "good" * (i % 3), "bad", source, source, "g") for i in range(n)]


@pytest.mark.parametrize(
    ("shares", "pairs", "counts"),
    [
        ({"reddit": 0.79, "finance": 0.21}, 7558, {"reddit": 5971, "finance": 1587}),  # 5970.82 and 1587.18
        ({"a": 0.4, "b": 0.3, "c": 0.3}, 1001, {"a": 401, "b": 300, "c": 300}),  # 400.4, 300.3, 300.3
        ({"b": 0.5, "a": 0.5}, 3, {"a": 2, "b": 1}),  # a tie: by name
        ({"b": 0.15, "a": 0.35, "c": 0.5}, 10, {"b": 1, "a": 4, "c": 5}),  # a tie: the larger share
        ({"a": 0.29, "b": 0.71}, 100, {"a": 29, "b": 71}),  # 0.29 * 100 is 28.999... in floats
        ({"a": 1.0, "b": 0.0}, 7, {"a": 7, "b": 0}),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 100, {"a": 34, "b": 33, "c": 33}),
        ({"a": 0.5, "b": 0.5}, 0, {"a": 0, "b": 0}),
    ],
)
def test_allocate_by_hand(shares: dict[str, float], pairs: int, counts: dict[str, int]) -> None:
    assert allocate(shares, pairs) == counts
    assert allocate(dict(reversed(shares.items())), pairs) == counts


@pytest.mark.parametrize(
    ("shares", "pairs"),
    [
        ({"a": 0.5, "b": 0.4}, 10),
        ({"a": 1.5, "b": -0.5}, 10),
        ({"a": float("nan"), "b": 0.5}, 10),
        ({"a": float("inf")}, 10),
        ({}, 10),
        ({"a": 1.0}, -1),
    ],
)
def test_allocate_refuses(shares: dict[str, float], pairs: int) -> None:
    with pytest.raises(ValueError, match=r"share|pairs"):
        allocate(shares, pairs)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any), st.integers(0, 100_000))
def test_allocate_sums_and_is_within_one(weights: list[int], pairs: int) -> None:
    shares = {f"s{i}": weight / sum(weights) for i, weight in enumerate(weights)}
    counts = allocate(shares, pairs)
    assert sum(counts.values()) == pairs
    for i, weight in enumerate(weights):
        assert abs(counts[f"s{i}"] - Fraction(weight * pairs, sum(weights))) < Fraction(1_000_001, 1_000_000)


def test_adding_a_source_leaves_the_others_draw_unchanged() -> None:
    available = {name: _pairs(name, 50) for name in "abc"}
    two = mix(available, Mix(counts={"a": 20, "b": 10}), seed=1, stage="s")
    three = mix(available, Mix(counts={"c": 5, "a": 20, "b": 10}), seed=1, stage="s")
    assert set(two.pairs) < set(three.pairs) and len(set(three.pairs)) == 35
    larger = mix(available, Mix(counts={"a": 30}), seed=1, stage="s")
    assert larger.pairs[:20] == two.pairs[:20]
    assert two.pairs != mix(available, Mix(counts={"a": 20, "b": 10}), seed=2, stage="s").pairs
    assert two == mix(available, Mix(counts={"a": 20, "b": 10}), seed=1, stage="s")


def test_the_draw_is_the_same_in_every_release() -> None:
    drawn = mix({"a": _pairs("a", 50)}, Mix(counts={"a": 5}), seed=0, stage="s").pairs
    assert [pair.prompt[0].content for pair in drawn] == ["a 43", "a 18", "a 37", "a 46", "a 39"]


def _lines(available: dict[str, int], **spec: object) -> dict[str, tuple[int, int, int, int]]:
    there = {name: _pairs(name, n) for name, n in available.items()}
    mixture = mix(there, Mix.model_validate(spec), seed=0, stage="s")
    drawn = Counter(pair.source for pair in mixture.pairs)
    assert all(drawn[line.source] == line.drawn for line in mixture.lines)
    return {line.source: (line.asked, line.available, line.drawn, line.repeated) for line in mixture.lines}


def test_short_of_pairs() -> None:
    there = {"a": 100, "b": 500}
    by_shares = {"pairs": 1000, "shares": {"a": 0.25, "b": 0.75}}
    with pytest.raises(InputError) as caught:
        _lines(there, **by_shares)
    first, second = str(caught.value).splitlines()
    assert first.startswith("stage s: source a: 250 pairs asked, 100 available; ask for fewer")
    assert second.startswith("stage s: source b: 750 pairs asked, 500 available")
    assert _lines(there, **by_shares, when_short="shrink") == {"a": (250, 100, 100, 0), "b": (750, 500, 300, 0)}
    assert _lines(there, **by_shares, when_short="repeat") == {"a": (250, 100, 250, 150), "b": (750, 500, 750, 250)}
    assert _lines(there, counts={"a": 80, "b": 500}, when_short="shrink") == {
        "a": (80, 100, 80, 0), "b": (500, 500, 500, 0),
    }  # fmt: skip


@pytest.mark.parametrize("when_short", ["fail", "shrink", "repeat"])
def test_nothing_there_is_an_error_whatever_the_recipe_says(when_short: str) -> None:
    with pytest.raises(InputError, match="source a: 10 pairs asked, 0 available"):
        _lines({"a": 0, "b": 50}, counts={"a": 10, "b": 10}, when_short=when_short)


def test_repeats_are_whole_rounds() -> None:
    mixture = mix({"a": _pairs("a", 4)}, Mix(counts={"a": 10}, when_short="repeat"), seed=0, stage="s")
    assert sorted(Counter(mixture.pairs).values()) == [2, 2, 3, 3]
    assert mixture.pairs[:4] == mixture.pairs[4:8]


@given(
    st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1),
    st.integers(1, 500),
)
def test_shrinking_keeps_the_shares(sources: dict[str, tuple[int, int]], pairs: int) -> None:
    whole = sum(weight for weight, _ in sources.values())
    shares = {name: weight / whole for name, (weight, _) in sources.items()}
    available = {name: _pairs(name, there) for name, (_, there) in sources.items()}
    mixture = mix(available, Mix(pairs=pairs, shares=shares, when_short="shrink"), seed=0, stage="s")
    drawn = {line.source: line.drawn for line in mixture.lines}
    total = sum(drawn.values())
    assert drawn == allocate(shares, total) and all(drawn[name] <= len(available[name]) for name in drawn)
    if total < pairs:  # the next larger mixture would ask one source for more than it has
        assert any(Fraction(w, whole) * (total + 1) > there for w, there in sources.values())


def test_order_is_a_permutation_new_in_every_epoch() -> None:
    first = epoch_order(100, seed=0, epoch=0)
    assert sorted(first) == list(range(100)) and first == epoch_order(100, seed=0, epoch=0)
    assert first != epoch_order(100, seed=0, epoch=1) and first != epoch_order(100, seed=1, epoch=0)
    assert epoch_order(0, seed=0, epoch=0) == []
    sources = ["a"] * 79 + ["b"] * 21
    spread = epoch_order(100, seed=0, epoch=0, sources=sources)
    assert sorted(spread) == list(range(100)) and spread != epoch_order(100, seed=0, epoch=1, sources=sources)
    with pytest.raises(ValueError, match="3 pairs, the sources of 2"):
        epoch_order(3, seed=0, epoch=0, sources=["a", "b"])


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40), min_size=1))
def test_every_beginning_holds_the_shares(counts: dict[str, int]) -> None:
    total, given_so_far = sum(counts.values()), Counter[str]()
    for step, name in enumerate(evenly(counts), 1):
        given_so_far[name] += 1
        assert all(abs(given_so_far[n] - Fraction(counts[n] * step, total)) < 1 for n in counts)
    assert given_so_far == +Counter(counts)


def test_ledger_says_what_was_not_as_asked() -> None:
    available = {"a": _pairs("a", 30), "b": _pairs("b", 30)}
    stage = stage_ledger(mix(available, Mix(counts={"a": 20, "b": 10}), seed=0, stage="s"), epochs=0.5)
    built = Built(available["a"], 33, {"wrong type": 3})
    ledger = Ledger().with_source("a", source_line(built, available["a"][:29], {"near duplicate": 1}))
    assert problems(ledger.with_stage("s", stage)) == []
    rows = [EncodedPair(f"{i}", "b", "b", (1, 2), (3,) * (i + 1), (4,), prompt_cut=int(i < 2)) for i in range(10)]
    done = seen(encoded(stage, {"a": {"answer too long": 4}}, rows, max_length=9), {"a": 8, "b": 5})
    full = ledger.with_stage("s", done)
    assert problems(full) == [
        "Stage s saw 8 pairs of a, asked 10 (20 x 0.5 epochs): 30 available, 20 drawn, 4 unusable: answer too long."
    ]
    assert done.sources["a"].unusable == {"answer too long": 4} and done.sources["b"].prompts_cut == 2
    assert done.sources["b"].after_truncation == 7  # of 1 to 10 answer tokens beside 2 of the prompt, 7 fit into 9
    assert done.sources["b"].tokens == Tokens(prompt=2, chosen=5.5, rejected=1, longest=12, answers=65)
    assert Ledger.from_record(full.record()) == full
    line = full.sources["a"]
    assert line.rows == sum(line.malformed.values()) + sum(line.cleaned.values()) + line.available


def test_lengths() -> None:
    measured = lengths(_pairs("a", 3))  # chosen: 0, 4 and 8 letters; rejected: 3
    assert measured is not None
    assert (measured.chosen, measured.rejected) == (4, 3)
    assert measured.chosen_longer == measured.longer_wins == pytest.approx(2 / 3)
    assert lengths([]) is None


def test_pairs_that_cannot_be_used_are_passed_over_and_only_as_many_are_tried_as_needed() -> None:
    pool = {"a": _pairs("a", 100)}
    spec = Mix(counts={"a": 10})
    whole = mix(pool, spec, seed=0, stage="s").pairs
    tried: list[Pair] = []

    def usable(pair: Pair) -> bool:
        tried.append(pair)
        return pair not in whole[:3]

    mixture = mix(pool, spec, seed=0, stage="s", usable=usable)
    assert mixture.pairs[:7] == whole[3:] and len(tried) == 13
    assert (mixture.lines[0].available, mixture.lines[0].drawn) == (97, 10)


def test_what_is_unusable_counts_against_a_short_source() -> None:
    pool = {"a": _pairs("a", 20), "b": _pairs("b", 100)}
    odd = {pair for pair in pool["a"] if int(pair.prompt[0].content.split()[1]) % 2}
    for kind, drawn in (("shrink", (10, 10)), ("repeat", (16, 16))):
        spec = Mix(pairs=32, shares={"a": 0.5, "b": 0.5}, when_short=kind)
        lines = mix(pool, spec, seed=0, stage="s", usable=lambda pair: pair not in odd).lines
        assert (lines[0].drawn, lines[1].drawn) == drawn and lines[0].available == 10
    with pytest.raises(InputError, match="source a: 16 pairs asked, 10 available"):
        mix(pool, Mix(counts={"a": 16}), seed=0, stage="s", usable=lambda pair: pair not in odd)


def test_shares_of_tokens_by_hand() -> None:
    """Pairs of a hold 10 tokens and those of b 30: 75 of a and 25 of b hold 750 each."""
    pool = {"a": _pairs("a", 100), "b": _pairs("b", 100)}
    spec = Mix(pairs=100, shares={"a": 0.5, "b": 0.5}, by="tokens")
    lines = mix(pool, spec, seed=0, stage="s", size=lambda pair: 10 if pair.source == "a" else 30).lines
    assert [(line.source, line.asked, line.drawn) for line in lines] == [("a", 75, 75), ("b", 25, 25)]


@given(st.integers(20, 300), st.integers(0, 10))
def test_shares_of_tokens_hold_for_what_is_drawn(pairs: int, seed: int) -> None:
    """The drawn tokens are in their shares to within what two pairs hold, although lengths differ inside a source."""
    pool = {"a": _pairs("a", 300), "b": _pairs("b", 300)}

    def size(pair: Pair) -> float:
        number = int(pair.prompt[0].content.split()[1])
        return 5 + number % 7 if pair.source == "a" else 20 + number % 11

    mixture = mix(pool, Mix(pairs=pairs, shares={"a": 0.3, "b": 0.7}, by="tokens"), seed=seed, stage="s", size=size)
    assert len(mixture.pairs) == pairs
    total = {name: sum(size(pair) for pair in mixture.pairs if pair.source == name) for name in "ab"}
    assert total["a"] == pytest.approx(0.3 * sum(total.values()), abs=60 + 0.05 * sum(total.values()))


def test_expected_gradient_by_hand() -> None:
    assert expected_gradient(9, 16, per_token=False) == 5
    assert expected_gradient(4, 4, per_token=True) == pytest.approx(0.5**0.5)


def test_bands_by_hand() -> None:
    easiness = [5.0, 1.0, 3.0, 2.0, 4.0, 0.1, 0.2]
    sources = ["a"] * 5 + ["b"] * 2
    assert bands_of(easiness, sources, Curriculum(bands=2)) == [0, 1, 0, 1, 0, 1, 0]
    hard_first = Curriculum(bands=5, direction="hard_to_easy")
    assert bands_of(easiness, sources, hard_first) == [4, 0, 2, 1, 3, 0, 2]
    assert bands_of(easiness, sources, Curriculum(bands=1)) == [0] * 7
    with pytest.raises(ValueError, match="finite"):
        bands_of([1.0, float("nan")], ["a", "a"], Curriculum())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=60), st.integers(0, 3))
def test_bands_come_in_order_and_the_mix_stays_even(pairs: list[tuple[str, int]], epoch: int) -> None:
    sources, bands = [source for source, _ in pairs], [band for _, band in pairs]
    order = epoch_order(len(pairs), seed=1, epoch=epoch, sources=sources, bands=bands)
    assert sorted(order) == list(range(len(pairs)))
    for name in "ab":
        own = [bands[place] for place in order if sources[place] == name]
        assert own == sorted(own)
    plain = epoch_order(len(pairs), seed=1, epoch=epoch, sources=sources)
    assert [sources[place] for place in order] == [sources[place] for place in plain]


def test_spread_by_hand() -> None:
    assert spread_of([4.0, 1.0, 2.0, 3.0, 5.0]) == Spread(5, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert spread_of([]) is None
