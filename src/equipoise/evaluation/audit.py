"""Which of the published before/after claims could be told from noise? The story of `equipoise audit-table`.

Without item records nobody can compute the evidence; but its bounds can be computed. A claim is `real` if it survives
even the worst that the published figures allow, `noise` if it fails even at their best or lies within the movement of
the untouched base model, and `possible` if it depends on what was not published. Holm's correction goes over all
claims of the table, once with every claim at its best and once with every claim at its worst. Pure, apart from reading.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal

from equipoise.evaluation.audit_cases import Cases, cases_of, widest_real_spread
from equipoise.evaluation.audit_read import Row, Table, read_table
from equipoise.evaluation.stats import holm

__all__ = [
    "COLUMNS",
    "Finding",
    "Table",
    "audit",
    "oddities",
    "read_table",
    "rows_for_terminal",
    "sentence",
    "summary",
]
Verdict = Literal["real", "possible", "noise"]
COLUMNS = (
    "experiment",
    "figure",
    "n",
    "before",
    "after",
    "change",
    "base moved by",
    "p, corrected",
    "needed",
    "verdict",
)
"""Headings of `rows_for_terminal`."""
_TWINS = 3  # so many figures must agree before two experiments are called the same


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one row, with what decides it.

    `difference` is after minus before in the units of the table. `p_best` and `p_worst` are corrected for the number
    of `claims`. `base_moved` is the range of the untouched base's figure over `base_runs` experiments, None where
    there is only one. `real_below` is the standard deviation of the differences per question below which a score's
    change is real. `notes` say what is odd about the figures themselves.
    """

    row: Row
    verdict: Verdict
    difference: float
    cases: Cases
    p_best: float
    p_worst: float
    claims: int
    confidence: float
    base_moved: float | None
    base_runs: int
    real_below: float | None
    notes: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return the JSON object of the finding, with its sentence; what is not bounded is null."""
        values = {**asdict(self), "row": self.row.model_dump(), "sentence": sentence(self)}
        return {key: _finite(value) for key, value in values.items()}


def audit(table: Table) -> list[Finding]:
    """Return one finding for each row of the table, in its order."""
    cases = [cases_of(row, table.confidence, _base_figures(table, row)) for row in table.rows]
    best = list(holm({str(i): case.best.p for i, case in enumerate(cases)}).values())
    worst = list(holm({str(i): case.worst.p for i, case in enumerate(cases)}).values())
    return [_finding(table, i, cases[i], best[i], worst[i]) for i in range(len(cases))]


def _finding(table: Table, number: int, cases: Cases, best: float, worst: float) -> Finding:
    row, claims, alpha = table.rows[number], len(table.rows), 1 - table.confidence
    runs = _base_figures(table, row)
    moved = _exactly(max(runs), min(runs)) if len(runs) > 1 else None
    difference = _exactly(row.after, row.before)
    verdict: Verdict = "possible"
    if difference == 0 or best >= alpha or (moved is not None and abs(difference) <= moved):
        verdict = "noise"
    elif worst < alpha:
        verdict = "real"
    return Finding(
        row=row,
        verdict=verdict,
        difference=difference,
        cases=cases,
        p_best=best,
        p_worst=worst,
        claims=claims,
        confidence=table.confidence,
        base_moved=moved,
        base_runs=len(runs),
        real_below=widest_real_spread(row, table.confidence, claims) if row.kind == "score" else None,
        notes=(*_no_whole_number(row), *_twins(table, row)),
    )


def _exactly(x: float, y: float) -> float:
    """Return x - y of two printed numbers, without the rounding of binary fractions."""
    return float(Decimal(str(x)) - Decimal(str(y)))


def _base_figures(table: Table, row: Row) -> list[float]:
    """Return what the row's untouched base scored on this figure, one value per experiment."""
    same = {r.experiment: r.before for r in table.rows if r.base and (r.base, r.figure) == (row.base, row.figure)}
    return list(same.values())


def _no_whole_number(row: Row) -> Iterator[str]:
    """Say so if no number of right answers out of n gives a published share, rounded as it was printed."""
    if row.kind != "share":
        return
    scale = row.ends[1]
    for value in dict.fromkeys((row.before, row.after)):
        below = math.floor(row.n * value / scale + 1e-9)
        half_a_digit = 0.5 * 10.0 ** int(Decimal(str(value)).as_tuple().exponent) + 1e-9
        near = [scale * right / row.n for right in (below, below + 1)]
        if min(abs(value - possible) for possible in near) > half_a_digit:
            nearest = f"{below} right are {near[0]:.4g}, {below + 1} are {near[1]:.4g}"
            yield f"{row.figure}: {value:g} is no share of {row.n} answers: {nearest}"


def _twins(table: Table, row: Row) -> Iterator[str]:
    """Say so if all figures that an earlier experiment shares with this one are the same to the last digit."""
    own = {r.figure: (r.before, r.after) for r in table.rows if r.experiment == row.experiment}
    experiments = list(dict.fromkeys(r.experiment for r in table.rows))
    for other in experiments[: experiments.index(row.experiment)]:
        shared = [r for r in table.rows if r.experiment == other and r.figure in own]
        if len(shared) >= _TWINS and all((r.before, r.after) == own[r.figure] for r in shared):
            yield f"all {len(shared)} figures are the same to the last digit as those of {other}"


def sentence(finding: Finding) -> str:
    """Return the verdict with its reason, the numbers that decide it and what would have been needed."""
    f, row = finding, finding.row
    said = f"{row.name}: {_signed(f)} on {row.n} questions: {f.verdict}; {_reason(f)}"
    if f.verdict == "real" or f.cases.needed is None:
        return said
    at = f" if the differences vary by {f.cases.assumed:.2g} per question" if f.cases.assumed else ""
    return f"{said}; by itself such a change takes about {_two_digits(f.cases.needed)} questions{at}"


def _reason(f: Finding) -> str:
    best, worst = f.cases.best, f.cases.worst
    corrected = f"corrected for {f.claims} claim{'' if f.claims == 1 else 's'}"
    if f.difference == 0:
        return "there is no difference"
    if f.verdict == "noise":
        reasons = []
        if f.base_moved is not None and abs(f.difference) <= f.base_moved:
            reasons.append(f"the untouched base alone moved by {f.base_moved:g} over {f.base_runs} runs")
        if f.p_best >= 1 - f.confidence:
            reasons.append(f"even if {best.given}, p is {_p(best.p)} ({_p(f.p_best)} {corrected})")
        return ", and ".join(reasons)
    if f.verdict == "real":
        return f"even if {worst.given}, p is {_p(worst.p)} ({_p(f.p_worst)} {corrected})"
    if f.cases.spread is not None and f.real_below is not None:
        high = f.cases.spread[1]
        most = f"can be as large as {high:.2g}" if math.isfinite(high) else "can be anything"
        return (
            f"real if the differences per question vary by less than {f.real_below:.2g} (standard deviation, "
            f"{corrected}), which was not published and {most}"
        )
    return f"p is {_p(f.p_best)} if {best.given} and {_p(f.p_worst)} if {worst.given} ({corrected})"


def oddities(findings: Sequence[Finding]) -> list[str]:
    """Return what is odd about the published figures themselves, one line each, with the experiment."""
    return list(dict.fromkeys(f"{f.row.experiment}: {note}" for f in findings for note in f.notes))


def summary(findings: Sequence[Finding]) -> str:
    """Return how many claims have which verdict, in one line."""
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in ("real", "possible", "noise")}
    return f"{len(findings)} claims: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def rows_for_terminal(findings: Sequence[Finding]) -> list[tuple[str, ...]]:
    """Return one line of cells per finding, under `COLUMNS`; p runs from the best to the worst case."""
    return [
        (
            f.row.experiment,
            f.row.figure,
            f"{f.row.n:,}",
            f"{f.row.before:.{_decimals(f.row)}f}",
            f"{f.row.after:.{_decimals(f.row)}f}",
            _signed(f),
            "-" if f.base_moved is None else f"{f.base_moved:g}",
            _p(f.p_best) if _p(f.p_best) == _p(f.p_worst) else f"{_p(f.p_best)} to {_p(f.p_worst)}",
            "-" if f.cases.needed is None else _two_digits(f.cases.needed),
            f.verdict,
        )
        for f in findings
    ]


def _finite(value: Any) -> Any:
    """Return plain JSON values: tuples as lists, infinite numbers as None."""
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def _decimals(row: Row) -> int:
    """Return how many decimals the figures were published with, as far as the file still says."""
    return max(0, *(-int(Decimal(str(value)).as_tuple().exponent) for value in (row.before, row.after)))


def _signed(f: Finding) -> str:
    return f"{f.difference:+.{_decimals(f.row)}f}" if f.difference else "0"


def _two_digits(n: int) -> str:
    """Return n with two digits: more would promise too much."""
    step = 10 ** max(0, len(str(n)) - 2)
    return f"{math.ceil(n / step) * step:,}"
