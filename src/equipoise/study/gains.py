"""What each recipe gained in each domain, and which of two recipes is shown to have gained more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from equipoise.evaluation.compare import LOST_SHARE, verdict
from equipoise.evaluation.stats import holm
from equipoise.records import InputError
from equipoise.study.entrants import Entrant, Entrants
from equipoise.study.evidence import Effect, effect
from equipoise.study.pairwise import Contrasts, TooFewItems, contrasts
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
    names = [one.name for one in entrants.rows]
    seen = {name: _contrasts(entrants, name, confidence) for name in entrants.domains}
    p_values = {f"{name}/{k}": p for name, found in seen.items() for k, p in enumerate(found.p_value.tolist())}
    corrected = holm(p_values)
    better: dict[tuple[str, str], list[str]] = {}
    worse: dict[tuple[str, str], list[str]] = {}
    for name, found in seen.items():
        noise = max(one.noise[name] for one in entrants.rows)
        rows = zip(found.one.tolist(), found.other.tolist(), found.difference.tolist(), strict=True)
        for k, (one, other, difference) in enumerate(rows):
            ahead = (names[one], names[other]) if difference > 0 else (names[other], names[one])
            if corrected[f"{name}/{k}"] < 1 - confidence and abs(difference) > noise:
                better.setdefault(ahead, []).append(name)
            if p_values[f"{name}/{k}"] < 1 - confidence:
                worse.setdefault((ahead[1], ahead[0]), []).append(name)
    return better, worse


def _contrasts(entrants: Entrants, domain: str, confidence: float) -> Contrasts:
    sides = [one.side(domain) for one in entrants.rows]
    try:
        return contrasts(sides, entrants.domains[domain].groups, confidence)
    except TooFewItems as error:
        one, other = (entrants.rows[number].folders[0] for number in error.pair)
        raise InputError(f"{one} and {other}: {domain}: {error}") from None
