"""The gate after a stage: scores of the dev items before and after, and a rule in; what to do out. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from equipoise.evaluation.compare import Scores, figure, health_figures, join, paired_values
from equipoise.evaluation.stats_words import with_interval
from equipoise.recipe import Gate
from equipoise.recipe_evaluation import PREFERENCE, kind_of
from equipoise.records import InputError, Score

Outcome = Literal["pass", "fail", "undecided"]
Action = Literal["keep", "rollback", "stop", "retry"]
_FLOOR, _CEILING = 0.02, 0.98
RELATIVE = ("", "margin")
"""Figures of preference_accuracy that measure against the base: its value, and the margin."""


@dataclass(frozen=True, slots=True)
class Row:
    """One rule and how it went.

    `improve` and `hold` rows have a difference and its interval on n items (None where there were too few
    to say anything); `health` rows have the `figure` after, to be at most the threshold. The threshold is in points;
    where the rule gives `percent` it is that much of `base`, the base model's mean.
    """

    kind: Literal["improve", "hold", "health"]
    key: str
    threshold: float
    outcome: Outcome
    reason: str
    n: int
    unscored: int = 0
    difference: float | None = None
    ci: tuple[float, float] | None = None
    figure: float | None = None
    percent: float | None = None
    base: float | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """The decision on a stage. `flagged`: it is kept although a rule failed or is undecided."""

    outcome: Outcome
    action: Action
    flagged: bool
    confidence: float
    reasons: tuple[str, ...]
    rows: tuple[Row, ...]

    def record(self) -> dict[str, Any]:
        """Return the JSON object that stands in `gate.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Sides:
    """What a rule is applied to: scores before and after, those of the base model, and how sure to be."""

    before: Scores
    after: Scores
    base: Scores
    confidence: float
    seed: int


def decide(
    before: Scores, after: Scores, rule: Gate, *, seed: int = 0, base: Scores | None = None, retries: int = 0
) -> GateResult:
    """Apply `rule` to the scores of the dev items, by domain; `before` is the last kept stage or the base.

    Each rule is tested for itself without correction: all must pass, so no chance finding keeps a stage. `base` are the
    base model's scores, of which percentages are taken (default: `before`); `retries` says how many attempts are left.
    Raises InputError for a domain or metric without scores, for items that differ between the sides, and for a
    percentage of a mean that is not above 0.
    """
    sides = _Sides(before, after, before if base is None else base, rule.confidence, seed)
    rows = (
        *(_interval_row("improve", key, limit, sides) for key, limit in rule.improve.items()),
        *(_interval_row("hold", key, margin, sides) for key, margin in rule.hold.items()),
        *(_health(key, limit, before, after) for key, limit in rule.health.items()),
    )
    outcome = _overall([row.outcome for row in rows])
    action, flagged = _action(outcome, rule, retries)
    reasons = tuple(row.reason for row in rows if row.outcome == outcome) if rows else ("no rules",)
    return GateResult(outcome, action, flagged, rule.confidence, reasons, rows)


def may_shrink(outcome: Outcome, rule: Gate) -> bool:
    """Whether a smaller adapter is looked for: the rule asks for it, and the whole one would not be kept in peace."""
    refused = outcome == "fail" or (outcome == "undecided" and rule.on_undecided != "continue")
    return bool(rule.scales) and refused


def in_points(threshold: float | str, key: str, base: Scores, kind: str) -> tuple[float, float | None, float | None]:
    """A threshold in points; for a percentage also the percentage, and the base model's mean that it is of.

    Raises InputError where that mean is not above 0: a percentage of it would mean nothing.
    """
    if not isinstance(threshold, str):
        return float(threshold), None, None
    domain, _, metric = key.partition(".")
    values = [figure(score, metric or None) for score in base.get(domain, ())]
    known = [value for value in values if value is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    if mean <= 0:
        raise InputError(
            f"gate.{kind}.{key}: {threshold} of the base model's mean, which is {mean:.4g}, means nothing; give a "
            "number of points, or name a figure that is above 0"
        )
    percent = float(threshold.removesuffix("%"))
    return percent / 100 * mean, percent, mean


def _overall(outcomes: Sequence[Outcome]) -> Outcome:
    """Return fail if any fails, else undecided if any is undecided, else pass."""
    if "fail" in outcomes:
        return "fail"
    return "undecided" if "undecided" in outcomes else "pass"


def _action(outcome: Outcome, rule: Gate, retries: int) -> tuple[Action, bool]:
    """Return what follows from the outcome, and whether the stage is kept against or without its rule."""
    if outcome == "pass":
        return "keep", False
    wanted = rule.on_fail if outcome == "fail" else rule.on_undecided
    if wanted == "continue":
        return "keep", True
    if wanted == "retry" and retries <= 0:
        return "rollback", False
    return wanted, False


def _interval_row(kind: Literal["improve", "hold"], key: str, given: float | str, sides: _Sides) -> Row:
    """Pass when the interval lies above the gain or minus the loss, fail when it lies below, else undecided."""
    threshold, percent, base = in_points(given, key, sides.base, kind)
    border = threshold if kind == "improve" else -threshold
    domain, _, metric = key.partition(".")
    left, right = _scores(kind, key, domain, sides.before, sides.after)
    values = paired_values(left, right, metric or None)
    n = len(values.ids)
    known = sorted({name for score in left for name in score.metrics})
    if metric and metric not in known:
        raise InputError(f"gate.{kind}.{key}: no item has the metric {metric!r} (known: {', '.join(known) or 'none'})")
    try:
        result = values.result(seed=sides.seed, confidence=sides.confidence)
    except ValueError as error:  # too few items or groups is a finding about this gate, not a crash
        reason = f"{kind} {key}: undecided, {error}"
        return Row(kind, key, threshold, "undecided", reason, n, values.unscored, percent=percent, base=base)
    low, high = result.ci
    outcome: Outcome = "pass" if low > border else "fail" if high < border else "undecided"
    said = with_interval(result.difference, result.ci, sides.confidence)
    limit = f"{threshold:g}" if percent is None else f"{threshold:.3g} ({percent:g}% of the base model's {base:.3g})"
    wanted = f"a gain above {limit}" if kind == "improve" else f"a loss of less than {limit}"
    if not threshold:
        wanted = "a gain" if kind == "improve" else "that nothing was lost"
    shown = {"pass": "shown", "fail": "refuted", "undecided": "undecided"}[outcome]
    reason = f"{kind} {key}: {said} on {n} questions: {wanted} is {shown}"
    return Row(
        kind,
        key,
        threshold,
        outcome,
        reason,
        n,
        values.unscored,
        result.difference,
        result.ci,
        percent=percent,
        base=base,
    )


def _health(key: str, limit: float, before: Scores, after: Scores) -> Row:
    """The figure after must be at most `limit`; `length` is the ratio of mean words, after to before.

    Where the answers before had no word at all the ratio is taken to one word.
    """
    domain, _, name = key.partition(".")
    pairs = join(domain, *_scores("health", key, domain, before, after))
    old, new = health_figures(pairs)[name]
    value = new / (old or 1.0) if name == "length" else new
    outcome: Outcome = "pass" if value <= limit else "fail"
    verb = "is within" if outcome == "pass" else "is above"
    reason = f"health {key}: {value:.3g} {verb} the limit of {limit:g} on {len(pairs)} questions"
    return Row("health", key, limit, outcome, reason, len(pairs), figure=value)


def _scores(kind: str, key: str, domain: str, before: Scores, after: Scores) -> tuple[Sequence[Score], Sequence[Score]]:
    for side, scores in (("before", before), ("after", after)):
        if not scores.get(domain):
            raise InputError(f"gate.{kind}.{key}: there are no scores of {domain!r} {side} the stage")
    return before[domain], after[domain]


def vacuous(scores: Mapping[str, Sequence[Score]], rule: Gate) -> list[str]:
    """Return a sentence for each improve or hold rule that these scores (of the base model) make meaningless.

    That is a figure that is equal on all items, one between 0 and 1 whose mean is at most 0.02 or at
    least 0.98, or a percentage of a mean that is not above 0. Figures that are relative to the base are equal for it by
    definition. Domains without scores are passed over: `decide` refuses them.
    """
    found = []
    for kind, key, threshold in _thresholds(rule):
        domain, _, metric = key.partition(".")
        figures = [figure(score, metric or None) for score in scores.get(domain, ())]
        values = [value for value in figures if value is not None]
        relative = kind_of(domain) == PREFERENCE and metric in RELATIVE
        why = None if relative else _no_room(values, kind)
        if isinstance(threshold, str) and values and math.fsum(values) <= 0:
            why = f"{threshold} of a mean of {math.fsum(values) / len(values):.4g} means nothing: give points"
        if why:
            found.append(f"{kind} {key}: {why}")
    return found


def require_percentages(base: Scores, rule: Gate) -> None:
    """Raises InputError where a percentage is of a mean that is not above 0, as `decide` would after the training."""
    for kind, key, threshold in _thresholds(rule):
        in_points(threshold, key, base, kind)


def _thresholds(rule: Gate) -> list[tuple[str, str, float | str]]:
    """Kind, key and threshold of each rule that compares."""
    improve = [("improve", key, threshold) for key, threshold in rule.improve.items()]
    return [*improve, *(("hold", key, threshold) for key, threshold in rule.hold.items())]


def _no_room(values: Sequence[float], kind: str) -> str | None:
    """Return why a rule of this kind says nothing on these values; None where it does."""
    if not values:
        return None
    mean, n = sum(values) / len(values), len(values)
    if min(values) >= 0 and max(values) <= 1:
        if mean <= _FLOOR:
            meant = "nothing is left to lose, so the rule cannot fail" if kind == "hold" else "the task is out of reach"
            return f"at its floor (mean {mean:.2g} on {n} questions): {meant}"
        if mean >= _CEILING:
            meant = "nothing is left to gain, so the rule cannot pass"
            kept = "a loss shows, but the questions are too easy to tell models apart"
            return f"at its ceiling (mean {mean:.2g} on {n} questions): {meant if kind == 'improve' else kept}"
    if min(values) == max(values) and n > 1:
        return f"all {n} questions have the same figure ({values[0]:g}): it tells nothing apart"
    return None
