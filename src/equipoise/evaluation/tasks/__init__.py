"""The domains that can be evaluated: a plain dictionary, one file for each task."""

from equipoise.evaluation.tasks import finance_instruct, ifeval, lm_eval, mt_bench, preference_accuracy, reddit, tatqa
from equipoise.evaluation.tasks.base import Task

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK
    for module in (tatqa, mt_bench, finance_instruct, reddit, ifeval, preference_accuracy, lm_eval)
}
