"""Reading rows: every format, every kind of damage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from equipoise.data.read import data_files, read_rows, require_columns
from equipoise.records import InputError

ROWS = [{"question": "Grüße?\u2028x", "answer": 'a, "b"\nc'}, {"question": "2", "answer": "x" * 300_000}]


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]]) -> bytes:
    quoted = [",".join('"' + str(v).replace('"', '""') + '"' for v in row.values()) for row in rows]
    return ("question,answer\n" + "\n".join(quoted) + "\n").encode()


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


FORMATS = {
    ".json": lambda rows: json.dumps(rows).encode(),
    ".jsonl": _lines,
    ".csv": _csv,
    ".parquet": _parquet,
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"rows{suffix}{'.gz' * zipped}"
    data = FORMATS[suffix](ROWS)
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert read_rows(str(path)) == ROWS


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'{"data": [{"a": 1}, {"a": 2}]}', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
    ],
)
def test_shapes_of_json(tmp_path: Path, content: bytes, rows: list[dict[str, int]]) -> None:
    (tmp_path / "x.json").write_bytes(content)
    assert read_rows(str(tmp_path / "x.json")) == rows


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.jsonl", b'{"a": 1}\n\n{"a": \n', r"x\.jsonl:3: not JSON"),
        ("x.jsonl", b'{"a": 1}\n[1, 2]\n', r"x\.jsonl:2: a row is an object of columns, this is list"),
        ("x.json", b'[{"a": 1},\n 7]', r"entry 2: a row is an object of columns, this is int"),
        ("x.json", b'[{"a": 1},\n{"a": }]', r"x\.json:2: not JSON"),
        ("x.json", b"[" * 100_000, "nested too deeply"),
        ("x.json", b'[{"a": ' + b"9" * 5000 + b"}]", "cannot be read"),
        ("x.json", '[{"a": 1}]'.encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("x.jsonl", b"\n \n", "no rows in it"),
        ("x.json", b"[]", "no rows in it"),
        ("x.csv", b"a,b\n", "no rows in it"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", r"x\.csv:3: more fields"),
        ("x.csv", b"a,a\n1,2\n", "two columns have the same name"),
        ("x.csv", b'a,b\n"1,2\n', r"not CSV"),
        ("x.parquet", b"PAR1 and no more", "not a readable Parquet file"),
        ("x.txt", b"hello", "unknown kind of file; known: .json, .jsonl"),
        ("x.jsonl.gz", b"no gzip at all", "damaged or incomplete gzip"),
        ("x.jsonl.gz", gzip.compress(_lines(ROWS) * 9)[:-300], "damaged or incomplete gzip"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_rows(str(path), what="source general")
    assert str(caught.value).startswith(f"source general: {path}")
    assert "\n" not in str(caught.value)


def test_bytes_that_are_not_utf8_do_not_take_the_file_with_them(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"a": "Zürich"}\n'.encode() + '{"a": "Zürich"}\n'.encode("latin-1"))
    assert [row["a"] for row in read_rows(str(path))] == ["Zürich", "Z\udcfcrich"]


def test_missing_files_and_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for id in ("gone.jsonl", "./gone", "a/b/c", "/nowhere/at/all"):
        with pytest.raises(InputError, match="no such file or folder"):
            read_rows(id)
    assert data_files("Intel/orca_dpo_pairs") is None
    with pytest.raises(InputError, match="offline, give the path of a local folder") as caught:
        read_rows("Intel/orca_dpo_pairs", what="source general")
    assert "\n" not in str(caught.value)


def _folder(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        suffix = "." + name.split(".", 1)[1].removesuffix(".gz")
        data = FORMATS.get(suffix, _lines)([{"name": name}])
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("names", "split", "found"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"],
         "train", ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]),
        (["data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"],
         "train_sft", ["data/train_sft-00000-of-00001.parquet"]),
        (["harmless/train.jsonl.gz", "helpful/train.jsonl.gz", "harmless/test.jsonl.gz"],
         "train", ["harmless/train.jsonl.gz", "helpful/train.jsonl.gz"]),
        (["dev.jsonl", "train.jsonl"], "validation", ["dev.jsonl"]),
        (["orca_rlhf.jsonl", "README.md", ".cache/x.jsonl", "dataset_infos.json"], "train", ["orca_rlhf.jsonl"]),
        (["train/part.json"], "train", ["train/part.json"]),
    ],
)  # fmt: skip
def test_folder_in_the_hubs_layout(tmp_path: Path, names: list[str], split: str, found: list[str]) -> None:
    assert [row["name"] for row in read_rows(_folder(tmp_path, *names), split=split)] == found


@pytest.mark.parametrize(
    ("names", "split", "said"),
    [
        (["train.jsonl"], "test", r"no file of split 'test'; `split` can be train; there are train\.jsonl"),
        (["a.jsonl", "b.jsonl"], "train", r"name one of the files; there are a\.jsonl, b\.jsonl"),
        (["notes.md"], "train", "no data files in it"),
    ],
)
def test_folder_without_the_split(tmp_path: Path, names: list[str], split: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_rows(_folder(tmp_path, *names), split=split)


def test_missing_column_names_what_is_there_and_the_nearest() -> None:
    rows = [{"instruction": "a"}, {"instruction": "b", "response": "c"}]
    require_columns(rows, ["instruction", "response"], "source x: f.jsonl")
    with pytest.raises(
        InputError, match=r"x: no column 'responses'; there are 'instruction', 'response'; did you mean"
    ):
        require_columns(rows, ["instruction", "responses"], "x")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from([*FORMATS, ".jsonl.gz", ".parquet.gz"]))
def test_any_bytes_give_rows_or_an_input_error(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(content)
    try:
        rows = read_rows(str(path))
    except InputError as error:
        assert str(error)
    else:
        assert rows and all(isinstance(row, dict) for row in rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".parquet", ".jsonl", ".csv", ".json"]))
def test_damaged_files_give_rows_or_an_input_error(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    good = bytearray(FORMATS[suffix]([{"question": f"q{i}", "answer": "a"} for i in range(5)]))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(good)
    try:
        assert read_rows(str(path))
    except InputError as error:
        assert str(error)
