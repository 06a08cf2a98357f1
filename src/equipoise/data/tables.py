"""Pairs as Parquet, with columns that other tools read: id, domain, source, group, prompt, chosen, rejected, gaps."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from equipoise.records import InputError, Message, Pair, chat
from equipoise.run_folder import write_bytes

_TEXT = pyarrow.string()
SCHEMA = pyarrow.schema(
    [
        ("id", _TEXT),
        ("domain", _TEXT),
        ("source", _TEXT),
        ("group", _TEXT),
        ("prompt", pyarrow.list_(pyarrow.struct([("role", _TEXT), ("content", _TEXT)]))),
        ("chosen", _TEXT),
        ("rejected", _TEXT),
        ("score_gap", pyarrow.float64()),
        ("reward_gap", pyarrow.float64()),
    ]
)
_GAPS = ("score_gap", "reward_gap")


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write pairs, whole or not at all; raises OSError where the disk does not take them."""
    rows = [
        {
            "id": pair.id,
            "domain": pair.domain,
            "source": pair.source,
            "group": pair.group,
            "prompt": chat(pair.prompt),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
            "score_gap": pair.score_gap,
            "reward_gap": pair.reward_gap,
        }
        for pair in pairs
    ]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=SCHEMA), buffer, compression="zstd")
    write_bytes(path, buffer.getvalue())


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs back; raises InputError where the file is missing, damaged, or its pairs were changed."""
    try:
        table = pyarrow.parquet.read_table(io.BytesIO(path.read_bytes()))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is this a run folder?") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    older = pyarrow.schema([field for field in SCHEMA if field.name not in _GAPS])
    if not (table.schema.equals(SCHEMA) or table.schema.equals(older)):
        raise InputError(f"{path}: not a file of pairs; it has the columns {', '.join(table.column_names)}")
    return [_pair(row, path) for row in table.to_pylist()]


def _pair(row: dict[str, Any], path: Path) -> Pair:
    fields = {name: row[name] for name in ("chosen", "rejected", "domain", "source", "group")}
    fields |= {name: row.get(name) for name in _GAPS}
    prompt = tuple(Message(**message) for message in row["prompt"])
    pair = Pair(prompt=prompt, **fields)
    if pair.id != row["id"]:
        raise InputError(f"{path}: pair {row['id']} does not have the content of its id; the file was changed")
    return pair
