"""Reading rows: every format, every kind of damage."""

from __future__ import annotations

import gzip
import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from equipoise.data.read import content_of, data_files, iter_rows, read_rows, require_columns, source_rows
from equipoise.recipe import OrcaSource
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
    path.write_bytes(gzip.compress(data, mtime=0) if zipped else data)
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
        ("x.json", '[{"a": 1}]'.encode("utf-16"), "UTF-16, or no text at all; save it as UTF-8"),
        ("x.jsonl", '{"a": 1}'.encode("utf-16-be"), "UTF-16, or no text at all"),
        ("x.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16, or no text at all"),
        ("x.csv.gz", gzip.compress("a,b\n1,2\n".encode("utf-16-le"), mtime=0), "UTF-16, or no text at all"),
        ("x.jsonl", b'{"a": 1}\n{"a": 1, "b": {"c": 2, "c": 3}}\n', r"x\.jsonl:2: .*'c' stands twice in one object"),
        ("x.json", b"", "no rows in it"),
        ("x.jsonl.gz", b"", "no rows in it"),
        ("x.csv", b"", "no rows in it"),
        ("x.parquet", b"", "not a readable table"),
        ("x.jsonl", b"\n \n", "no rows in it"),
        ("x.json", b"[]", "no rows in it"),
        ("x.csv", b"a,b\n", "no rows in it"),
        ("x.csv", b"a,b\n1,2\n1,2,3\n", r"x\.csv:3: more fields"),
        ("x.csv", b"a,a\n1,2\n", "two columns have the same name"),
        ("x.csv", b'a,b\n"1,2\n', r"not CSV"),
        ("x.csv", b'a,b\n1,"2"3\n', r"x\.csv:2: not CSV"),
        ("x.csv", b"question;answer\n1;2\n", r"x\.csv:1: the columns are not divided by commas"),
        ("x.csv", b"question\tanswer\n1\t2\n", r"x\.csv:1: the columns are not divided by commas"),
        ("x.parquet", b"PAR1 and no more", "not a readable table"),
        ("x.parquet.gz", gzip.compress(b"PAR1 and no more", mtime=0), "not a readable table"),
        ("x.txt", b"hello", "unknown kind of file; known: .json, .jsonl"),
        ("x.jsonl.gz", b"no gzip at all", "damaged or incomplete gzip"),
        ("x.jsonl.gz", gzip.compress(_lines(ROWS) * 9, mtime=0)[:-300], "damaged or incomplete gzip"),
        ("x.jsonl.gz", gzip.compress(_lines(ROWS), mtime=0)[:-8] + b"12345678", "damaged or incomplete gzip"),
        ("x.parquet.gz", gzip.compress(_parquet(ROWS), mtime=0)[:-300], "damaged or incomplete gzip"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_rows(str(path), what="source general")
    assert str(caught.value).startswith(f"source general: {path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".json"])
def test_bytes_that_are_not_utf8_do_not_take_the_file_with_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    rows = {
        ".jsonl": ['{"a": "Zürich"}\n', '{"a": "Zürich"}\n'],
        ".json": ['[{"a": "Zürich"},', '{"a": "Zürich"}]'],
        ".csv": ["a\nZürich\n", "Zürich\n"],
    }[suffix]
    path.write_bytes(b"\xef\xbb\xbf" + rows[0].encode() + rows[1].encode("latin-1"))
    assert [row["a"] for row in read_rows(str(path))] == ["Zürich", "Z\udcfcrich"]


def test_what_other_programs_write(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": NaN}\n{"a": -Infinity}\r\n\n{"a": "\\ud83d"}')
    first, *others = read_rows(str(tmp_path / "x.jsonl"))
    assert math.isnan(first["a"]) and others == [{"a": -math.inf}, {"a": "\ud83d"}]
    (tmp_path / "x.csv").write_bytes(b'a,b\r\n"1\n2",3\r\n\r\n4\r\n')
    assert read_rows(str(tmp_path / "x.csv")) == [{"a": "1\n2", "b": "3"}, {"a": "4", "b": None}]


def test_parquet_of_any_types(tmp_path: Path) -> None:
    words = pyarrow.array(["x", "y", "x", None])
    columns = {
        "text": words,
        "large": words.cast(pyarrow.large_string()),
        "coded": words.dictionary_encode(),
        "number": pyarrow.array([1, 2, 3, None]),
        "nested": pyarrow.array([[{"role": "user"}], [], None, [{"role": None}]]),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    rows = read_rows(str(tmp_path / "x.parquet"))
    assert rows[0] == {"text": "x", "large": "x", "coded": "x", "number": 1, "nested": [{"role": "user"}]}
    assert [row["coded"] for row in rows] == ["x", "y", "x", None]
    twice = pyarrow.Table.from_arrays([words, words], names=["a", "a"])
    pyarrow.parquet.write_table(twice, tmp_path / "twice.parquet")
    latin = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"Z\xfcrich"]).buffers())
    pyarrow.parquet.write_table(pyarrow.table({"a": latin}), tmp_path / "latin.parquet")
    for name, said in (("twice", "two columns have the same name: 'a', 'a'"), ("latin", "not a readable table")):
        with pytest.raises(InputError, match=said) as caught:
            read_rows(str(tmp_path / f"{name}.parquet"))
        assert "\n" not in str(caught.value)


def test_rows_come_before_the_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    rows = iter_rows(str(path))
    assert [next(rows), next(rows)] == [{"a": 1}, {"a": 2}]
    with pytest.raises(InputError, match=r"x\.jsonl:3: not JSON"):
        next(rows)
    assert list(source_rows("s", _orca(path, rows=2), ["a"], None)) == [{"a": 1}, {"a": 2}]


def _orca(id: Path | str, **keys: Any) -> OrcaSource:
    return OrcaSource(kind="orca", id=str(id), **keys)


def test_a_source_misses_a_column_only_where_no_row_has_it(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"b": 3, "answer": 4}\n')
    assert len(list(source_rows("s", _orca(path), ["a", "b"], None))) == 3
    with pytest.raises(InputError, match=rf"^source s: {path}: no column 'b'; there are 'a'$"):
        list(source_rows("s", _orca(path, rows=2), ["a", "b"], None))
    rows = source_rows("s", _orca(path), ["a", "answr"], None)
    assert [next(rows), next(rows), next(rows)][2] == {"b": 3, "answer": 4}
    with pytest.raises(InputError, match=r"no column 'answr'; there are 'a', 'b', 'answer'; did you mean 'answer'\?"):
        next(rows)
    path.write_text("\n")
    with pytest.raises(InputError, match=rf"^source s: {path}: no rows in it"):
        list(source_rows("s", _orca(path), ["a"], None))
    with pytest.raises(InputError, match="no such file or folder"):
        source_rows("s", _orca(tmp_path / "gone.jsonl"), ["a"], None)  # before any row is taken


def test_rows_of_the_embedded_world() -> None:
    rows = list(source_rows("s", _orca("pocket", rows=3), ["question"], "general"))
    assert len(rows) == 3 and rows == list(source_rows("s", _orca("pocket"), ["question"], "general"))[:3]
    with pytest.raises(InputError, match=r"^source s: id: the embedded world has no rows of this kind"):
        source_rows("s", _orca("pocket"), ["question"], None)


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
        (tmp_path / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
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


def test_folders_that_are_hard_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "x.jsonl"  # a folder with the name of a file
    _folder(folder, "train/a.jsonl")
    (folder / "train" / "round").symlink_to(folder)
    (folder / "self.jsonl").symlink_to(folder / "self.jsonl")
    (folder / "more_train.jsonl").mkdir()
    assert read_rows(str(folder)) == [{"name": "train/a.jsonl"}]
    for id in (folder / "self.jsonl", "~nobody-of-this-name/x", "a" * 5000):
        with pytest.raises(InputError) as caught:
            read_rows(str(id))
        assert "\n" not in str(caught.value)
    (folder / "train" / "b.jsonl").symlink_to("/proc/self/mem")  # opens, and then cannot be read
    with pytest.raises(InputError, match=r"train/b\.jsonl: cannot be read"):
        read_rows(str(folder))


@pytest.fixture
def nobody() -> Iterator[Path]:
    """An empty folder; until the end of the test this process has no more rights than anybody."""
    with tempfile.TemporaryDirectory() as name:
        folder, user = Path(name), os.geteuid()
        folder.chmod(0o777)
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            for path in folder.rglob("*"):
                path.chmod(0o700)


def test_no_permission(nobody: Path) -> None:
    _folder(nobody, "train.jsonl", "closed/train.jsonl", ".git/train.jsonl")
    (nobody / ".git").chmod(0)
    assert read_rows(str(nobody)) == [{"name": "closed/train.jsonl"}, {"name": "train.jsonl"}]
    (nobody / "closed").chmod(0)
    for id in (nobody, nobody / "closed", nobody / "closed" / "train.jsonl"):
        with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)"):
            read_rows(str(id))
    (nobody / "closed").chmod(0o700)
    (nobody / "train.jsonl").chmod(0)
    for reader in (read_rows, content_of):
        with pytest.raises(InputError, match=r"/train\.jsonl: cannot be read \(Permission denied\)"):
            reader(str(nobody))


def test_missing_column_names_what_is_there_and_the_nearest() -> None:
    rows = [{"instruction": "a"}, {"instruction": "b", "response": "c"}]
    require_columns(rows, ["instruction", "response"], "source x: f.jsonl")
    with pytest.raises(
        InputError, match=r"x: no column 'responses'; there are 'instruction', 'response'; did you mean"
    ):
        require_columns(rows, ["instruction", "responses"], "x")
