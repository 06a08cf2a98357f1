"""Reading one data file into rows: JSON, JSON lines, Parquet, CSV, each also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.parquet

from equipoise.records import InputError

Row = dict[str, Any]
csv.field_size_limit(2**31 - 1)  # the standard library's 128 kB is less than one long answer


def file_kind(path: Path) -> str:
    """The suffix that says how a file is written, `.gz` left out: `.jsonl` of `train.jsonl.gz`."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_file(path: Path, what: str = "data") -> list[Row]:
    """All rows of one file; raises InputError with file, line and advice where it cannot be read."""
    where = f"{what}: {path}"
    reader = _READERS.get(file_kind(path))
    if reader is None:
        raise InputError(f"{where}: unknown kind of file; known: {', '.join(SUFFIXES)} (also .gz)")
    try:
        with _open(path) as file:
            return list(reader(file, where))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where}: damaged or incomplete gzip ({error}); fetch the file again") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix.lower() == ".gz" else path.open("rb")


def _json(file: BinaryIO, where: str) -> Iterator[Row]:
    data = file.read()
    if not data.strip():
        return
    try:
        document = _parse(data, where)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise InputError(f"{where}:{error.lineno}: not JSON ({error.msg}); correct this line") from None
        # Many files of the hub are called .json and hold one object per line.
        yield from _json_lines(io.BytesIO(data), where)
        return
    rows = document if isinstance(document, list) else _rows_of_object(document)
    for number, row in enumerate(rows, 1):
        yield _object(row, f"{where}: entry {number}")


def _json_lines(file: BinaryIO, where: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = _parse(line, f"{where}:{number}")
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{number}: not JSON ({error.msg}); correct this line") from None
        yield _object(row, f"{where}:{number}")


def _parse(data: bytes, where: str) -> Any:
    """JSON of bytes; raises JSONDecodeError where they are none, InputError where they go beyond it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{where}: the text is UTF-16; save it as UTF-8")
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return json.loads(text)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply to be read") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a number of more digits than Python converts
        raise InputError(f"{where}: cannot be read ({error})") from None


def _rows_of_object(document: Any) -> list[Any]:
    """`{"data": [{...}, ...]}` wraps its rows; any other object is the only row."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list) and value]
        wrapped = [value for value in lists if all(isinstance(entry, dict) for entry in value)]
        if len(document) == 1 and wrapped:
            return wrapped[0]
    return [document]


def _object(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise InputError(f"{where}: a row is an object of columns, this is {type(row).__name__}")
    return row


def _csv(file: BinaryIO, where: str) -> Iterator[Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.DictReader(text, strict=True, restkey="")
    try:
        names = reader.fieldnames or []
        if len(set(names)) != len(names):
            raise InputError(f"{where}:1: two columns have the same name: {', '.join(names)}")
        for row in reader:
            if isinstance(row.get(""), list):
                raise InputError(f"{where}:{reader.line_num}: more fields than line 1 has columns ({len(names)})")
            yield dict(row)
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV ({error}); correct this line") from None


def _parquet(file: BinaryIO, where: str) -> Iterator[Row]:
    data = io.BytesIO(file.read())
    try:
        for batch in pyarrow.parquet.ParquetFile(data).iter_batches():
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not a readable Parquet file ({str(error).splitlines()[0]})") from None


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".csv": _csv,
}
SUFFIXES = tuple(_READERS)
"""Kinds of files that can be read, each also with `.gz`."""
