"""The verdict in words: what was trained, what got better and worse, how sure that is, and what to ship."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.evaluation.stats_words import beside, needed, with_interval
from equipoise.model.calibration import Calibration
from equipoise.records import Comparison
from equipoise.report.figures import Figure, concerns
from equipoise.report.read import RunFiles, StageFiles
from equipoise.report.text import listed, places_for, signed
from equipoise.report.unfinished import so_far
from equipoise.report.words import source_name

_UNREAD = "Not known: the comparison cannot be read."

TITLES = {"improved": "Better", "worse": "Worse", "held": "Held", "undecided": "Undecided"}


def headline(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> str:
    """The verdict in one line; answers that broke are part of it, whatever their score says."""
    if not files.verdict:
        return "Not known: the verdict cannot be read." if files.ended else "No verdict yet"
    if files.kept == "base":
        return "No stage was kept: the base model stays."
    return result(files, known)


def result(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> str:
    """What became of the domains at the point that is described, broken answers included; model cards say the same."""
    if not files.readable:
        return _UNREAD
    rows = files.compared.items()
    broken = [name for name, row in rows if any(concern.clear for concern in concerns(row, known.get(name, [])))]
    but = f" Answers degraded: {listed(broken)}." if broken else ""
    return (changes(files) or "Nothing was compared.") + but


def changes(files: RunFiles) -> str:
    """What got better and what got worse; where it is not both, what is open or that nothing was lost."""
    compared = files.compared
    of = {word: [name for name, row in compared.items() if row.verdict == word] for word in TITLES}
    parts = [f"{TITLES[word]}: {listed(of[word])}." for word in ("improved", "worse") if of[word]]
    if not compared or (of["improved"] and of["worse"]):
        return " ".join(parts)
    if not parts and of["undecided"]:
        parts.append("No clear change.")
    if of["undecided"]:
        parts.append(f"Undecided: {listed(of['undecided'])}.")
    elif not of["worse"] and not files.unmeasured:
        parts.append("No score fell beyond its margin." if parts else "Every domain was held.")
    return " ".join(parts)


def described(files: RunFiles) -> str:
    """What the figures describe, where it is not the stage to ship."""
    if not files.verdict:
        return f"The figures below are those of {files.point}." if files.compared else ""
    refused = files.kept == "base" and files.point not in (None, "base")
    return f"This is what the refused stage {files.point} did. {changes(files)}" if refused else ""


def refusals(files: RunFiles) -> list[str]:
    """Why stages were refused, in the words of their gates."""
    refused = [stage for stage in files.stages if stage.gate is not None and not stage.kept]
    return [f"{stage.point}: {reason}" for stage in refused for reason in (stage.gate.reasons if stage.gate else ())]


def trained(files: RunFiles) -> str:
    """What was trained, in one sentence."""
    model = files.recipe.get("model", {}).get("id", "(not known)")
    begun = [stage for stage in files.stages if stage.steps or stage.gate]
    if not begun:
        return f"Model {model}; nothing was trained yet."
    said = [f"{stage.name} ({_pairs_seen(files, stage)})" for stage in begun]
    stages = "one stage" if len(begun) == 1 else f"{len(begun)} stages"
    return f"Preference training of {model} in {stages}: {listed(said)}."


def _pairs_seen(files: RunFiles, stage: StageFiles) -> str:
    seen = sum(float(step.get("pairs", 0)) for step in stage.steps)
    sources = files.ledger.get("stages", {}).get(stage.name, {}).get("sources", {})
    names = [source_name(name) for name in sources]
    return f"{seen:,.0f} pairs of {listed(names)}" if names else f"{seen:,.0f} pairs"


def domain_sentence(row: Comparison, confidence: float) -> str:
    """One domain in words, without the name."""
    change = with_interval(row.difference, row.ci, confidence)
    if row.verdict == "held":
        return f"{change}: {_excluded(row, ' or more')}."
    if row.verdict == "undecided":
        return f"{change}: not decided{beside(row) or f'; {needed(row, None)}'}."
    return f"{change}."


def _excluded(row: Comparison, more: str = "") -> str:
    """The loss that a domain did not have; verdict.json alone does not say how large its margin was."""
    return f"a loss {'beyond its margin' if row.margin is None else f'of {row.margin:g}{more}'} is excluded"


def how_sure(files: RunFiles) -> list[str]:
    """What the intervals cover, and what they do not."""
    rows = files.compared
    if not rows:
        return []
    return [
        f"Intervals hold at {files.confidence * 100:g}% for each domain alone"
        + (f"; p-values are corrected for {len(rows)} domains (Holm)." if len(rows) > 1 else "."),
        "The verdict looks at test questions only; gates looked at other ones (dev).",
        *_calibrations(files),
        f"One training seed ({files.seed}): the interval covers items, not training seeds. "
        "Another seed may give another result.",
    ]


def _calibrations(files: RunFiles) -> list[str]:
    """Where the map from raw rewards to 0-10 comes from."""
    members = files.calibration.get("members", [])
    try:
        return [f"0-10 of {member['id']}: {Calibration.from_record(member).words()}." for member in members]
    except (KeyError, TypeError, ValueError):
        return ["calibration.json cannot be understood: where the map to 0-10 comes from is not known."]


def first_screen(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> list[tuple[str, str]]:
    """The questions that everybody asks, each with its answer in a sentence or two."""
    found = [("Trained", trained(files))]
    if so_far(files):
        found.append(("So far", so_far(files)))
    if files.compared:
        found += [("Better", _better(files)), ("Worse", _worse(files)), ("How sure", _sure(files))]
    return [*found, ("Ship", ship(files, known))]


def _of(files: RunFiles, verdict: str) -> list[str]:
    return [name for name, row in files.compared.items() if row.verdict == verdict]


def _figure(row: Comparison) -> str:
    places = places_for(row.ci)
    low, high = (signed(end, places) for end in row.ci)
    return f"{row.domain} {signed(row.difference, places)} ({low} to {high})"


def _better(files: RunFiles) -> str:
    names = _of(files, "improved")
    return listed([_figure(files.compared[name]) for name in names]) + "." if names else "Nothing that can be shown."


def _worse(files: RunFiles) -> str:
    names = _of(files, "worse")
    said = [listed([_figure(files.compared[name]) for name in names]) + "." if names else "Nothing that can be shown."]
    held = [f"{name} ({_excluded(files.compared[name])})" for name in _of(files, "held")]
    if held:
        said.append(f"Held: {listed(held)}.")
    if _of(files, "undecided"):
        said.append(f"Not decided, so a loss is possible: {listed(_of(files, 'undecided'))}.")
    if files.unmeasured:
        said.append(f"Not measured: {listed(list(files.unmeasured))}.")
    return " ".join(said)


def _sure(files: RunFiles) -> str:
    questions = sum(row.n for row in files.compared.values())
    corrected = f"; verdicts are corrected for {len(files.compared)} domains" if len(files.compared) > 1 else ""
    return (
        f"{files.confidence * 100:g}% intervals of the change on the same {questions:,} test questions{corrected}. "
        "One training seed: another one may give another result."
    )


def ship(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> str:
    """What to ship: the kept stage, and on which condition; or the base model."""
    if not files.verdict or files.kept is None:
        return "Not known: the verdict cannot be read." if files.ended else "Nothing yet: the run has no verdict."
    if files.kept == "base":
        return "Nothing from this run: keep the base model."
    if not files.readable:
        return _UNREAD
    under = _under(files)
    stage = f"stage {files.kept}" + (f" on top of {listed(under)}" if under else "")
    worse, undecided = _of(files, "worse"), [*_of(files, "undecided"), *files.unmeasured]
    if not _of(files, "improved"):
        return f"The base model: no gain is shown that would speak for {stage}, although the gates kept it."
    if worse:
        said = f"{stage}, only where the loss in {listed(worse)} is acceptable; else the base model."
    elif undecided:
        said = f"{stage}, if a possible loss in {listed(undecided)} is acceptable: it is not decided."
    else:
        said = f"{stage}: no domain lost more than its margin."
    clear = {
        name: [one.said for one in concerns(row, known.get(name, [])) if one.clear]
        for name, row in files.compared.items()
    }
    read = [f"{name} ({listed(found)})" for name, found in clear.items() if found]
    return said[0].upper() + said[1:] + (f" First read answers of {listed(read)}." if read else "")


def _under(files: RunFiles) -> list[str]:
    """The kept stages below the one that the verdict keeps, the first one first."""
    names = [stage.point for stage in files.stages]
    top = names.index(files.kept) if files.kept in names else len(names)
    return [stage.point for stage in files.stages[:top] if stage.kept]
