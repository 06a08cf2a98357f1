"""One way in for rows: a file, a local folder in the hub's layout, or a data set of the hub.

Sources and evaluation tasks read through this page. Rows are plain dictionaries, as they stand: whether
they make sense is for the reader of the columns to say. Bytes that are not UTF-8 become lone surrogates,
so that one bad row can be counted and dropped instead of taking the file with it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.data.files import SUFFIXES, file_kind, read_file
from equipoise.records import InputError

SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
DESCRIPTIONS = ("dataset_infos.json", "dataset_dict.json")
_SHARD = re.compile(r"^(.+?)-\d{5}-of-\d{5}")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def read_rows(
    id: str, *, revision: str | None = None, split: str = "train", what: str = "data"
) -> list[dict[str, Any]]:
    """Return all rows of `id`, in order.

    Args:
        id: a .json, .jsonl, .parquet or .csv file (also .gz), a folder in the hub's layout, or a hub id.
        revision: branch, tag or commit of a hub id.
        split: split of a folder or hub data set; a single file has none.
        what: who asks (`source general`, `task tatqa`); begins every error.

    Raises InputError, in one line, where there is nothing to read, or where it cannot be read.
    """
    files = data_files(id, split=split, what=what)
    if files is None:
        rows = _from_hub(id, revision, split, what)
    else:
        rows = [row for path in files for row in read_file(path, what)]
    if not rows:
        raise InputError(f"{what}: {id}: no rows in it; name a file or split that has some")
    return rows


def data_files(id: str, *, split: str = "train", what: str = "data") -> list[Path] | None:
    """The local files that `id` stands for, or None where it is a hub id.

    In a folder these are the files whose name (or folder's name) contains the split, as on the hub; where no
    name says anything about splits, the folder's only data file. Raises InputError where there is none.
    """
    path = Path(id).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return _files_of_split(path, split, what)
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
    raise InputError(
        f"{where}: no column {', '.join(map(repr, missing))}; there are {', '.join(map(repr, there))}{hint}"
    )


def _files_of_split(folder: Path, split: str, what: str) -> list[Path]:
    there = [path for path in folder.rglob("*") if path.is_file()]
    files = sorted(path for path in there if _is_data(path.relative_to(folder)))
    if not files:
        raise InputError(f"{what}: {folder}: no data files in it; known: {', '.join(SUFFIXES)} (also .gz)")
    splits = {path: _splits_named(path.relative_to(folder)) for path in files}
    found = [path for path in files if split in splits[path]]
    if found:
        return found
    named = sorted(set().union(*splits.values()))
    if not named and len(files) == 1:
        return files
    listed = ", ".join([str(path.relative_to(folder)) for path in files[:8]] + ["..."] * (len(files) > 8))
    advice = f"`split` can be {', '.join(named)}" if named else "name one of the files"
    raise InputError(f"{what}: {folder}: no file of split {split!r}; {advice}; there are {listed}")


def _is_data(path: Path) -> bool:
    """Hidden files, caches and the hub's own descriptions are no data."""
    hidden = any(part.startswith((".", "__")) for part in path.parts)
    return not hidden and file_kind(path) in SUFFIXES and path.name not in DESCRIPTIONS


def _splits_named(path: Path) -> set[str]:
    """Splits that a file's name or folder speaks of: `data/train-00000-of-00002.parquet`, `test.jsonl`."""
    shard = _SHARD.match(path.name)
    if shard:
        return {shard[1]}
    words = set(re.split(r"[^a-z0-9]+", str(path).lower()))
    return {split for split, names in SPLIT_WORDS.items() if words.intersection(names)}


def _from_hub(id: str, revision: str | None, split: str, what: str) -> list[dict[str, Any]]:
    import datasets  # heavy, and needed for the hub alone

    try:
        return [dict(row) for row in datasets.load_dataset(id, revision=revision, split=split)]
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{what}: {id}: no such local file or folder, and the hub gave nothing ({reason}); "
            "offline, give the path of a local folder in the hub's layout"
        ) from None
