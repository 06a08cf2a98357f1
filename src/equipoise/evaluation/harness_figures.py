"""Which figures of a task of lm-evaluation-harness have a value for each question, and what an item's are.

The statistics here compare items, so a figure can be used only where the harness's own result is the mean of its values
(accuracy, exact match): BLEU or perplexity of a whole corpus have no value per item.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from equipoise.records import InputError

Record = Mapping[str, Any]
"""What the harness logs of one document under one filter."""


def value_of(task: Any, asked: str | None, where: str) -> tuple[str, str]:
    """The figure that is compared and the filter that picks its answer, by the recipe's `metric` or by default the
    task's first of each. `metric` is a name, or name and filter (`exact_match,flexible-extract`).

    Raises InputError where there is no such figure, it has no value per question, or less of it is better.
    """
    figures, filters = list(task.aggregation()), filters_of(task)
    metric, _, picked_by = (asked or (figures or [""])[0]).partition(",")
    usable = [name for name in figures if _is_mean(task, name) and task.higher_is_better().get(name, True)]
    choice = [figure_name(task, name, one) for name in usable for one in filters]
    known = f"usable: {', '.join(choice)}" if choice else "none of this task's can be used"
    if metric not in figures or (picked_by or filters[0]) not in filters:
        raise InputError(f"{where}.metric: no figure {asked!r}; {known}")
    if not _is_mean(task, metric):
        raise InputError(f"{where}.metric: {metric} is a figure of all answers together, not of each question; {known}")
    if metric not in usable:
        raise InputError(f"{where}.metric: of {metric} less is better, so a gain would be called a loss; {known}")
    return metric, picked_by or filters[0]


def filters_of(task: Any) -> list[str]:
    """The names of the task's filters: ways of picking the answer out of what the model said."""
    return [str(one["name"]) for one in task.config.filter_list or []] or ["none"]


def figure_name(task: Any, figure: str, picked_by: str) -> str:
    """The name of a figure: `figure,filter` where the task has several filters."""
    return figure if len(filters_of(task)) == 1 else f"{figure},{picked_by}"


def figures_of(task: Any, records: Sequence[Record]) -> dict[str, float]:
    """The figures of one item by name, from its records, one for each filter.

    Those without a finite value for this item are left out.
    """
    return {
        figure_name(task, name, record["filter"]): float(record[name])
        for record in records
        for name in record["metrics"]
        if _is_mean(task, name) and _is_finite(record[name])
    }


def _is_mean(task: Any, name: str) -> bool:
    """Whether the harness's result is the mean over items; a figure that names no aggregation gets it, too."""
    own = import_module("lm_eval.api.metrics")
    means = (own.mean, own.nanmean, np.mean, np.nanmean, statistics.mean, statistics.fmean)
    return task.aggregation().get(name, own.mean) in means


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float | np.number | np.bool_) and math.isfinite(value)
