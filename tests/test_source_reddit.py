"""The `reddit` source: which comments make pairs, and that every row is counted once."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from equipoise.data.built import Built
from equipoise.data.prompts import post_prompt, reddit_prompt
from equipoise.data.sources import reddit, reddit_rules, reddit_texts
from equipoise.data.sources.reddit_rules import Choice, Comment, Post, Standing
from equipoise.recipe_sources import RedditSource
from equipoise.records import InputError
from equipoise.records import Pair as PairRecord

Row = dict[str, Any]
SCORE = "comment_normalized_score"
COLUMNS = ("id", "title", "selftext", "subreddit", "body", SCORE)
ANY_GAP: dict[str, Any] = {"ratio": 1.0, "percentile": 0.0, "floor": 0.0}
OPEN: dict[str, Any] = {
    "min_gap": ANY_GAP, "length_ratio": 1e9, "balance_length": False, "min_post_chars": 0, "min_comment_chars": 1,
    "max_malformed": 1.0,
}  # fmt: skip
"""Options under which any two comments of different scores make a pair."""


def row(post: str, body: str, score: Any, **columns: Any) -> Row:
    texts = {"title": f"Title of {post}", "selftext": f"Text of {post}", "subreddit": "stocks"}
    return {"id": post, **texts, "body": body, SCORE: score, **columns}


def build(tmp_path: Path, rows: list[Row], **options: Any) -> Built:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return reddit.build("r", RedditSource(kind="reddit", id=str(path), **{**OPEN, **options}))


def sides(built: Built) -> list[tuple[str, str]]:
    return [(pair.chosen, pair.rejected) for pair in built.pairs]


# --- the rule of the gap, by hand ---


def test_percentile_rank_is_the_share_below_plus_half_the_equal_ones() -> None:
    standing = Standing([0.1, 0.2, 0.2, 0.4, 0.8], floor=0.25)
    # ranks: 0.1 -> 0.5/5, 0.2 -> (1 + 1)/5, 0.4 -> 3.5/5, 0.8 -> 4.5/5
    assert standing.gap(0.8, 0.1) == 4.0 / 5
    assert standing.gap(0.4, 0.2) == 1.5 / 5
    assert standing.gap(0.2, 0.2) == 0.0
    assert standing.floor == 0.2  # the second of five
    assert Standing([0.0, 1.0], floor=0.1).floor == pytest.approx(0.1)


def scale(subreddit: str = "stocks") -> list[Row]:
    """Ten posts with one comment each, of scores 0.0, 0.1, ... 0.9: nothing but the scale of the subreddit."""
    return [row(f"alone{subreddit}{k}", f"alone {k}", k / 10, subreddit=subreddit) for k in range(10)]


def test_a_pair_needs_the_ratio_and_the_percentile_gap(tmp_path: Path) -> None:
    rows = [*scale(), row("p", "better", 0.85), row("p", "worse", 0.42)]
    # Twelve scores: 0.42 has rank 5.5/12, 0.85 has rank 10.5/12.
    (pair,) = build(tmp_path, rows, min_gap={"ratio": 2.0, "percentile": 5 / 12, "floor": 0.0}).pairs
    assert (pair.chosen, pair.rejected, pair.group) == ("better", "worse", "p")
    assert pair.score_gap == 5 / 12
    assert pair.prompt == reddit_prompt(rows[-1])
    for gap in ({"ratio": 2.03, "percentile": 0.0}, {"ratio": 1.0, "percentile": 0.42}):
        with pytest.raises(InputError, match="no real score gap in the post: 2"):
            build(tmp_path, rows, min_gap={"floor": 0.0, **gap})


def test_the_floor_stops_ratios_between_small_scores(tmp_path: Path) -> None:
    rows = [*scale(), row("p", "two votes", 0.02), row("p", "one vote", 0.01)]
    gap = {"ratio": 2.0, "percentile": 0.0}
    assert sides(build(tmp_path, rows, min_gap={**gap, "floor": 0.0})) == [("two votes", "one vote")]
    # The third part of twelve scores 0, .01, .02, .1, .2, .3, ... lies between .1 and .2: 0.02 is not twice that.
    with pytest.raises(InputError, match="no real score gap"):
        build(tmp_path, rows, min_gap={**gap, "floor": 0.33})


def test_gaps_are_of_the_comments_own_subreddit(tmp_path: Path) -> None:
    rows = [*scale("a"), *[row(f"b{k}", f"b {k}", 0.5, subreddit="b") for k in range(10)]]
    rows += [row(name, f"{name} {score}", score, subreddit=name) for name in "ab" for score in (0.55, 0.45)]
    (from_a, from_b) = build(tmp_path, rows).pairs
    assert from_a.score_gap == 2 / 12  # one score between them
    assert from_b.score_gap == 11 / 12  # ten between them
    assert (from_a.group, from_b.group) == ("a", "b")


def test_there_is_no_second_choice_and_equal_scores_are_no_pair(tmp_path: Path) -> None:
    rows = [row("p", "one", 0.5), row("p", "other", 0.5), row("q", "good", 0.9), row("q", "bad", 0.1)]
    built = build(tmp_path, rows)
    assert sides(built) == [("good", "bad")]
    assert built.dropped == {"no real score gap in the post": 2, "other comment of a pair": 1}


def test_the_rank_does_not_depend_on_what_texts_are_wanted(tmp_path: Path) -> None:
    rows = [row("p", "better", 0.9), row("p", "worse", 0.1), row("p", "[deleted]", 0.5), row("q", "short", 0.6)]
    (pair,) = build(tmp_path, rows).pairs
    assert pair.score_gap == 3 / 4  # ranks 3.5/4 and 0.5/4 of four scores


def three(*scores: float) -> list[Row]:
    return [row("p", f"comment {score}", score) for score in scores]


def test_widest_gaps_first_up_to_the_number_asked(tmp_path: Path) -> None:
    rows = three(0.1, 0.9, 0.4)
    wide = [("comment 0.9", "comment 0.1"), ("comment 0.9", "comment 0.4"), ("comment 0.4", "comment 0.1")]
    for most in (1, 2, 3, 9):
        built = build(tmp_path, rows, max_pairs_per_post=most)
        assert sorted(sides(built)) == sorted(wide[: min(most, 3)])
        assert built.rows == 3 == len(built.pairs) + sum(built.dropped.values())
    built = build(tmp_path, rows)
    assert built.dropped == {"further comment of the post": 1, "other comment of a pair": 1}


def test_never_more_pairs_than_comments(tmp_path: Path) -> None:
    built = build(tmp_path, [row("p", f"comment {k}", k / 10) for k in range(6)], max_pairs_per_post=99)
    assert len(built.pairs) == 6 == built.rows
    assert len({(pair.chosen, pair.rejected) for pair in built.pairs}) == 6
    many = [row("p", f"comment {k}", k) for k in range(500)]  # all under one id: the work must not explode
    assert sides(build(tmp_path, many)) == [("comment 499", "comment 0")]


def test_length_window(tmp_path: Path) -> None:
    rows = [row("p", "x" * 30, 0.9), row("p", "y" * 10, 0.1), row("p", "z" * 15, 0.2)]
    assert sides(build(tmp_path, rows, length_ratio=3.0)) == [("x" * 30, "y" * 10)]
    assert sides(build(tmp_path, rows, length_ratio=2.0)) == [("x" * 30, "z" * 15)]  # the widest of those allowed
    alone = rows[:2]
    with pytest.raises(InputError, match="lengths too different: 2"):
        build(tmp_path, alone, length_ratio=2.99)


def choice(chosen: int, rejected: int, gap: float, subreddit: str = "s", mark: str = "x") -> Choice:
    post = Post(f"{mark}{gap}", "g", subreddit, "t", "s")
    return Choice(post, Comment(0, 1.0, mark * chosen), Comment(1, 0.0, mark * rejected), gap)


def test_balance_drops_the_smallest_gaps_of_the_larger_side() -> None:
    longer = [choice(9, 5, 0.3), choice(9, 5, 0.9), choice(9, 5, 0.5), choice(9, 5, 0.4)]
    shorter = [choice(5, 9, 0.2)]
    equal = [choice(7, 7, 0.1)]
    assert reddit_rules.out_of_balance([*longer, *shorter, *equal]) == {0, 2, 3}
    assert reddit_rules.out_of_balance([*shorter, choice(4, 9, 0.8), *equal, longer[0]]) == {0}
    assert reddit_rules.out_of_balance(equal) == set()
    assert reddit_rules.out_of_balance([*longer, *equal]) == {0, 1, 2, 3}  # with no one to balance them, none stay
    a, b = choice(9, 5, 0.5, mark="a"), choice(9, 5, 0.5, mark="b")
    assert reddit_rules.out_of_balance([b, a, *shorter]) == {0}  # equal gaps: "a..." stays,
    assert reddit_rules.out_of_balance([a, b, *shorter]) == {1}  # wherever it stands


def test_cap_keeps_the_widest_of_each_subreddit() -> None:
    choices = [choice(5, 5, gap, name) for name, gap in (("a", 0.2), ("b", 0.1), ("a", 0.9), ("a", 0.5), ("b", 0.3))]
    assert reddit_rules.over_the_cap(choices, 1) == {0, 1, 3}
    assert reddit_rules.over_the_cap(choices, 2) == {0}
    assert reddit_rules.over_the_cap(choices, 3) == set()


def test_cap_and_balance_are_counted(tmp_path: Path) -> None:
    rows = []
    for k in range(6):
        long, short = "long comment", "short"
        better, worse = (long, short) if k < 4 else (short, long)
        rows += [row(f"p{k}", f"{better} {k}", 0.5 + k / 100), row(f"p{k}", f"{worse} {k}", 0.1)]
    built = build(tmp_path, rows, max_pairs_per_subreddit=5, balance_length=True, drop=[])
    # Over the cap goes k=0 (the smallest gap). Of k=1..5 three have a longer chosen side, and k=1 is the narrowest.
    assert [pair.chosen for pair in built.pairs] == [
        "long comment 2", "long comment 3", "short 4", "short 5",
    ]  # fmt: skip
    assert built.dropped == {
        "over max_pairs_per_subreddit": 1, "dropped to balance lengths": 1, "other comment of a pair": 6,
    }  # fmt: skip


# --- unwanted texts ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[deleted]", True), ("[Removed]", True), ("[ Removed by Reddit ]", True), ("[deleted by user]", True),
        ("Comment removed by moderator", True),
        ("They [deleted] my account.", False), ("[removed] the fees, so it is fine now", False), ("deleted", False),
    ],
)  # fmt: skip
def test_deleted(text: str, expected: bool) -> None:
    assert reddit_texts.deleted(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("*I am a bot, and this action was performed automatically. Please [contact the moderators](x).*", True),
        ("Here are the rates.\n\n^(I'm a bot)", True),
        ("^I ^am ^a ^bot ^that ^finds ^prices", True),
        ("Beep boop, I’m a bot.", True),
        ("Hello! This is a friendly bot made by u/x", True),
        ("Please contact the moderators of this subreddit if you have any questions.", True),
        ("RemindMe! 2 years", True),
        ("!remindme 6 months, let us see how this plays out", True),
        ("Good bot", True),
        ("I am a bot developer and my robot trades at night.", False),
        ("They said I am a bot because I both like bottom fishing.", False),
        ("The bot sold automatically when the limit was hit.", False),
        ("A good bot needs a stop loss, or you lose it all.", False),
        ("Please remind me why anyone would buy at 300?", False),
    ],
)
def test_bot(text: str, expected: bool) -> None:
    assert reddit_texts.by_bot(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Edit: typo", True), ("**EDIT 2:** thanks for the gold, kind stranger", True), ("edit - spelling", True),
        ("_Edit_: wording\n\nEdit 2: wording again", True), ("Edited to add: thank you all", True),
        ("Sell the bonds first.\n\nEdit: typo", False),
        ("Edit: I misread.\n\nSell the bonds first, then the fund.", False),
        ("Edit your budget before anything else.", False), ("Edition two: better", False),
        ("Edit: " + "the whole answer, written once more " * 20, False),
    ],
)  # fmt: skip
def test_edit_notice(text: str, expected: bool) -> None:
    assert reddit_texts.edit_notice(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://www.irs.gov/form", True), ("Source: https://x.org/a?b=c", True), ("www.x.org", True),
        ("[The form that you have to send in](https://x.org/a)", True), ("![gif](giphy|abc|downsized)", True),
        ("See https://x.org/a for the form; section 3 says what counts.", False),
        ("[This form](https://x.org) is due in April, not in May.", False),
        ("No link at all", False), ("Arrays are written a[1](x) in some languages, are they not?", False),
    ],
)  # fmt: skip
def test_link_only(text: str, expected: bool) -> None:
    assert reddit_texts.link_only(text) is expected


def test_unwanted_texts_take_time_in_proportion_to_their_length() -> None:
    for unit in ("[", "[a](", "edit:\n", "i am a ", "(", "http", "https://", "bot ", "beep "):
        for check in (reddit_texts.link_only, reddit_texts.by_bot, reddit_texts.edit_notice, reddit_texts.deleted):
            check(unit * 50_000 + " www. bot ](")


def test_each_kind_is_dropped_and_counted_and_can_be_kept(tmp_path: Path) -> None:
    texts = {
        "deleted": "[deleted]", "bot": "Beep boop, I'm a bot.", "edit_notice": "Edit: typo",
        "link_only": "https://x.org/a",
    }  # fmt: skip
    rows = [row("p", "good", 0.9), row("p", "bad", 0.1)] + [row("p", text, 0.5) for text in texts.values()]
    names = {
        "deleted": "deleted comment", "bot": "comment of a bot", "edit_notice": "bare edit notice",
        "link_only": "comment that is only a link",
    }  # fmt: skip
    rest = {"other comment of a pair": 1}
    assert build(tmp_path, rows).dropped == {**dict.fromkeys(names.values(), 1), **rest}
    for kind, name in names.items():
        built = build(tmp_path, rows, drop=[kind])
        assert built.dropped == {name: 1, "further comment of the post": 3, **rest}


def test_unwanted_posts(tmp_path: Path) -> None:
    def both(post: str, **columns: Any) -> list[Row]:
        return [row(post, f"good {post}", 0.9, **columns), row(post, f"bad {post}", 0.1, **columns)]

    rows = [
        *both("fine", selftext="x" * 30), *both("gone", selftext="[removed]"),
        *both("untitled", title="[deleted by user]", selftext="y" * 30), *both("link", selftext="https://x.org/abcdefg"),
        *both("short", selftext="x" * 19), *both("least", selftext="z" * 20), *both("long", selftext="x" * 41),
        *both("most", selftext="w" * 40), *both("empty", selftext=None),
    ]  # fmt: skip
    built = build(tmp_path, rows, min_post_chars=20, max_post_chars=40)
    assert [pair.group for pair in built.pairs] == ["fine", "least", "most"]
    assert built.dropped == {
        "deleted post": 4, "post that is only a link": 2, "post too short": 4, "post too long": 2,
        "other comment of a pair": 3,
    }  # fmt: skip
    assert {"gone", "link"} <= {pair.group for pair in build(tmp_path, rows, drop=[], min_post_chars=0).pairs}


def test_lengths_of_comments_count_what_is_left_after_white_space(tmp_path: Path) -> None:
    rows = [row("p", text, score) for text, score in ((" " * 50 + "1234", 0.9), ("12345", 0.5), ("1" * 10, 0.4))]
    rows.append(row("p", "2" * 11, 0.3))
    built = build(tmp_path, rows, min_comment_chars=5, max_comment_chars=10)
    assert sides(built) == [("12345", "1" * 10)]
    assert built.dropped == {"comment too long": 1, "comment too short": 1, "other comment of a pair": 1}


def prose(seed: int, words: int = 60) -> str:
    return " ".join(random.Random(seed).choices([f"word{k}" for k in range(500)], k=words))


def test_near_duplicates_go_and_the_first_stays(tmp_path: Path) -> None:
    def post(name: str, text: str, *comments: str) -> list[Row]:
        scores = (0.9, 0.5, 0.1)
        return [row(name, body, score, selftext=text) for body, score in zip(comments, scores, strict=False)]

    first, again = prose(1, 200), prose(1, 200).replace("word7 ", "word8 ", 1)
    copied = prose(2)
    rows = [
        *post("a", first, prose(11), prose(12), copied),
        *post("b", again, prose(13), prose(14)),  # a near post, under another title
        *post("c", prose(3), copied + " indeed", prose(15), prose(16)),  # a near comment: the next best one is taken
        *post("d", prose(4), prose(17), copied.upper()),  # no second comment is left
        *post("e", prose(5), copied),  # makes no pair anyway
    ]
    built = build(tmp_path, rows)
    assert sides(built) == [(prose(11), copied), (prose(15), prose(16))]
    assert built.dropped == {
        "near duplicate of an earlier post": 2, "near duplicate of an earlier comment": 2,
        "only comment left of its post": 2, "further comment of the post": 1, "other comment of a pair": 2,
    }  # fmt: skip
    kept = build(tmp_path, rows, drop=["deleted"])
    assert [pair.group for pair in kept.pairs] == ["a", "b", "c", "d"]


# --- rows that are malformed, repeated, or somewhere else ---


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"body": None}, "missing value"),
        ({"body": ["a"]}, "wrong type"),
        ({"body": " \n"}, "empty answer"),
        ({"body": "caf\ufffd"}, "broken unicode"),
        ({"selftext": {"a": 1}}, "wrong type"),
        ({"title": 5}, "wrong type"),
        ({"title": " ", "selftext": None}, "empty prompt"),
        ({"subreddit": None}, "missing value"),
        ({"id": None}, "missing value"),
        ({"id": " "}, "missing value"),
        ({"id": True}, "wrong type"),
        ({SCORE: None}, "missing value"),
        ({SCORE: float("nan")}, "missing value"),
        ({SCORE: float("inf")}, "not a number"),
        ({SCORE: 10**400}, "not a number"),
        ({SCORE: "high"}, "not a number"),
        ({SCORE: "nan"}, "not a number"),
        ({SCORE: [0.5]}, "wrong type"),
        ({SCORE: True}, "wrong type"),
        ({SCORE: -0.1}, "negative score"),
        ({"selftext": "another text"}, "differs from an earlier row of its post"),
        ({"title": "another title"}, "differs from an earlier row of its post"),
        ({"subreddit": "jobs"}, "differs from an earlier row of its post"),
    ],
)
def test_malformed_rows_are_counted_and_named(tmp_path: Path, columns: Row, reason: str) -> None:
    rows = [row("p", "good", 0.9), row("p", "bad", 0.1), {**row("p", "middle", 0.5), **columns}]
    built = build(tmp_path, rows)
    assert (sides(built), built.dropped) == ([("good", "bad")], {reason: 1, "other comment of a pair": 1})
    assert built.pairs[0].score_gap == 1 / 2  # a malformed row's score is no score of the subreddit
    with pytest.raises(InputError, match=rf"1 of 3 rows are malformed.*rows\.jsonl: row 3: {reason}"):
        build(tmp_path, rows, max_malformed=0.3)


def test_a_malformed_row_does_not_speak_for_its_post(tmp_path: Path) -> None:
    rows = [{**row("p", "x", 0.5, selftext="other"), SCORE: None}, row("p", "good", 0.9), row("p", "bad", 0.1)]
    assert sides(build(tmp_path, rows)) == [("good", "bad")]


def test_repeated_comments_are_counted_but_not_malformed(tmp_path: Path) -> None:
    rows = [row("p", "good", 0.9), row("p", "bad", 0.1)]
    rows += [row("p", "good ", 0.9), row("p", "bad", 0.8), row("q", "good", 0.9)]
    built = build(tmp_path, rows, max_malformed=0.0)
    assert sides(built) == [("good", "bad")]
    assert built.dropped == {
        "repeated comment": 2, "only comment left of its post": 1, "other comment of a pair": 1,
    }  # fmt: skip


def test_comments_of_a_post_may_stand_anywhere(tmp_path: Path) -> None:
    rows = [row("p", "good", 0.9), *scale(), row("q", "also good", 0.8), row("p", "bad", 0.1), row("q", "worse", 0.2)]
    assert sides(build(tmp_path, rows)) == [("good", "bad"), ("also good", "worse")]


def test_whole_numbers_are_ids_and_csv_gives_scores_as_text(tmp_path: Path) -> None:
    assert build(tmp_path, [row("p", "good", 1, id=7), row("p", "bad", 0, id=7)]).pairs[0].group == "7"
    path = tmp_path / "rows.csv.gz"
    lines = [",".join(map(str, row("p", body, score).values())) for body, score in (("good", 0.9), ("bad", "1e-1"))]
    path.write_bytes(gzip.compress("\n".join([",".join(COLUMNS), *lines]).encode()))
    assert sides(reddit.build("r", RedditSource(kind="reddit", id=str(path), **OPEN))) == [("good", "bad")]


def test_missing_column_and_one_megabyte_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no column '{SCORE}'"):
        build(tmp_path, [dict.fromkeys(COLUMNS[:-1], "x")])
    rows = [row("p", "good", 0.9), row("p", "bad", 0.1), row("p", "x" * 1_000_000, 0.5)]
    assert build(tmp_path, rows).dropped == {"comment too long": 1, "other comment of a pair": 1}
    built = build(tmp_path, [*rows, row("q", "ok", 0.4), row("q", "y " * 500_000, 0.6)], max_comment_chars=10**7)
    assert built.dropped == {"too long": 1, "further comment of the post": 1, "other comment of a pair": 2}


def test_z_score_is_refused_where_a_ratio_is_asked_for() -> None:
    with pytest.raises(ValidationError, match=r"`score: z_score` may be negative.*or `rule: original`"):
        RedditSource(kind="reddit", id="x", score="z_score")
    assert RedditSource(kind="reddit", id="x", score="z_score", rule="original").score == "z_score"


# --- the rule of the original program ---


def plainly(rows: list[Row], spec: RedditSource) -> list[tuple[str, str, str]]:
    """The original program's rule as its description says it."""
    posts: dict[str, list[Row]] = {}
    for entry in rows:
        posts.setdefault(entry["id"], []).append(entry)
    result = []
    for id, comments in posts.items():
        if not spec.min_post_chars <= len(comments[0]["selftext"]) <= spec.max_post_chars:
            continue
        comments = [entry for entry in comments if len(entry["body"]) >= spec.min_comment_chars]
        comments.sort(key=lambda entry: entry[SCORE], reverse=True)
        if len(comments) < 2:
            continue
        chosen = comments[0]
        taken = []
        for sibling in comments[1:]:
            longer = max(len(chosen["body"]), len(sibling["body"]))
            if (
                chosen[SCORE] - sibling[SCORE] >= spec.margin
                and abs(len(chosen["body"]) - len(sibling["body"])) <= spec.length_tolerance * longer
            ):
                taken.append(sibling)
        if not taken and spec.fallback:
            taken = [comments[-1]]
        result += [(id, chosen["body"], sibling["body"]) for sibling in taken[: spec.max_pairs_per_post]]
    return result


@st.composite
def files(draw: st.DrawFn) -> list[Row]:
    """Rows of some posts with distinct comments of few scores and lengths, so that every border is met."""
    rows = []
    for post in range(draw(st.integers(1, 6))):
        text = draw(st.sampled_from(["", "short", "x" * 20, "y" * 21, "[removed]"]))
        subreddit = draw(st.sampled_from(["a", "b"]))
        for k in range(draw(st.integers(1, 4))):
            ending = draw(st.sampled_from(["", " and so on", " https://x.org", "\n\nI am a bot."]))
            score = draw(st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0]))
            body = "c" * draw(st.integers(1, 12)) + f" {post}{k}" + ending
            rows.append(row(f"p{post}", body, score, selftext=text, subreddit=subreddit))
    return draw(st.permutations(rows))


OPTIONS = st.fixed_dictionaries(
    {
        "margin": st.sampled_from([0.0, 0.125, 0.5]),
        "length_tolerance": st.sampled_from([0.0, 0.25, 0.6, 1.0]),
        "fallback": st.booleans(),
        "min_post_chars": st.sampled_from([0, 20]),
        "max_post_chars": st.sampled_from([20, 2000]),
        "min_comment_chars": st.sampled_from([1, 8]),
        "max_pairs_per_post": st.integers(1, 3),
    }
)
FUZZ = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(rows=files(), options=OPTIONS)
def test_original_is_what_the_original_program_did(tmp_path: Path, rows: list[Row], options: Row) -> None:
    spec = RedditSource(kind="reddit", id="x", rule="original", **options)
    expected = plainly(rows, spec)
    if not expected:
        with pytest.raises(InputError, match="makes a pair"):
            build(tmp_path, rows, rule="original", **options)
        return
    built = build(tmp_path, rows, rule="original", **options)
    found = [(pair.group, pair.chosen, pair.rejected) for pair in built.pairs]
    assert sorted(found) == sorted(expected)
    assert built.rows == len(rows) == len(built.pairs) + sum(built.dropped.values())


def test_original_by_hand(tmp_path: Path) -> None:
    rows = [row("p", "x" * 100, 0.5), row("p", "y" * 39, 0.2), row("p", "z" * 40, 0.1), row("q", "a", 0.5),
            row("q", "b", 0.45), row("q", "c", 0.41)]  # fmt: skip
    built = build(tmp_path, rows, rule="original")
    assert sides(built) == [("x" * 100, "z" * 40)]  # 61 % of the longer is too much, 60 % is not
    assert built.pairs[0].score_gap == 0.4
    assert built.dropped == {
        "further comment of the post": 1, "other comment of a pair": 1,
        "no comment worse by the margin and of similar length": 3,
    }  # fmt: skip
    with_fallback = build(tmp_path, rows, rule="original", fallback=True)
    assert sides(with_fallback) == [("x" * 100, "z" * 40), ("a", "c")]


# --- what always holds ---


@FUZZ
@given(rows=files(), options=OPTIONS, balance=st.booleans(), cap=st.none() | st.integers(1, 3), limit=st.integers(1, 3))
def test_every_row_is_a_pair_or_dropped_once(
    tmp_path: Path, rows: list[Row], options: Row, balance: bool, cap: int | None, limit: int
) -> None:
    rows = [*rows, {**rows[0], "body": None}, rows[-1], row("ok", "1", 1.0), row("ok", "2", 0.0)]
    length = {"length_ratio": 2.0, "balance_length": balance, "max_pairs_per_subreddit": cap}
    shared = {key: options[key] for key in ("max_pairs_per_post", "max_post_chars", "min_comment_chars")}
    try:
        whole = build(tmp_path, rows, **shared, **length)
    except InputError as error:
        assert f"none of {len(rows)} rows makes a pair" in str(error)
        return
    for built in (whole, build(tmp_path, rows, limit=limit, **shared, **length)):
        assert built.rows == len(rows) == len(built.pairs) + sum(built.dropped.values())
        assert all(count > 0 for count in built.dropped.values())
    assert len({pair.id for pair in whole.pairs}) == len(whole.pairs)
    per_post = Counter(pair.group for pair in whole.pairs)
    assert max(per_post.values()) <= shared["max_pairs_per_post"]
    assert all(max(len(p.chosen), len(p.rejected)) <= 2 * min(len(p.chosen), len(p.rejected)) for p in whole.pairs)
    if balance:
        assert sum(len(p.chosen) > len(p.rejected) for p in whole.pairs) == sum(
            len(p.chosen) < len(p.rejected) for p in whole.pairs
        )


@FUZZ
@given(rows=files(), seed=st.integers(0, 9), cap=st.none() | st.integers(1, 2))
def test_the_order_of_rows_changes_no_pair(tmp_path: Path, rows: list[Row], seed: int, cap: int | None) -> None:
    def pairs_of(rows: list[Row]) -> set[PairRecord]:
        kinds = ["deleted", "bot", "edit_notice", "link_only"]  # of near duplicates the first stays, so not those
        options = {"drop": kinds, "balance_length": True, "max_pairs_per_subreddit": cap, "max_pairs_per_post": 2}
        return set(build(tmp_path, rows, **options).pairs)

    rows = [*rows, row("ok", "1", 1.0), row("ok", "2", 0.0)]
    pairs = pairs_of(rows)
    assert pairs == pairs_of(rows)
    assert pairs == pairs_of(random.Random(seed).sample(rows, len(rows)))


def test_the_embedded_world(tmp_path: Path) -> None:
    spec = RedditSource(kind="reddit", id="pocket", rows=300)
    assert (spec.min_post_chars, spec.min_comment_chars) == (0, 1)
    assert RedditSource(kind="reddit", id="pocket", min_post_chars=50).min_post_chars == 50
    built = reddit.build("r", spec)
    assert built == reddit.build("r", spec)
    assert built.rows == 300 == len(built.pairs) + sum(built.dropped.values())
    assert len(built.pairs) > 30
    longer = [len(pair.chosen) - len(pair.rejected) for pair in built.pairs]
    assert sum(d > 0 for d in longer) == sum(d < 0 for d in longer)
    title, text = built.pairs[0].prompt[0].content.split("\n\n")
    assert built.pairs[0].prompt == post_prompt(title, text)  # as evaluation asks the embedded model
    assert all(pair.group.startswith("reddit:") and pair.score_gap is not None for pair in built.pairs)
    assert min(pair.score_gap or 0.0 for pair in built.pairs) >= spec.min_gap.percentile
