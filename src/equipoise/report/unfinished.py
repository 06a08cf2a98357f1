"""What is said of a run without a verdict: why it ended, which points have scores, what the gates decided."""

from __future__ import annotations

from equipoise.report.read import RunFiles
from equipoise.report.text import listed, private, shorten

THEN = {
    "keep": "the stage is kept",
    "rollback": "back to the last kept stage",
    "stop": "the run ends here",
    "retry": "trained again",
}
"""What an action of a gate means."""


def failure(files: RunFiles) -> str:
    """Why the run failed, where that is the last thing that happened; else nothing."""
    last = files.events[-1] if files.events else {}
    if last.get("event") != "failed":
        return ""
    said, left = shorten(" ".join(private(str(last.get("error") or "for a reason that is not known")).split()), 300)
    return f"failed: {said}{' …' if left else ''}"


def so_far(files: RunFiles) -> str:
    """Which points were scored and what the gates decided, as long as there is no verdict."""
    if files.verdict:
        return ""
    scored = [name for name, tasks in files.points.items() if any(tasks.values())]
    said = [f"Scored: {listed(scored)}."] if scored else []
    for stage in files.stages:
        if stage.decision is not None:
            result = stage.decision.result
            said.append(f"Gate of {stage.point}: {result.outcome}, {THEN[result.action]}.")
    return " ".join(said)


def uncompared(files: RunFiles) -> str:
    """Why no figure of a comparison is shown."""
    if files.verdict:
        return "No comparison with the base model is shown."
    if files.ended:
        return "The verdict cannot be read, and no comparison with the base model is shown."
    return " ".join(filter(None, ["Nothing was compared yet.", so_far(files)]))
