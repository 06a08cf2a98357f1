"""Before against after: scores of the same items in, one Comparison with a verdict per domain out. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from equipoise.evaluation import stats
from equipoise.evaluation.stats_resample import bootstrap_bca, permutation_p
from equipoise.recipe import HEALTH_FIGURES
from equipoise.records import Comparison, InputError, Score

Scores = Mapping[str, Sequence[Score]]
Verdict = Literal["improved", "held", "worse", "undecided"]
LOST_SHARE = 0.02
"""Where more than this share of the shared items has a score before and none after, nothing good is said of the rest:
an answer that cannot be scored any more may be what training broke."""
_NAMED = 3  # so many item ids are named in a message


@dataclass(frozen=True, slots=True)
class PairedValues:
    """One figure of the items that both sides scored, [n] each; `unscored` shared items are left out."""

    ids: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    groups: tuple[str, ...]
    unscored: int

    def result(self, *, seed: int = 0, confidence: float = 0.95) -> stats.PairedResult:
        """Return the paired statistics; raises ValueError where `stats.paired` does (fewer than 2 items)."""
        return stats.paired(self.before, self.after, clusters=self.groups, seed=seed, confidence=confidence)


def compare(
    before: Scores,
    after: Scores,
    *,
    confidence: float = 0.95,
    margins: Mapping[str, float | None] | None = None,
    seed: int = 0,
    metric: str | None = None,
    noise: Mapping[str, float] | None = None,
    second_opinion: bool = False,
) -> dict[str, Comparison]:
    """Compare each domain that both sides have, on their shared items, by value or by a further `metric`.

    `margins` gives the non-inferiority margin of a domain, for the verdict `held`; `noise` the difference that
    repeating a measurement can make. `second_opinion` adds what the bootstrap and the permutation test say; they
    decide nothing (docs/statistics.md shows why). p-values are corrected
    (Holm) over the domains compared here; intervals are for each domain alone. Raises InputError when no
    domain or no item is shared, items differ in content, or fewer than 2 items are scored on both sides.
    """
    domains = [domain for domain in before if domain in after]
    if not domains:
        raise InputError(f"no shared domain: {_listed(list(before))} before, {_listed(list(after))} after")
    joined = {domain: join(domain, before[domain], after[domain]) for domain in domains}
    values = {domain: _values(pairs, metric) for domain, pairs in joined.items()}
    results = {domain: _result(domain, pairs, seed, confidence) for domain, pairs in values.items()}
    corrected = stats.holm({domain: result.p_value for domain, result in results.items()})
    found = {
        domain: _comparison(
            domain,
            results[domain],
            corrected[domain],
            (margins or {}).get(domain),
            (noise or {}).get(domain),
            values[domain].unscored,
            joined[domain],
        )
        for domain in domains
    }
    if not second_opinion:
        return found
    return {domain: _with_second_opinion(row, values[domain], seed, confidence) for domain, row in found.items()}


def _with_second_opinion(row: Comparison, values: PairedValues, seed: int, confidence: float) -> Comparison:
    differences = [after - before for before, after in zip(values.before, values.after, strict=True)]
    return replace(
        row,
        bootstrap=bootstrap_bca(differences, clusters=values.groups, seed=seed, confidence=confidence),
        permutation_p=permutation_p(differences, clusters=values.groups, seed=seed),
    )


def join(domain: str, before: Sequence[Score], after: Sequence[Score]) -> list[tuple[Score, Score]]:
    """Return the shared items of one domain in the order of `before`.

    Raises InputError when an id occurs twice on a side, no item is shared, or the content of one differs.
    """
    left, right = _by_id(domain, "before", before), _by_id(domain, "after", after)
    pairs = [(score, right[key]) for key, score in left.items() if key in right]
    if not pairs:
        raise InputError(
            f"{domain}: no shared item among {len(left)} before ({_listed(list(left))}) "
            f"and {len(right)} after ({_listed(list(right))})"
        )
    changed = [one.id for one, other in pairs if one.content != other.content]
    if changed:
        raise InputError(
            f"{domain}: {len(changed)} of {len(pairs)} shared items differ in content ({_listed(changed)}): "
            "the questions changed, so the scores cannot be compared; evaluate both sides on the same items"
        )
    return pairs


def paired_values(before: Sequence[Score], after: Sequence[Score], metric: str | None = None) -> PairedValues:
    """Return `value`, or the further figure `metric`, of the items that have it on both sides.

    Raises InputError as `join` does.
    """
    domain = next((score.task for score in before), "scores")
    return _values(join(domain, before, after), metric)


def _values(pairs: Sequence[tuple[Score, Score]], metric: str | None) -> PairedValues:
    both = [(one, figure(one, metric), figure(other, metric)) for one, other in pairs]
    scored = [(score, x, y) for score, x, y in both if x is not None and y is not None]
    return PairedValues(
        ids=tuple(score.id for score, _, _ in scored),
        before=tuple(x for _, x, _ in scored),
        after=tuple(y for _, _, y in scored),
        groups=tuple(score.group for score, _, _ in scored),
        unscored=len(pairs) - len(scored),
    )


def figure(score: Score, metric: str | None) -> float | None:
    """Return the value of a score or its further figure `metric`; None where it has none."""
    return score.value if metric is None else score.metrics.get(metric)


def health_figures(pairs: Sequence[tuple[Score, Score]]) -> dict[str, tuple[float, float]]:
    """Return (before, after) of empty, cut_off, repeated, switched (shares of the items) and length (mean words)."""
    sides = tuple(zip(*pairs, strict=True))

    def means(name: str) -> tuple[float, float]:
        before, after = (sum(getattr(score.health, name) for score in side) / len(side) for side in sides)
        return before, after

    return {key: means("words" if key == "length" else key) for key in HEALTH_FIGURES}


def _metric_means(pairs: Sequence[tuple[Score, Score]]) -> dict[str, tuple[float, float]]:
    """Return (before, after) means of every further figure, on the items that have it on both sides."""
    means: dict[str, tuple[float, float]] = {}
    for name in sorted({name for one, other in pairs for name in one.metrics.keys() & other.metrics.keys()}):
        values = _values(pairs, name)
        n = len(values.ids)
        means[name] = (math.fsum(values.before) / n, math.fsum(values.after) / n)
    return means


def _result(domain: str, pairs: PairedValues, seed: int, confidence: float) -> stats.PairedResult:
    try:
        return pairs.result(seed=seed, confidence=confidence)
    except ValueError as error:
        left_out = f" ({pairs.unscored} shared items are unscored)" if pairs.unscored else ""
        raise InputError(f"{domain}: {error}{left_out}") from error


def _comparison(
    domain: str,
    result: stats.PairedResult,
    p_holm: float,
    margin: float | None,
    noise: float | None,
    unscored: int,
    pairs: Sequence[tuple[Score, Score]],
) -> Comparison:
    lost = sum(one.value is not None and other.value is None for one, other in pairs)
    said = verdict(result.ci, p_holm, margin, result.confidence)
    if said in ("improved", "worse") and noise is not None and abs(result.difference) <= noise:
        said = "held" if margin is not None and result.ci[0] > -margin else "undecided"
    if said in ("improved", "held") and lost > LOST_SHARE * len(pairs):
        said = "undecided"
    return Comparison(
        domain=domain,
        before=result.before,
        after=result.after,
        difference=result.difference,
        ci=result.ci,
        p_value=result.p_value,
        p_holm=p_holm,
        n=result.n,
        unscored=unscored,
        detectable=result.detectable,
        margin=margin,
        verdict=said,
        health=health_figures(pairs),
        metrics=_metric_means(pairs),
        noise=noise,
        lost=lost,
    )


def verdict(ci: tuple[float, float], p_holm: float, margin: float | None, confidence: float) -> Verdict:
    """Return what the interval and the corrected p allow to say; without a margin nothing is `held`."""
    low, high = ci
    significant = p_holm < 1 - confidence
    if low > 0 and significant:
        return "improved"
    if high < 0 and significant:
        return "worse"
    if margin is not None and low > -margin:
        return "held"
    return "undecided"


def _by_id(domain: str, side: str, scores: Sequence[Score]) -> dict[str, Score]:
    by_id = {score.id: score for score in scores}
    if len(by_id) < len(scores):
        counts = Counter(score.id for score in scores)
        twice = [key for key, count in counts.items() if count > 1]
        raise InputError(f"{domain}: item ids occur more than once {side}: {_listed(twice)}")
    return by_id


def _listed(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "none"
