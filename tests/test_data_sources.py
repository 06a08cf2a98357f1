"""Sources: rows to pairs, every drop counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet
import pytest

from equipoise.data.built import Dropped, draft, pair
from equipoise.data.sources import FINISH, KINDS, Built, build
from equipoise.recipe import Columns, HhSource, OrcaSource, PocketSource, Source, TableSource
from equipoise.recipe_sources import Generated
from equipoise.records import InputError, Message, Pair

GOOD = {"system": "", "question": "Why?", "chosen": " Because.", "rejected": "No"}


def _file(tmp_path: Path, rows: list[Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _orca(tmp_path: Path, rows: list[Any], **keys: Any) -> Built:
    return build("general", OrcaSource(kind="orca", id=_file(tmp_path, rows), **{"max_malformed": 1.0, **keys}))


def _table(tmp_path: Path, rows: list[Any], **columns: Any) -> Built:
    spec = TableSource(
        kind="table", domain="d", id=_file(tmp_path, rows), max_malformed=1.0, columns=Columns(**columns)
    )
    return build("t", spec)


def _user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


def test_kinds_are_those_of_the_recipe() -> None:
    classes = get_args(get_args(Source)[0])
    assert set(KINDS) == {get_args(kind.model_fields["kind"].annotation)[0] for kind in classes}
    assert set(FINISH) == {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(Generated)}


def test_orca_strips_both_sides_and_leaves_out_a_blank_system(tmp_path: Path) -> None:
    (pair,) = _orca(tmp_path, [GOOD]).pairs
    assert (pair.prompt, pair.chosen, pair.rejected) == (_user("Why?"), "Because.", "No")
    assert (pair.domain, pair.source) == ("general", "general")
    with_system = _orca(tmp_path, [{**GOOD, "system": "Be kind."}]).pairs[0]
    assert with_system.prompt[0] == Message("system", "Be kind.")
    assert with_system.group == pair.group  # the question, whoever asks


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "missing value"),
        ({"chosen": float("nan")}, "missing value"),
        ({"chosen": 7}, "wrong type"),
        ({"question": ["Why?"]}, "wrong type"),
        ({"system": {"a": 1}}, "wrong type"),
        ({"rejected": " \n"}, "empty answer"),
        ({"question": "  "}, "empty prompt"),
        ({"rejected": "Because. "}, "identical sides"),
        ({"rejected": "caf\udce9"}, "broken unicode"),
        ({"question": "caf\ufffd"}, "broken unicode"),
        ({"question": "cafÃ\x83Â©"}, "broken unicode"),
        ({"chosen": "It\0ends"}, "broken unicode"),
        ({"system": "\x1b[31mred"}, "broken unicode"),
    ],
)
def test_every_malformed_row_is_counted(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    built = _orca(tmp_path, [GOOD, {**GOOD, **change}])
    assert (len(built.pairs), built.rows, built.dropped) == (1, 2, {reason: 1})


def test_too_many_malformed_rows_stop_with_examples(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "chosen": 1}, {**GOOD, "chosen": ""}, *[GOOD] * 6, {**GOOD, "chosen": None}]
    with pytest.raises(InputError) as caught:
        _orca(tmp_path, rows, max_malformed=0.2)
    assert "source general: 3 of 10 rows are malformed, more than max_malformed (0.2)" in str(caught.value)
    told = r"rows\.jsonl: row 2: wrong type \(chosen: int where text belongs\); [^ ]+rows\.jsonl: row 3: empty answer"
    assert re.search(told, str(caught.value))
    assert len(_orca(tmp_path, rows, max_malformed=0.3).pairs) == 7


def test_a_malformed_row_is_named_by_its_file_and_its_place_there(tmp_path: Path) -> None:
    """Two shards, the second without a column: rows count from 1 in each, whatever was read before."""
    for number, rows in enumerate(([GOOD] * 3, [{key: GOOD[key] for key in GOOD if key != "chosen"}] * 2)):
        path = tmp_path / f"train-0000{number}-of-00002.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = OrcaSource(kind="orca", id=str(tmp_path))
    told = rf"source s: 2 of 5 rows are malformed.*: {tmp_path}/train-00001-of-00002.jsonl: row 1: missing value "
    with pytest.raises(InputError, match=told + r"\(no column 'chosen'\); .*00001-of-00002.jsonl: row 2: "):
        build("s", spec)
    assert len(build("s", spec.model_copy(update={"rows": 3})).pairs) == 3


def test_a_source_without_pairs_or_columns_stops(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'chosen', 'rejected'; there are 'system', 'question'"):
        _orca(tmp_path, [{"system": "", "question": "x"}])
    with pytest.raises(InputError, match=r"none of 1 rows makes a pair \(missing value: 1\)"):
        _orca(tmp_path, [{**GOOD, "chosen": None}])


def test_limit_draws_the_same_pairs_every_time_and_counts_the_rest(tmp_path: Path) -> None:
    rows = [{**GOOD, "question": f"Why {i}?"} for i in range(50)]
    built = _orca(tmp_path, rows, limit=20)
    assert (len(built.pairs), built.rows, built.dropped) == (20, 50, {"over the limit": 30})
    asked = [pair.prompt[0].content for pair in built.pairs]
    assert asked == sorted(asked, key=lambda text: int(text[4:-1])) and asked != [f"Why {i}?" for i in range(20)]
    assert built == _orca(tmp_path, rows, limit=20)


def _hh(tmp_path: Path, *rows: tuple[str, str]) -> Built:
    path = _file(tmp_path, [{"chosen": chosen, "rejected": rejected} for chosen, rejected in rows])
    return build("hh", HhSource(kind="hh", id=path, max_malformed=1.0))


START = "\n\nHuman: Hi\n\nAssistant: Hello\nAssistant: is me\n\nHuman: Why?\n\nAssistant:"


def test_hh_keeps_all_turns(tmp_path: Path) -> None:
    (pair,) = _hh(tmp_path, (START + " Because.", START + " No.\n\nReally.")).pairs
    assert pair.prompt == (
        Message("user", "Hi"), Message("assistant", "Hello\nAssistant: is me"), Message("user", "Why?"),
    )  # fmt: skip
    assert (pair.chosen, pair.rejected) == ("Because.", "No.\n\nReally.")


def test_hh_drops_what_is_no_pair(tmp_path: Path) -> None:
    good = (START + " Because.", START + " No.")
    rows = [
        good,
        (good[0], START.replace("Hi", "Ho") + " No."),
        (good[0], START),
        (good[0], good[0]),
        (good[0] + "\n\nHuman: bye", good[1]),
        ("Because.", good[1]),
        ("\n\nAssistant: a\n\nHuman: b\n\nAssistant: c", good[1]),
    ]
    assert _hh(tmp_path, *rows).dropped == {
        "prompts differ": 1, "empty answer": 1, "identical sides": 1, "no reply at the end": 1, "not a dialogue": 2,
    }  # fmt: skip


def test_hh_joins_neighbouring_turns_and_refuses_a_prompt_that_ends_with_the_assistant(tmp_path: Path) -> None:
    doubled = "\n\nHuman: a\n\nAssistant: b\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
    (pair,) = _hh(tmp_path, (doubled + " e", doubled + " f")).pairs
    assert [message.content for message in pair.prompt] == ["a", "b\n\nc", "d"]
    ends = "\n\nHuman: a\n\nAssistant: b\n\nAssistant:"
    built = _hh(tmp_path, (doubled + " e", doubled + " f"), (ends + " x", ends + " y"))
    assert built.dropped == {"prompt does not end with a user turn": 1}


def test_table_of_text_columns_with_labels_and_ties(tmp_path: Path) -> None:
    rows = [
        {"i": "Do", "x": "this", "a": "one", "b": "two", "v": votes[0], "w": votes[1], "u": votes[2], "doc": 7}
        for votes in ([1, 1, 2], [2, "2", 0], [2.0, 2, 2], [0, 1, 2], [0, 0, 1], [None, 1, None], [1, None, 2])
    ] + [{"i": "Do", "x": None, "a": "one", "b": "two", "v": None, "w": None, "u": None, "doc": 7}]
    built = _table(tmp_path, rows, prompt=["i", "x"], first="a", second="b", label=["v", "w", "u"], group="doc")
    assert [pair.chosen for pair in built.pairs] == ["one", "two", "two", "one"]
    assert built.pairs[0].prompt == _user("Do\n\nthis") and built.pairs[0].group == "7"
    assert built.dropped == {"tie": 3, "missing value": 1}


def test_ties_are_not_malformed(tmp_path: Path) -> None:
    rows = [{"q": f"q{i}", "a": "one", "b": "two", "l": int(i == 0)} for i in range(10)]
    columns = Columns(prompt="q", first="a", second="b", label="l")
    spec = TableSource(kind="table", domain="d", id=_file(tmp_path, rows), columns=columns, max_malformed=0.0)
    assert build("t", spec).dropped == {"tie": 9}


@pytest.mark.parametrize(("role", "content"), [("role", "content"), ("from", "value")])
def test_table_of_messages(tmp_path: Path, role: str, content: str) -> None:
    names = ("system", "user", "assistant") if role == "role" else ("system", "human", "gpt")

    def said(who: int, what: str) -> dict[str, str]:
        return {role: names[who], content: what}

    rows = [
        {"m": [said(0, "S"), said(1, "a"), said(2, "b"), said(1, "c")], "y": said(2, "good"), "n": "bad"},
        {"m": [said(1, "c")], "y": [said(1, "c"), said(2, "good")], "n": said(2, "bad")},
        {"m": [said(1, "c"), said(2, "d")], "y": said(2, "good"), "n": said(2, "bad")},
        {"m": [said(1, "c")], "y": said(1, "good"), "n": said(2, "bad")},
        {"m": [{role: "tool", content: "x"}], "y": said(2, "good"), "n": said(2, "bad")},
        {"m": [said(1, "c"), "and so on"], "y": said(2, "good"), "n": said(2, "bad")},
        {"m": [said(1, "c"), said(0, "late")], "y": said(2, "good"), "n": said(2, "bad")},
        {"m": [said(2, "first"), said(1, "c")], "y": said(2, "good"), "n": said(2, "bad")},
        {"m": [], "y": said(2, "good"), "n": said(2, "bad")},
    ]
    built = _table(tmp_path, rows, prompt="m", chosen="y", rejected="n")
    assert built.pairs[0].prompt == (
        Message("system", "S"), Message("user", "a"), Message("assistant", "b"), Message("user", "c"),
    )  # fmt: skip
    assert [(pair.chosen, pair.rejected) for pair in built.pairs] == [("good", "bad")] * 2
    assert built.dropped == {
        "wrong type": 3, "turns out of order": 2, "prompt does not end with a user turn": 2,
    }  # fmt: skip


def test_table_of_whole_conversations(tmp_path: Path) -> None:
    def said(*turns: str) -> list[dict[str, str]]:
        return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]

    rows = [
        {"good": said("a", "b", "c", "yes"), "bad": said("a", "b", "c", "no")},
        {"good": said("a", "yes"), "bad": said("z", "no")},
        {"good": said("a", "yes"), "bad": said("no")},
        {"good": said("a", "yes", "b"), "bad": said("a", "no", "b")},
    ]
    built = _table(tmp_path, rows, prompt="good", chosen="good", rejected="bad")
    (pair,) = built.pairs
    assert pair.prompt == (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
    assert (pair.chosen, pair.rejected) == ("yes", "no")
    assert built.dropped == {"prompts differ": 2, "wrong type": 1}


def test_table_names_the_nearest_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'answr'.*did you mean 'answer'"):
        _table(tmp_path, [{"q": "a", "answer": "b", "bad": "c"}], prompt="q", chosen="answr", rejected="bad")


def test_a_group_is_a_name_or_a_number(tmp_path: Path) -> None:
    groups = ["a", 7, 7.5, " a ", "", "\ud800", None, [1], float("inf")]
    rows = [{"q": f"Why {i}?", "y": "Because", "n": "No", "g": group} for i, group in enumerate(groups)]
    built = _table(tmp_path, rows, prompt="q", chosen="y", rejected="n", group="g")
    assert [pair.group for pair in built.pairs[:4]] == ["a", "7", "7.5", "a"]
    assert len(built.pairs) == 5 and len(built.pairs[4].group) == 32  # no name: the question's own
    assert built.dropped == {"broken unicode": 1, "missing value": 1, "wrong type": 2}


def test_a_long_row_is_dropped_and_speaks_not_against_the_file(tmp_path: Path) -> None:
    rows = [GOOD, {**GOOD, "system": "s" * 30, "question": "q" * 30, "chosen": "c" * 30, "rejected": "r" * 10}]
    assert len(_orca(tmp_path, rows, max_chars=100).pairs) == 2
    assert _orca(tmp_path, rows, max_chars=99, max_malformed=0.0).dropped == {"too long": 1}
    huge = [GOOD, {**GOOD, "chosen": "word " * 200_000}, {**GOOD, "rejected": "x" * 50_000_000}]
    assert _orca(tmp_path, huge, max_malformed=0.0).dropped == {"too long": 2}


def test_drafts_wait_for_their_answers() -> None:
    spec = OrcaSource(kind="orca", id="x", max_chars=20)
    made = draft(_user("Why?"), "", spec=spec, name="s", group="g")
    assert made == Pair(_user("Why?"), "", "", domain="general", source="s", group="g")
    with_reference = draft(_user("Why?"), "Because.", spec=spec, name="s")
    assert (with_reference.chosen, with_reference.rejected) == ("Because.", "")
    assert with_reference.group == pair(_user("Why?"), "a", "b", spec=spec, name="s").group
    for prompt, reference, reason in (
        (_user("Why?"), "x" * 17, "too long"),
        (_user(""), "x", "empty prompt"),
        ((Message("system", "x"),), "x", "prompt does not end with a user turn"),
    ):
        with pytest.raises(Dropped) as caught:
            draft(prompt, reference, spec=spec, name="s")
        assert caught.value.reason == reason and caught.value.malformed == (reason != "too long")


def test_parquet_of_other_types_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    text = pyarrow.array(["Because.", "Because.", None, "Because."])
    columns = {"question": pyarrow.array(["a", "b", "c", "d"]).dictionary_encode(), "system": pyarrow.nulls(4)}
    sound = {**columns, "chosen": text.cast(pyarrow.large_string()), "rejected": pyarrow.array(["x"] * 4)}
    pyarrow.parquet.write_table(pyarrow.table(sound), path)
    built = build("s", OrcaSource(kind="orca", id=str(path), max_malformed=0.25))
    assert [pair.prompt for pair in built.pairs] == [_user("a"), _user("b"), _user("d")]
    assert built.dropped == {"missing value": 1}
    for wrong in (pyarrow.array([1, 2, 3, 4]), pyarrow.array([["x"]] * 4), pyarrow.array([{"a": "x"}] * 4)):
        pyarrow.parquet.write_table(pyarrow.table({**sound, "rejected": wrong}), path)
        with pytest.raises(InputError, match="4 of 4 rows are malformed") as caught:
            build("s", OrcaSource(kind="orca", id=str(path)))
        assert "where text belongs" in str(caught.value) and "\n" not in str(caught.value)


def test_the_embedded_world_in_the_columns_of_orca() -> None:
    built = build("general", OrcaSource(kind="orca", id="pocket", rows=40))
    world = build("general", PocketSource(kind="pocket", domain="general", rows=40))
    assert built == world and {pair.group.split(":")[0] for pair in built.pairs} == {"general"}
    for spec in (
        HhSource(kind="hh", id="pocket"),
        TableSource(kind="table", domain="d", id="pocket", columns=Columns(prompt="q", chosen="a", rejected="b")),
    ):
        with pytest.raises(InputError, match="source s: id: the embedded world has no rows of this kind"):
            build("s", spec)


@pytest.mark.parametrize("domain", ["general", "finance", "reddit"])
def test_pocket(domain: Any) -> None:
    built = build("p", PocketSource(kind="pocket", domain=domain, rows=60))
    assert built == build("p", PocketSource(kind="pocket", domain=domain, rows=60))
    assert built.rows == 60 == len(built.pairs) + sum(built.dropped.values())
    assert {pair.domain for pair in built.pairs} == {domain}
    assert all(pair.group.startswith(domain) and pair.prompt[-1].role == "user" for pair in built.pairs)


def test_pocket_posts_need_a_real_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def comment(post: str, body: str, score: float, share: float) -> dict[str, Any]:
        texts = {"id": post, "title": "T", "selftext": f"text {post}", "group": f"g{post}"}
        return {**texts, "body": body, "combined_score": score, "comment_normalized_score": share}

    rows = [
        comment("1", "worst", 2.0, 0.1), comment("1", "best", 9.0, 0.9), comment("1", "middle", 4.0, 0.5),
        comment("2", "a", 4.0, 0.1), comment("2", "b", 7.0, 0.9),  # ratio below 2
        comment("3", "a", 1.0, 0.5), comment("3", "b", 9.0, 0.6),  # close in rank
        comment("4", "alone", 9.0, 0.9),
    ]  # fmt: skip
    monkeypatch.setattr("equipoise.pocket.world.rows", lambda *_, **__: rows)
    built = build("p", PocketSource(kind="pocket", domain="reddit"))
    assert [(p.prompt, p.chosen, p.rejected, p.group) for p in built.pairs] == [
        (_user("T\n\ntext 1"), "best", "worst", "g1")
    ]
    assert built.dropped == {"further comments of a post": 4, "no pair in this post": 3}
