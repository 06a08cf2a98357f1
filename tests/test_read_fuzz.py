"""Whatever stands in a file: rows, a counted drop, or one line that names the file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.data.read import read_rows
from equipoise.data.sources import KINDS, build
from equipoise.recipe import (
    FinanceInstructSource,
    HhSource,
    OnPolicySource,
    OrcaSource,
    RedditSource,
    TableSource,
)
from equipoise.records import InputError
from test_data_read import FORMATS

SUFFIXES = [suffix + zipped for suffix in FORMATS for zipped in ("", ".gz")]
ROWS = [{"question": f"Grüße {i}?\n", "answer": 'a, "b"; c' * i} for i in range(5)]


def quick(examples: int) -> Any:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _rows_or_one_line(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        rows = read_rows(str(path), what="source general")
    except InputError as error:
        assert str(error).startswith(f"source general: {path}") and len(str(error).splitlines()) == 1
        str(error).encode()
    else:
        assert rows and all(isinstance(row, dict) and all(isinstance(name, str) for name in row) for row in rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
@quick(25)
@given(content=st.binary(max_size=200))
def test_any_bytes(tmp_path: Path, suffix: str, content: bytes) -> None:
    _rows_or_one_line(tmp_path / f"fuzz{suffix}", content)


EDITS = st.lists(
    st.tuples(st.sampled_from(["put", "insert", "cut", "repeat"]), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


def _edited(content: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, said in edits:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        content = {
            "put": before + said + after[len(said) :],
            "insert": before + said + after,
            "cut": before,
            "repeat": before + after[:50] + after,
        }[kind]
    return content


@pytest.mark.parametrize("suffix", SUFFIXES)
@quick(25)
@given(edits=EDITS, inside=st.booleans())
def test_damaged_files(tmp_path: Path, suffix: str, edits: list[tuple[str, float, bytes]], inside: bool) -> None:
    content = FORMATS[suffix.removesuffix(".gz")](ROWS)
    if not suffix.endswith(".gz"):
        content = _edited(content, edits)
    elif inside:
        content = gzip.compress(_edited(content, edits))
    else:
        content = _edited(gzip.compress(content), edits)
    _rows_or_one_line(tmp_path / f"fuzz{suffix}", content)


NAMES = ("role", "from", "content", "value")
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
"""With every character that Python has: NUL, lone surrogates, line separators."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(["user", "assistant", "system"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=6,
)
SAID = st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " money ", "12%", "\n"]) | TEXTS
LIKELY = VALUES | st.lists(SAID, max_size=6).map("".join) | st.sampled_from(["1", 2, "p1", 0.5, "s" * 200])
TALK = "\n\nHuman: Hi\n\nAssistant: Yes\n\nHuman: Why?\n\nAssistant: "
COMMENT = {"title": "My fund", "selftext": "It lost money.", "subreddit": "funds"}
EACH: dict[str, tuple[Any, list[dict[str, Any]], dict[str, Any]]] = {
    "orca": (OrcaSource, [{"system": "", "question": "Why?", "chosen": "Because.", "rejected": "No"}], {}),
    "hh": (HhSource, [{"chosen": TALK + "Because.", "rejected": TALK + "No."}], {}),
    "table": (
        TableSource,
        [{"p": "Why?", "a": "Because.", "b": "No", "l": 2, "s": None, "g": 7}],
        {"columns": {"prompt": "p", "first": "a", "second": "b", "label": "l", "system": "s", "group": "g"}},
    ),
    "reddit": (
        RedditSource,
        [
            {"id": "1", **COMMENT, "body": "Hold it for years.", "comment_normalized_score": 0.9},
            {"id": "1", **COMMENT, "body": "Sell all of it now.", "comment_normalized_score": 0.1},
        ],
        {"min_post_chars": 0, "min_comment_chars": 1, "balance_length": False},
    ),
    "finance_instruct": (
        FinanceInstructSource,
        [{"system": "", "user": "How much money is left?", "assistant": "There are $120 million left.", "group": "g"}],
        {"rejected": "corrupted"},
    ),
    "on_policy": (
        OnPolicySource,
        [{"p": "Why?", "s": "Be kind.", "g": "g"}],
        {"columns": {"prompt": "p", "system": "s", "group": "g"}},
    ),
}
"""For each kind its class, rows that make one pair, and options."""
COLUMNS = [(kind, name) for kind, (_, rows, _) in EACH.items() for name in rows[0]]


def test_every_kind_that_reads_rows_is_here() -> None:
    assert set(EACH) == set(KINDS) - {"pocket", "mt_bench_style"}


@pytest.mark.parametrize(("kind", "column"), COLUMNS)
@quick(12)
@given(values=st.lists(LIKELY, min_size=1, max_size=6), alone=st.booleans())
def test_any_value_is_a_pair_or_a_counted_drop(
    tmp_path: Path, kind: str, column: str, values: list[Any], alone: bool
) -> None:
    make, good, options = EACH[kind]
    rows = ([] if alone else good) + [{**good[0], column: value} for value in values]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    always = {"kind": kind, "id": str(path), "domain": "d", "max_malformed": 1.0, "max_chars": 300}
    try:
        built = build("s", make.model_validate({**always, **options}))
    except InputError as error:
        assert str(error).startswith("source s: none of") and len(str(error).splitlines()) == 1
        assert alone or kind == "reddit"  # there every row counts for what a real gap is
        return
    assert built.rows == len(rows) == len(built.pairs) + sum(built.dropped.values())
    answered = kind != "on_policy"  # its drafts have no answers yet
    for pair in built.pairs:
        for said in (*(message.content for message in pair.prompt), pair.chosen, pair.rejected, pair.group):
            said.encode()
        assert pair.prompt[-1].role == "user" and pair.prompt[-1].content and pair.group
        assert bool(pair.chosen) == bool(pair.rejected) == answered == (pair.chosen != pair.rejected)
