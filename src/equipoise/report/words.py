"""What a reader must not overlook, and the words that other parts of the page and the terminal share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from equipoise.data.ledger import Ledger, differences, problems
from equipoise.evaluation.gate import vacuous
from equipoise.recipe import Gate
from equipoise.recipe_parts import RewardSpec
from equipoise.recipe_sources import Source, ranked
from equipoise.report.figures import Figure, concerns
from equipoise.report.read import RunFiles, StageFiles
from equipoise.report.text import listed

ONE_SIDED = 0.7
"""In a source where the longer answer is better this often, a model can win by length alone."""

LOSSES = {"malformed": "by the reader", "cleaned": "in cleaning", "held_out": "held out", "unpaired": "while pairing"}
"""Where a source loses rows, in order: the field of its line, and how people call it."""

_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


def warnings(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> list[str]:
    """What a reader must not overlook, the gravest first."""
    found = [f"{name} was not measured: {why}." for name, why in files.unmeasured.items()]
    for name, row in files.compared.items():
        said = [concern.said for concern in concerns(row, known.get(name, [])) if concern.clear]
        score = "the score rose while" if row.verdict == "improved" else f"beside the score ({row.verdict}),"
        if said:
            found.append(f"{name}: {score} {listed(said)}. Read answers before you believe the score.")
    for stage in files.stages:
        found += _gate_warnings(files, stage)
    found += ledger_problems(files)
    found += _same_reward(files)
    noise = [f"{name} by up to {row.noise:.2g}" for name, row in files.compared.items() if row.noise]
    if noise:
        found.append(
            f"Measuring the unchanged base model again moved {listed(noise)}: no smaller difference is a finding."
        )
    lost = [f"{name} {row.lost}" for name, row in files.compared.items() if row.lost]
    if lost:
        found.append(f"Questions that had a score before training and have none after: {listed(lost)}.")
    left_out = [f"{name} {row.unscored}" for name, row in files.compared.items() if row.unscored]
    if left_out:
        found.append(f"Questions that could not be scored on both sides are left out: {listed(left_out)}.")
    return found


def _gate_warnings(files: RunFiles, stage: StageFiles) -> list[str]:
    if stage.gate is None:
        return []
    found = []
    if stage.gate.flagged:
        why = "a rule of its gate failed" if stage.gate.outcome == "fail" else "its gate is undecided"
        found.append(f"Stage {stage.point} was kept although {why}.")
    if not stage.gate.rows:
        found.append(f"Stage {stage.point} has a gate without rules: it was kept unchecked.")
    return found + [f"Stage {stage.point}, gate: {said}" for said in _vacuous(files, stage)]


def _vacuous(files: RunFiles, stage: StageFiles) -> list[str]:
    """Rules that the base model's own scores make meaningless."""
    try:
        rule = Gate.model_validate(stage.settings.get("gate", {}))
    except ValidationError:  # a run of an older version
        return []
    base = files.points.get("base", {})
    return vacuous({task: [score for score in rows if score.split == "dev"] for task, rows in base.items()}, rule)


def _same_reward(files: RunFiles) -> list[str]:
    """A caution where the reward model that graded answers also chose among the answers that were trained on."""
    base = files.points.get("base", {})
    graded = [name for name, rows in base.items() if any("ten" in score.metrics for score in rows)]
    drawn = {
        name.partition("@")[0] for stage in files.ledger.get("stages", {}).values() for name in stage.get("sources", {})
    }
    chosen = [name for name in files.recipe.get("sources", {}) if name in drawn and _ranked_by_judge(files, name)]
    if not graded or not chosen:
        return []
    return [
        f"The reward model that graded {listed(graded)} also selected the training pairs of {listed(chosen)}: a higher "
        "score there may only show that the model learned what this reward model likes. Grade with another one, or "
        "look at figures that no reward model makes."
    ]


def _ranked_by_judge(files: RunFiles, source: str) -> bool:
    """Whether the answers of a source were ranked by the recipe's own reward model."""
    try:
        judge = RewardSpec.model_validate(files.recipe.get("reward"))
        spec = _SOURCE.validate_python(files.recipe["sources"][source])
    except ValidationError:  # no reward model, or a run of another version
        return False
    ranks: RewardSpec | None = getattr(spec, "reward", None)
    if not ranked(spec):
        return False
    graders = {(one.id, one.revision) for one in judge.members}
    return ranks is None or any((one.id, one.revision) in graders for one in ranks.members)


def mix_line(files: RunFiles) -> str:
    """What stands in the first line where training saw another mix than was asked for; else nothing."""
    try:
        found = differences(Ledger.from_record(files.ledger)) if files.ledger else []
    except (KeyError, TypeError, AttributeError):  # `ledger_problems` says so
        return ""
    more = f" The same is true of {len(found) - 1} more (see the way of the data)." if len(found) > 1 else ""
    return f"Another mix than asked for: {found[0]}{more}" if found else ""


def ledger_problems(files: RunFiles) -> list[str]:
    """A sentence for each source of which a stage saw another number of pairs than was asked for, or many of whose
    prompts were cut."""
    if not files.ledger:
        return []
    try:
        return problems(Ledger.from_record(files.ledger))
    except (KeyError, TypeError, AttributeError):
        return ["data/ledger.json is of another version: whether every stage saw what was asked is not checked here."]


def by_length(lengths: Mapping[str, Any] | None) -> bool:
    """Whether the rule "the longer answer is better" (or the shorter) explains most of a source's pairs."""
    wins = float((lengths or {}).get("longer_wins", 0.5))
    return wins >= ONE_SIDED or wins <= 1 - ONE_SIDED


def source_name(name: str) -> str:
    """The name of a source; `finance@second` was made for one stage, with the model that this stage starts from."""
    source, at, stage = name.partition("@")
    return f"{source} (made for stage {stage})" if at else name


def losses(line: Mapping[str, Any]) -> list[tuple[str, float, Mapping[str, float]]]:
    """Where a source's rows were lost: (how, rows, rows by reason), without what lost none."""
    found = []
    for key, how in LOSSES.items():
        lost = line.get(key) or {}
        reasons = lost if isinstance(lost, Mapping) else {}
        count = sum(reasons.values()) if isinstance(lost, Mapping) else lost
        if count:
            found.append((how, count, reasons))
    return found
