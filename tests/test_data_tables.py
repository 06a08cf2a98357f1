"""Pairs as Parquet: what is written is what is read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.data.kept import Pool, pack, unpack
from equipoise.data.ledger import SourceLine, lengths, spread_of
from equipoise.data.tables import SCHEMA, read_pairs, write_pairs
from equipoise.records import InputError, Message, Pair

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PAIRS = st.builds(
    Pair,
    prompt=st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), max_size=4).map(tuple),
    chosen=TEXT, rejected=TEXT, domain=TEXT, source=TEXT, group=TEXT,
    score_gap=st.none() | st.floats(0, 9), reward_gap=st.none() | st.floats(0, 9),
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=st.lists(PAIRS, max_size=5))
def test_round_trip(tmp_path: Path, pairs: list[Pair]) -> None:
    path = tmp_path / "pairs.parquet"
    write_pairs(path, pairs)
    first = path.read_bytes()
    assert read_pairs(path) == pairs
    write_pairs(path, pairs)
    assert path.read_bytes() == first


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    pair = Pair((Message("user", "hi"),), "a", "b", "d", "s", "g", score_gap=0.25)
    write_pairs(tmp_path / "pairs.parquet", [pair])
    assert polars.read_parquet(tmp_path / "pairs.parquet").to_dicts() == [
        {"id": pair.id, "domain": "d", "source": "s", "group": "g", "prompt": [{"role": "user", "content": "hi"}],
         "chosen": "a", "rejected": "b", "score_gap": 0.25, "reward_gap": None}
    ]  # fmt: skip


def test_files_of_an_earlier_version_have_no_gaps(tmp_path: Path) -> None:
    pair = Pair((Message("user", "hi"),), "a", "b", "d", "s", "g")
    write_pairs(tmp_path / "new.parquet", [pair])
    table = pyarrow.parquet.read_table(tmp_path / "new.parquet").drop_columns(["score_gap", "reward_gap"])
    pyarrow.parquet.write_table(table, tmp_path / "old.parquet")
    assert read_pairs(tmp_path / "old.parquet") == [pair]


@settings(max_examples=40, deadline=None)
@given(pairs=st.lists(PAIRS, max_size=5), held_out=st.lists(PAIRS, max_size=3))
def test_a_kept_source_comes_back_as_it_was(pairs: list[Pair], held_out: list[Pair]) -> None:
    own = [[replace(pair, source="s", domain="d") for pair in side] for side in (pairs, held_out)]
    line = SourceLine(
        9, {"tie": 1}, {}, len(pairs), lengths(own[0]), held_out=len(held_out), score_gaps=spread_of([1.0])
    )
    pool = Pool(*own, line)
    assert unpack(pack(pool), source="s", domain="d") == pool
    assert pack(unpack(pack(pool), source="s", domain="d")) == pack(pool)


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    with pytest.raises(InputError, match="missing"):
        read_pairs(path)
    write_pairs(path, [Pair((Message("user", "hi"),), "a", "b", "d", "s", "g")])
    table = polars.read_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_pairs(path)
    table.select("id", "chosen").write_parquet(path)
    with pytest.raises(InputError, match="not a file of pairs; it has the columns id, chosen"):
        read_pairs(path)
    changed = table.with_columns(chosen=polars.lit("c")).to_dicts()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(changed, schema=SCHEMA), path)
    with pytest.raises(InputError, match="does not have the content of its id"):
        read_pairs(path)
