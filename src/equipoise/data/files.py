"""Reading one data file into rows: JSON, JSON lines, Parquet, CSV, each also gzipped.

Rows come one at a time, so that a file may be larger than the memory; only a JSON document and a gzipped Parquet file
are read whole. Where a file is damaged in its middle, the rows before the damage come first and then the error.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.parquet

from equipoise.records import InputError

Row = dict[str, Any]
BUFFER = 1 << 20
"""Bytes that are read at a time."""
BATCH = 1000
"""Rows of a table that are made at a time."""
csv.field_size_limit(2**31 - 1)  # the standard library's 128 kB is less than one long answer


def file_kind(path: Path) -> str:
    """The suffix that says how a file is written, `.gz` left out: `.jsonl` of `train.jsonl.gz`."""
    return (Path(path.stem) if _zipped(path) else path).suffix.lower()


def iter_file(path: Path, what: str = "data") -> Iterator[Row]:
    """The rows of one file, one at a time; raises InputError with file, line and advice where it cannot be read."""
    where = f"{what}: {path}"
    reader = _READERS.get(file_kind(path))
    if reader is None:
        raise InputError(f"{where}: unknown kind of file; known: {', '.join(SUFFIXES)} (also .gz)")
    try:
        with _open(path) as file:
            yield from reader(file, where)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{where}: damaged or incomplete gzip ({error}); fetch the file again") from None
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror or error})") from None


def arrow_rows(tables: Iterable[Any], where: str) -> Iterator[Row]:
    """The rows of Arrow tables or batches; raises InputError where they are damaged or hold what Python has not."""
    try:
        for table in tables:
            yield from table.to_pylist()
    except InputError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, LookupError) as error:
        raise InputError(f"{where}: not a readable table ({first_line(error)}); write it again") from None


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _zipped(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _open(path: Path) -> BinaryIO:
    if not _zipped(path):
        return path.open("rb", buffering=BUFFER)
    # A buffer around the gzip file: without it every line is a call of a Python function.
    unzipped = cast(BinaryIO, io.BufferedReader(gzip.GzipFile(path), BUFFER))
    if file_kind(path) != ".parquet":
        return unzipped
    with unzipped:  # Parquet is read from its end, and gzip only from its beginning
        return io.BytesIO(unzipped.read())


def _require_utf8(file: BinaryIO, where: str) -> None:
    """Raises InputError at a UTF-16 or UTF-32 mark, or at the zeros that such a text has without one."""
    start = file.read(4)
    file.seek(0)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start:
        raise InputError(f"{where}: the text is UTF-16, or no text at all; save it as UTF-8")


def _json(file: BinaryIO, where: str) -> Iterator[Row]:
    _require_utf8(file, where)
    data = file.read()
    if not data or data.isspace():
        return
    try:
        document = _parse(data, where)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":
            raise InputError(f"{where}:{error.lineno}: not JSON ({error.msg}); correct this line") from None
        # Many files of the hub are called .json and hold one object per line.
        yield from _rows_of_lines(io.BytesIO(data), where)
        return
    rows = document if isinstance(document, list) else _rows_of_object(document)
    for number, row in enumerate(rows, 1):
        yield row if isinstance(row, dict) else _no_object(row, f"{where}: entry {number}")


def _json_lines(file: BinaryIO, where: str) -> Iterator[Row]:
    _require_utf8(file, where)
    yield from _rows_of_lines(file, where)


def _rows_of_lines(file: BinaryIO, where: str) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            row = _parse(line, f"{where}:{number}")
        except json.JSONDecodeError as error:
            raise InputError(f"{where}:{number}: not JSON ({error.msg}); correct this line") from None
        yield row if isinstance(row, dict) else _no_object(row, f"{where}:{number}")


class _Twice(ValueError):
    """An object says the same name twice; which value is meant, nobody knows."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(f"{next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _parse(data: bytes, where: str) -> Any:
    """JSON of bytes; raises JSONDecodeError where they are none, InputError where they cannot be used."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise InputError(f"{where}: nested too deeply to be read; leave out such values") from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # also a number of more digits than Python converts
        raise InputError(f"{where}: cannot be read ({error}); correct it") from None


def _rows_of_object(document: Any) -> list[Any]:
    """`{"data": [{...}, ...]}` wraps its rows; any other object is the only row."""
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list) and value]
        wrapped = [value for value in lists if all(isinstance(entry, dict) for entry in value)]
        if len(document) == 1 and wrapped:
            return wrapped[0]
    return [document]


def _no_object(row: Any, where: str) -> Row:
    raise InputError(f"{where}: a row is an object of columns, this is {type(row).__name__}")


def _csv(file: BinaryIO, where: str) -> Iterator[Row]:
    _require_utf8(file, where)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) != len(names):
            raise InputError(f"{where}:1: two columns have the same name: {', '.join(map(repr, names))}")
        if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
            raise InputError(f"{where}:1: the columns are not divided by commas; save the file with commas")
        for fields in reader:
            if len(fields) > len(names):
                raise InputError(f"{where}:{reader.line_num}: more fields than line 1 has columns ({len(names)})")
            if fields:
                yield dict(zip_longest(names, fields))
    except csv.Error as error:
        raise InputError(f"{where}:{reader.line_num}: not CSV ({error}); correct this line") from None


def _parquet(file: BinaryIO, where: str) -> Iterator[Row]:
    yield from arrow_rows(_batches(file, where), where)


def _batches(file: BinaryIO, where: str) -> Iterator[Any]:
    opened = pyarrow.parquet.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False)
    names = opened.schema_arrow.names
    if len(set(names)) != len(names):
        raise InputError(f"{where}: two columns have the same name: {', '.join(map(repr, names))}")
    yield from opened.iter_batches(batch_size=BATCH)


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Row]]] = {
    ".json": _json,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
    ".csv": _csv,
}
SUFFIXES = tuple(_READERS)
"""Kinds of files that can be read, each also with `.gz`."""
