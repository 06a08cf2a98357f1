"""The domains that can be evaluated: a plain dictionary, one file for each task."""

from equipoise.evaluation.tasks import finance_instruct, mt_bench, reddit, tatqa
from equipoise.evaluation.tasks.base import Task

TASKS: dict[str, Task] = {task.name: task for task in (tatqa.TASK, mt_bench.TASK, finance_instruct.TASK, reddit.TASK)}
