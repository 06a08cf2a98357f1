"""Tables of published before/after figures, as `equipoise audit-table` reads them: YAML or CSV.

docs/original-experiments.yaml is an example. A CSV has one column per field of `Row`; in YAML, `defaults` holds the
fields that all rows of a domain share.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from equipoise.records import InputError
from equipoise.yaml_text import parse_yaml

Figure = Annotated[float, Field(ge=-1e9, le=1e9)]
_TOP = ("title", "confidence", "defaults", "rows")


class Row(BaseModel):
    """One published claim: a figure of one model before and after training.

    `share`: right answers among `n`, as 0..1 where both figures are at most 1, else in percent. `score`: a mean over
    n answers; `sd` is the published standard deviation of the scores over the questions, `min` and `max` the ends of
    the scale. `base` names the untouched model: its figures in several experiments show the noise of the instrument.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, str_strip_whitespace=True, coerce_numbers_to_str=True
    )

    experiment: str = Field(min_length=1)
    domain: str = Field(min_length=1)
    metric: str = ""
    n: int = Field(ge=2, le=10_000_000)
    before: Figure
    after: Figure
    kind: Literal["share", "score"]
    paired: bool | Literal["unknown"] = "unknown"
    sd: Figure | None = Field(default=None, gt=0)
    min: Figure | None = None
    max: Figure | None = None
    base: str = ""
    claim: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Row:
        if self.kind == "share" and (self.sd, self.min, self.max) != (None, None, None):
            raise ValueError("sd, min and max belong to kind: score; leave them out of a share")
        if (self.min is None) != (self.max is None):
            raise ValueError("give both min and max of the scale, or neither")
        low, high = self.ends
        if low >= high:
            raise ValueError(f"min is {low:g} and max {high:g}: min must be below max")
        for name, value in (("before", self.before), ("after", self.after)):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value:g}, outside {low:g} to {high:g}")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value that the figure can have; infinite for a score without a scale."""
        if self.kind == "share":
            return 0.0, 1.0 if max(self.before, self.after) <= 1 else 100.0
        return (-float("inf"), float("inf")) if self.min is None or self.max is None else (self.min, self.max)

    @property
    def name(self) -> str:
        """Experiment, domain and figure in one line."""
        return f"{self.experiment}: {self.figure}"

    @property
    def figure(self) -> str:
        """Domain and, where one is named, the metric."""
        return f"{self.domain} {self.metric}".strip()


class Table(BaseModel):
    """Published claims that are judged together: `confidence` holds for all of them at once (Holm)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    rows: tuple[Row, ...]


def read_table(path: str | Path) -> Table:
    """Read a table of claims from a `.yaml`, `.yml` or `.csv` file.

    Raises InputError of one line, with file, line and field, for what cannot be read or makes no sense, and for a
    table without rows or one that makes the same claim twice.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".yaml", ".yml", ".csv"):
        raise InputError(f"{path}: unknown kind of table; give a .yaml, .yml or .csv file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None
    title, confidence, raw = _of_csv(text, path) if kind == ".csv" else _of_yaml(text, path)
    rows: list[Row] = []
    places: dict[tuple[str, str, str], str] = {}
    for where, fields in raw:
        row = _row(fields, where)
        key = (row.experiment, row.domain, row.metric)
        if key in places:
            raise InputError(f"{where}: {row.name} stands at {places[key]} already; remove one, or name the `metric`")
        places[key] = where
        rows.append(row)
    if not rows:
        raise InputError(f"{path}: no rows; add claims under `rows:`, or lines below the header of a CSV")
    try:
        return Table(title=title, confidence=confidence, rows=tuple(rows))
    except ValidationError as error:
        raise InputError(f"{path}: {_problem(error)}") from None


def _row(fields: Mapping[str, Any], where: str) -> Row:
    try:
        return Row.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"{where}: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    """The first problem as "field: what is wrong"."""
    first = error.errors(include_url=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "row"
    if first["type"] == "extra_forbidden":
        return f"{field}: unknown field; known: {', '.join(Row.model_fields)}"
    if first["type"] == "missing":
        return f"{field}: missing; add it"
    if field == "paired":
        return f"paired: must be true, false or unknown (found {first['input']!r})"
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}" if field == "row" else f"{field}: {message} (found {first['input']!r})"


Raw = Iterator[tuple[str, Mapping[str, Any]]]


def _of_csv(text: str, path: Path) -> tuple[str, Any, Raw]:
    return path.stem, 0.95, _csv_rows(text, path)


def _csv_rows(text: str, path: Path) -> Raw:
    """Yield place and filled cells of each line; an empty cell is a field that is not given."""
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if None in cells:
                raise InputError(f"{where}: more cells than the header has columns; quote cells that hold a comma")
            filled = {key: cell for key, cell in cells.items() if cell is not None and cell.strip()}
            if filled:
                yield where, filled
    except csv.Error as error:
        raise InputError(f"{path}:{max(1, reader.line_num)}: not valid CSV: {error}") from None


def _of_yaml(text: str, path: Path) -> tuple[str, Any, Raw]:
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
        raise InputError(f"{path}: a table is a mapping with a list of claims under `rows:`")
    unknown = [str(key) for key in document if key not in _TOP]
    if unknown:
        raise InputError(f"{path}: {unknown[0]}: unknown key; known: {', '.join(_TOP)}")
    title = document.get("title", path.stem)
    return str(title), document.get("confidence", 0.95), _yaml_rows(document, path)


def _yaml_rows(document: Any, path: Path) -> Raw:
    """Yield place and fields of each row, with the defaults of its domain filled in."""
    defaults = document.get("defaults") or {}
    if not isinstance(defaults, dict) or not all(isinstance(fields, dict) for fields in defaults.values()):
        raise InputError(f"{path}: defaults: give a mapping of domains to the fields that their rows share")
    for number, row in enumerate(document["rows"]):
        where = f"{path}:{document['rows'].lc.item(number)[0] + 1}: rows[{number}]"
        if not isinstance(row, dict):
            raise InputError(f"{where}: a row is a mapping of fields to values")
        fields = {str(key): value for key, value in row.items()}
        domain = fields.get("domain")
        shared = defaults.get(domain, {}) if isinstance(domain, str) else {}
        yield where, {**{str(key): value for key, value in shared.items()}, **fields}
