"""Preference accuracy: which of two given answers does the model prefer? Nothing is generated.

Link: the implicit reward of DPO, Rafailov et al. 2023 (https://arxiv.org/abs/2305.18290), eq. 5. The pairs are those of
any source of the recipe's kinds, such as LLMBar (https://github.com/princeton-nlp/LLMBar) through `table`.
Licence: that of the pairs. Version 1.
Sample: a question, a better and a worse answer to it.
Chance level: 0.5, and exactly 0.5 for the base model, whose log-probability ratio to itself is 1 for every answer.
Value: 1 where log pi(answer) - log base(answer) is higher for the chosen answer, 0.5 where both are equal, else 0: the
sign of the implicit reward margin. So the gain over the base says whether what was trained tells these answers apart.
Metrics: `prefers`: 1 where the chosen answer is likelier per token (a property of the model alone); `margin`: the
difference of the two log-probability ratios in nats. Items of one group (a post, a document) are clustered.
"""

from __future__ import annotations

from equipoise.evaluation.tasks.base import Evidence, Outcome, Task, preferred
from equipoise.recipe_evaluation import PREFERENCE
from equipoise.records import Item


def score(item: Item, evidence: Evidence) -> Outcome:
    """The sign of the implicit reward margin."""
    pair = evidence.pair
    assert pair is not None  # evaluate() gives a reason instead where there is none
    found = preferred(pair)
    margin = (pair.chosen - pair.reference_chosen) - (pair.rejected - pair.reference_rejected)
    return Outcome(found["learned"], metrics={"prefers": found["prefers"], "margin": margin})


TASK = Task(
    name=PREFERENCE,
    version=1,
    value="sign of the implicit reward margin (0, 0.5 or 1)",
    default_id="",
    default_split="",
    pocket_kind="",
    pocket_rows=0,
    needs=frozenset({"pair"}),
    items=None,
    score=score,
)
