"""What each recipe gained in each domain, and which of two recipes is shown to have gained more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from equipoise.evaluation.compare import LOST_SHARE, verdict
from equipoise.evaluation.stats import holm
from equipoise.records import InputError
from equipoise.study.entrants import Entrant, Entrants
from equipoise.study.evidence import Effect, contrast, effect
from equipoise.study.pareto import Shown


@dataclass(frozen=True)
class Gain:
    """What a recipe did in a domain: the difference to the base with its interval and verdict.

    `standardised` is the difference in standard deviations of the base's scores, None where they do not vary.
    """

    effect: Effect
    p_holm: float
    verdict: str
    standardised: float | None


def gains_of(one: Entrant, entrants: Entrants, units: Mapping[str, float], confidence: float) -> dict[str, Gain]:
    """Return the gain of a recipe in each domain, corrected (Holm) for their number; `units` as `overall.unit`.

    Raises InputError where a domain has too few scored items to say anything.
    """
    effects = {}
    for name, domain in entrants.domains.items():
        try:
            effects[name] = effect(one.before[name], one.after[name], domain.groups, confidence)
        except ValueError as error:
            raise InputError(f"{one.folders[0]}: {name}: {error}") from None
    corrected = holm({name: found.p_value for name, found in effects.items()})
    return {
        name: Gain(
            found,
            corrected[name],
            _verdict(one, name, found, corrected[name], confidence),
            found.difference / units[name] if units[name] > 0 else None,
        )
        for name, found in effects.items()
    }


def _verdict(one: Entrant, domain: str, found: Effect, p_holm: float, confidence: float) -> str:
    """The verdict as `compare` gives it: within the instrument's noise nothing is improved or worse."""
    margin = one.margins.get(domain)
    said: str = verdict(found.ci, p_holm, margin, confidence)
    if said in ("improved", "worse") and abs(found.difference) <= one.noise[domain]:
        said = "held" if margin is not None and found.ci[0] > -margin else "undecided"
    if lost(one, domain) and said in ("improved", "held"):
        said = "undecided"
    return said


def lost(one: Entrant, domain: str) -> float:
    """Return the share of the base's scores to which there is none after training; 0 up to what `compare` lets pass."""
    scored = ~np.isnan(one.before[domain])
    share = float((scored & np.isnan(one.after[domain])).sum() / max(1, scored.sum()))
    return share if share > LOST_SHARE else 0.0


def compare_all(entrants: Entrants, confidence: float) -> tuple[Shown, Shown]:
    """Return in which domains a is shown to be better than b, and in which a is seen to be worse, for all (a, b).

    "Better" is corrected (Holm) for all pairs and domains of the table; "worse" is not: it only prevents a claim.
    """
    found: dict[tuple[str, str, str], Effect] = {}
    for one, other in combinations(entrants.rows, 2):
        for name, domain in entrants.domains.items():
            try:
                seen = contrast(one.side(name), other.side(name), domain.groups, confidence)
            except ValueError as error:
                raise InputError(f"{one.folders[0]} and {other.folders[0]}: {name}: {error}") from None
            found[one.name, other.name, name] = seen
    keys = {f"{number}": key for number, key in enumerate(found)}
    corrected = holm({number: found[key].p_value for number, key in keys.items()})
    noise = {name: max(one.noise[name] for one in entrants.rows) for name in entrants.domains}
    better: dict[tuple[str, str], list[str]] = {}
    worse: dict[tuple[str, str], list[str]] = {}
    for number, (one_name, other_name, domain_name) in keys.items():
        seen = found[one_name, other_name, domain_name]
        ahead = (one_name, other_name) if seen.difference > 0 else (other_name, one_name)
        if corrected[number] < 1 - confidence and abs(seen.difference) > noise[domain_name]:
            better.setdefault(ahead, []).append(domain_name)
        if seen.p_value < 1 - confidence:
            worse.setdefault((ahead[1], ahead[0]), []).append(domain_name)
    return better, worse
