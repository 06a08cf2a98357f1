"""One way in for rows: a file, a local folder in the hub's layout, a data set of the hub, or the embedded world.

Sources and evaluation tasks read through this page. Rows are plain dictionaries, as they stand: whether
they make sense is for the reader of the columns to say. Bytes that are not UTF-8 become lone surrogates,
so that one bad row can be counted and dropped instead of taking the file with it.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import xxhash

from equipoise.data.files import BATCH, BUFFER, SUFFIXES, Row, arrow_rows, file_kind, first_line, iter_file
from equipoise.data.hub import from_hub
from equipoise.recipe_sources import FileSource, MtBenchStyleSource
from equipoise.records import InputError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
POCKET = "pocket"
POCKET_ROWS = 1200
"""How many rows the embedded world makes where nothing is said."""
DESCRIPTIONS = ("dataset_infos.json", "dataset_dict.json")
LISTED = 20
"""So many names are listed in an error."""
_SHARD = re.compile(r"^(.+?)-\d{5}-of-\d{5}")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


class SourceRows(Iterator[Row]):
    """Rows of one file after the other, one at a time; `place` says where the last one stands.

    Args:
        parts: each file (or what stands for one) with its rows.
        most: take the first so many; None takes all.
        required: columns that some row must have.
        where: begins every error.
    """

    def __init__(
        self, parts: Iterable[tuple[str, Iterable[Row]]], most: int | None, required: Sequence[str], where: str
    ) -> None:
        self._rows = _watched(islice(self._every(parts), most), required, where)
        self._part, self._row = "", 0

    def __next__(self) -> Row:
        return next(self._rows)

    @property
    def place(self) -> str:
        """File and row of it, counted from 1, of the last row that was taken."""
        return f"{self._part}: row {self._row}"

    def _every(self, parts: Iterable[tuple[str, Iterable[Row]]]) -> Iterator[Row]:
        for part, rows in parts:
            self._part, self._row = part, 0
            for row in rows:
                self._row += 1
                yield row


def source_rows(
    name: str, spec: FileSource | MtBenchStyleSource, required: Sequence[str], pocket: str | None
) -> SourceRows:
    """The rows of a source, one at a time: its first `spec.rows`, or all.

    Args:
        name: name of the source; begins every error.
        spec: its part of the recipe; `id: pocket` stands for the embedded world.
        required: columns that some row must have.
        pocket: kind of the world's rows that has these columns; None where the world has no such rows.

    Raises InputError, in one line: at once where there is nothing to read; while rows are taken where one cannot be
    read; after the last row where there was none, or none of them had a required column.
    """
    where, id = f"source {name}", str(spec.id)
    if id == POCKET:
        parts: Iterable[tuple[str, Iterable[Row]]] = [(id, _from_pocket(pocket, spec.rows or POCKET_ROWS, where))]
    else:
        parts = _parts(id, spec.revision, spec.split, where)
    return SourceRows(parts, spec.rows, required, f"{where}: {id}")


def read_rows(id: str, *, revision: str | None = None, split: str = "train", what: str = "data") -> list[Row]:
    """Return all rows of `id`, in order.

    Args:
        id: a .json, .jsonl, .parquet or .csv file (also .gz), a folder in the hub's layout, or a hub id.
        revision: branch, tag or commit of a hub id.
        split: split of a folder or hub data set; a single file has none.
        what: who asks (`source general`, `task tatqa`); begins every error.

    Raises InputError, in one line, where there is nothing to read, or where it cannot be read.
    """
    return list(_watched(iter_rows(id, revision=revision, split=split, what=what), (), f"{what}: {id}"))


def iter_rows(id: str, *, revision: str | None = None, split: str = "train", what: str = "data") -> Iterator[Row]:
    """The rows that `read_rows` returns, one at a time; there may be none."""
    parts = _parts(id, revision, split, what)
    return (row for _, rows in parts for row in rows)


def _parts(id: str, revision: str | None, split: str, what: str) -> Iterable[tuple[str, Iterable[Row]]]:
    """Each file of `id` with its rows; a data set of the hub is one."""
    files = data_files(id, split=split, what=what)
    if files is not None:
        return ((str(path), iter_file(path, what)) for path in files)
    tables = from_hub(id, revision, split, what).with_format("arrow").iter(batch_size=BATCH)
    return [(id, arrow_rows(tables, f"{what}: {id}"))]


def content_of(id: str, *, revision: str | None = None, split: str = "train", what: str = "data") -> str:
    """Identity of what `read_rows` (or, for `pocket`, the embedded world) gives: other rows have another one.

    For local files it is a hash of their bytes and of their names within the folder, so a copy elsewhere has the
    same; for a data set of the hub it stands for the commit and the split; for the world, for its program.

    Raises InputError, in one line, where there is nothing to read, or where it cannot be read.
    """
    if id == POCKET:
        folder = Path(__file__).parents[1] / POCKET
        return _hash_of(sorted(folder.glob("*.py")), folder, what)
    files = data_files(id, split=split, what=what)
    if files is None:
        # `datasets` makes it of the id, the configuration, the commit and the split, offline as well.
        return xxhash.xxh3_128_hexdigest(f"{id} {from_hub(id, revision, split, what)._fingerprint}".encode())
    path = Path(id).expanduser()
    return _hash_of(files, path if path.is_dir() else path.parent, what)


def data_files(id: str, *, split: str = "train", what: str = "data") -> list[Path] | None:
    """The local files that `id` stands for, or None where it is a hub id.

    In a folder these are the files whose name (or folder's name) contains the split, as on the hub; where no
    name says anything about splits, the folder's only data file. Raises InputError where there is none.
    """
    try:
        path = Path(id).expanduser()
        if path.is_file():
            return [path]
        if path.is_dir():
            return _files_of_split(path, split, what)
    except (OSError, RuntimeError) as error:  # RuntimeError: the home of a user that does not exist
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{what}: {id}: cannot be read ({reason}); correct the path or its permissions") from None
    if file_kind(path) in SUFFIXES or not _HUB_ID.match(id):
        raise InputError(f"{what}: {id}: no such file or folder (looked from {Path.cwd()}); correct the path")
    return None


def require_columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str], where: str) -> None:
    """Raises InputError where no row has one of the columns: which, what there is instead, the nearest."""
    there: dict[str, None] = {}
    for row in rows:
        there.update(dict.fromkeys(row))
        if all(name in there for name in names):
            return
    missing = [name for name in names if name not in there]
    near = difflib.get_close_matches(missing[0], list(there), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = _listed([repr(name) for name in there])
    raise InputError(f"{where}: no column {', '.join(map(repr, missing))}; there are {listed}{hint}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:LISTED], *["..."] * (len(names) > LISTED)])


def _watched(rows: Iterable[Row], required: Sequence[str], where: str) -> Iterator[Row]:
    """The rows as they come; after them an error where there was none, or none had one of the columns."""
    there: dict[str, None] = {}
    missing, empty = set(required), True
    for row in rows:
        empty = False
        if missing:
            there.update(dict.fromkeys(row))
            missing.difference_update(row)
        yield row
    if empty:
        raise InputError(f"{where}: no rows in it; name a file or split that has some")
    if missing:
        require_columns([there], required, where)


def _from_pocket(kind: str | None, count: int, what: str) -> list[Row]:
    if kind is None:
        raise InputError(f"{what}: id: the embedded world has no rows of this kind; name a file, a folder or a hub id")
    rows: list[Row] = importlib.import_module("equipoise.pocket.world").rows(kind, split="train", n=count)
    return rows


def _files_of_split(folder: Path, split: str, what: str) -> list[Path]:
    files = sorted(path for path in _files_below(folder) if _is_data(path))
    if not files:
        raise InputError(f"{what}: {folder}: no data files in it; known: {', '.join(SUFFIXES)} (also .gz)")
    splits = {path: _splits_named(path.relative_to(folder)) for path in files}
    found = [path for path in files if split in splits[path]]
    if found:
        return found
    named = sorted(set().union(*splits.values()))
    if not named and len(files) == 1:
        return files
    listed = _listed([str(path.relative_to(folder)) for path in files])
    advice = f"`split` can be {', '.join(named)}" if named else "name one of the files"
    raise InputError(f"{what}: {folder}: no file of split {split!r}; {advice}; there are {listed}")


def _files_below(folder: Path) -> Iterator[Path]:
    """Files of a folder and the folders in it; links to folders are not followed, they may lead back.

    Raises OSError at a folder that may not be read: without its files the data would silently be others.
    """

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _hidden(name)]
        yield from (path for path in (Path(place, name) for name in names) if path.is_file())


def _hidden(name: str) -> bool:
    """Hidden files and folders, and caches."""
    return name.startswith((".", "__"))


def _is_data(path: Path) -> bool:
    """Hidden files and the hub's own descriptions are no data."""
    return not _hidden(path.name) and file_kind(path) in SUFFIXES and path.name not in DESCRIPTIONS


def _splits_named(path: Path) -> set[str]:
    """Splits that a file's name or folder speaks of: `data/train-00000-of-00002.parquet`, `test.jsonl`."""
    shard = _SHARD.match(path.name)
    if shard:
        return {shard[1]}
    words = set(re.split(r"[^a-z0-9]+", str(path).lower()))
    return {split for split, names in SPLIT_WORDS.items() if words.intersection(names)}


def _hash_of(files: Sequence[Path], folder: Path, what: str) -> str:
    """Hash of names and bytes; sizes stand between them, so that no byte can count for a neighbour."""
    made = xxhash.xxh3_128()
    room = memoryview(bytearray(BUFFER))
    for path in files:
        try:
            with path.open("rb", buffering=0) as file:
                made.update(
                    f"{path.relative_to(folder).as_posix()}\0{os.fstat(file.fileno()).st_size}\0".encode(
                        errors="replace"
                    )
                )
                while count := file.readinto(room):
                    made.update(room[:count])
        except OSError as error:
            raise InputError(f"{what}: {path}: cannot be read ({error.strerror or error})") from None
    return made.hexdigest()
