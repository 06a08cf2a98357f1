"""Any task of lm-evaluation-harness: `lm_eval:<task>` in a recipe (the `[lm-eval]` extra).

Link: https://github.com/EleutherAI/lm-evaluation-harness. Licence: MIT, and that of each task's data. Version 1.
Sample: "Question: [...] Answer:", with the log-probability of each choice, or a generated answer.
Chance level: the task's own (0.25 with four choices).
Value: the task's first metric, or the one that the recipe names; the others are further metrics. Items, prompts and
scores are made by the harness (`evaluation/harness.py`); intervals and verdicts are made here, as for every task.
"""

from __future__ import annotations

from equipoise.evaluation.tasks.base import Evidence, Outcome, Task
from equipoise.records import Item


def score(item: Item, evidence: Evidence) -> Outcome:
    """What the harness made of the item."""
    return evidence.outcome or Outcome(None, "the harness gave no score")


TASK = Task(
    name="lm_eval",
    version=1,
    value="the task's metric",
    default_id="",
    default_split="",
    pocket_kind="",
    pocket_rows=0,
    needs=frozenset({"harness"}),
    items=None,
    score=score,
)
