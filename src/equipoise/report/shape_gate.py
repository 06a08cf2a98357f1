"""Checks the decision on a stage, `gate.json`: every attempt, every scale of the adapter, and the numbers of each rule.

Raises InputError (or KeyError) where the page could not show what stands there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from equipoise.evaluation.gate import Action, GateResult, Outcome, Row
from equipoise.report.shape import interval, mapping, number, numbers, of_this_version, one_of


@dataclass(frozen=True)
class Try:
    """One scale of an adapter, and what the gate said of it."""

    scale: float
    outcome: Outcome
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Decision:
    """What was decided on one attempt; `earlier` are those before it. An older run has none of the remedies."""

    result: GateResult
    compared_with: str = ""
    attempt: int = 1
    values: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    tries: Sequence[Try] = ()
    stopped: str = ""
    earlier: Sequence[Decision] = ()


def decision(value: Any) -> Decision:
    """A gate.json of this or an earlier version."""
    record = mapping(value)
    outcome: Outcome = one_of(record["outcome"], get_args(Outcome))
    action: Action = one_of(record["action"], get_args(Action))
    confidence = number(record["confidence"], "confidence")
    reasons = tuple(str(reason) for reason in record["reasons"])
    return Decision(
        GateResult(outcome, action, bool(record["flagged"]), confidence, reasons, _rows(record)),
        str(record.get("compared_with") or ""),
        int(number(record.get("attempt", 1), "attempt")),
        mapping(record.get("values") or {}, "values"),
        number(record.get("scale", 1.0), "scale"),
        tuple(_try(mapping(one, "tries")) for one in record.get("tries") or ()),
        str(record.get("stopped") or ""),
        tuple(decision(one) for one in record.get("attempts") or ()),
    )


def _try(record: Mapping[str, Any]) -> Try:
    outcome: Outcome = one_of(record["outcome"], get_args(Outcome))
    return Try(number(record["scale"], "tries.scale"), outcome, _rows(record))


def _rows(record: Mapping[str, Any]) -> tuple[Row, ...]:
    return tuple(_row(mapping(row, "rows")) for row in record["rows"])


def _row(row: dict[str, Any]) -> Row:
    numbers(row, "threshold", "n")
    numbers(row, *(key for key in ("difference", "figure", "percent", "base") if row.get(key) is not None))
    one_of(row.get("outcome"), get_args(Outcome))
    one_of(row.get("kind"), ("improve", "hold", "health"))
    said = {key: str(row.get(key, "")) for key in ("key", "reason")}
    return Row(**{**of_this_version(Row, row), **said, "ci": interval(row["ci"]) if row.get("ci") else None})
