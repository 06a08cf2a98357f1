"""Tasks x generator -> scores: one record for each item, a value or the reason why there is none.

Answers and rewards come from the store where they are kept, so evaluating the same model on the same items again
costs next to nothing and gives the same bytes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from equipoise.data.read import read_rows
from equipoise.evaluation.health import health
from equipoise.evaluation.tasks import TASKS
from equipoise.evaluation.tasks.base import Built, Outcome, Rewards, Task
from equipoise.model.generate import Answer, Generator
from equipoise.model.reward import Conversation, Reward
from equipoise.model.thinking import without_thinking
from equipoise.recipe_evaluation import Generation, TaskSpec
from equipoise.records import InputError, Item, Message, Score, Split, content_id

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, all)."""


def task(name: str) -> Task:
    """The task called `name`; raises InputError where there is none."""
    if name not in TASKS:
        raise InputError(f"evaluation.tasks: no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[name]


def task_version(name: str) -> int:
    """Version of a task: scores of different versions are not comparable."""
    return task(name).version


def read_items(name: str, spec: TaskSpec) -> Built:
    """Items of a task within its limit, and how many rows gave none, by reason.

    Raises InputError where there is nothing to read, a column is missing, or no item is left.
    """
    found = task(name)
    where = f"evaluation.tasks.{name}"
    built = found.items(_rows(found, spec, where), spec, where)
    if not built.items:
        raise InputError(f"{where}: no usable item ({_reasons(built.left_out)})")
    ranked = built.items
    if spec.pick == "spread":
        ranked = sorted(built.items, key=lambda item: (content_id(["item", item.id]), item.id))
    return Built(ranked[: spec.limit], built.left_out)


def load_items(name: str, spec: TaskSpec) -> list[Item]:
    """Items of a task as `read_items` gives them; rows that were left out are reported on stderr."""
    built = read_items(name, spec)
    if built.left_out:
        count = sum(built.left_out.values())
        reasons = _reasons(built.left_out)
        print(f"equipoise: warning: evaluation.tasks.{name}: {count} left out ({reasons})", file=sys.stderr)
    return built.items


def evaluation_texts(items: Iterable[Item]) -> list[str]:
    """First and later user turns of the items, for finding training pairs that overlap with them.

    System messages are not among them: many prompts share one, and it gives nothing away.
    """
    return [
        turn for item in items for turn in (*(m.content for m in item.prompt if m.role == "user"), *item.follow_ups)
    ]


def splits(groups: Iterable[str], dev_share: float) -> dict[str, Split]:
    """Divide groups into dev and test: `dev_share` of the *groups*, rounded, is dev, the rest is test.

    Groups are ranked by a fixed hash of their name, so the division depends on nothing but the set of names.
    From two groups on, each side has at least one.
    """
    ranked = sorted(set(groups), key=lambda group: (content_id(["split", group]), group))
    dev = round(dev_share * len(ranked))
    if len(ranked) > 1:
        dev = min(max(dev, 1), len(ranked) - 1)
    return {group: "dev" if place < dev else "test" for place, group in enumerate(ranked)}


def evaluate(
    tasks: Mapping[str, list[Item]],
    generator: Generator,
    reward: Reward | None,
    *,
    generation: Generation,
    dev_share: float,
    seed: int,
    thinking: bool = False,
    progress: Progress | None = None,
) -> dict[str, list[Score]]:
    """Score every item of every task and return the scores by task, sorted by item id.

    Args:
        tasks: items by name of the task.
        generator: the model that answers.
        reward: the reward model; may be None where no task needs one.
        generation: temperature, and the longest answer of each task.
        dev_share: share of the groups of each task that gates look at.
        seed: of sampling; without effect at temperature 0.
        thinking: answers begin with thinking, which is neither scored nor shown to the model again.
        progress: called while it goes on.

    Raises InputError where a task is unknown or lacks the reward model that it needs.
    """
    for name in tasks:
        if task(name).needs_reward and reward is None:
            raise InputError(f"evaluation.tasks.{name}: is scored by a reward model; name one under `reward`")
    scores = {}
    for name, items in tasks.items():
        answers = _answers(name, items, generator, generation, seed, thinking, progress)
        outcomes = _outcomes(task(name), items, answers, reward, progress)
        side = splits((item.group for item in items), dev_share)
        made = [_score(*one, side) for one in zip(items, answers, outcomes, strict=True)]
        scores[name] = sorted(made, key=lambda score: score.id)
    return scores


def _answers(
    name: str,
    items: Sequence[Item],
    generator: Generator,
    generation: Generation,
    seed: int,
    thinking: bool,
    progress: Progress | None,
) -> list[list[Answer]]:
    """Answers to each item, one for each turn; a conversation ends with its first refused prompt."""
    answers: list[list[Answer]] = [[] for _ in items]
    for turn in range(1 + max((len(item.follow_ups) for item in items), default=0)):
        due = [i for i, item in enumerate(items) if turn <= len(item.follow_ups) and not _refused(answers[i])]
        label = f"{name}: answers" if turn == 0 else f"{name}: answers, turn {turn + 1}"
        written = generator.generate(
            [conversation(items[i], answers[i]) for i in due],
            max_new_tokens=generation.longest(name),
            temperature=generation.temperature,
            seed=seed,
            progress=_labelled(progress, label),
        )
        for i, answer in zip(due, written, strict=True):
            answers[i].append(without_thinking(answer) if thinking else answer)
    return answers


def conversation(item: Item, answers: Sequence[Answer]) -> tuple[Message, ...]:
    """The prompt of the next turn: everything said so far, the model's own answers included."""
    messages = list(item.prompt)
    for answer, follow_up in zip(answers, item.follow_ups, strict=False):
        messages += [Message("assistant", answer.text), Message("user", follow_up)]
    return tuple(messages)


def _outcomes(
    found: Task,
    items: Sequence[Item],
    answers: Sequence[list[Answer]],
    reward: Reward | None,
    progress: Progress | None,
) -> list[Outcome]:
    """Score each item; where a prompt was refused or a reward is missing, that is the reason."""
    reasons: list[str | None] = [_refused(given) for given in answers]
    raw: list[list[float | str]] = [[] for _ in items]
    if found.needs_reward and reward is not None:
        asked: list[tuple[int, Conversation]] = [
            (i, (conversation(item, given[:turn]), given[turn].text))
            for i, (item, given) in enumerate(zip(items, answers, strict=True))
            if reasons[i] is None
            for turn in range(len(given))
        ]
        rewards = reward.score([one for _, one in asked], _labelled(progress, f"{found.name}: rewards"))
        for (i, _), value in zip(asked, rewards, strict=True):
            raw[i].append(value)
    return [_outcome(found, *one, reward) for one in zip(items, answers, reasons, raw, strict=True)]


def _outcome(
    found: Task, item: Item, answers: list[Answer], reason: str | None, raw: list[float | str], reward: Reward | None
) -> Outcome:
    reason = reason or next((f"no reward: {value}" for value in raw if isinstance(value, str)), None)
    if reason:
        return Outcome(None, reason)
    values = [value for value in raw if not isinstance(value, str)]
    return found.score(
        item, answers, Rewards(values, reward.calibration.to_ten) if found.needs_reward and reward else None
    )


def _score(item: Item, answers: list[Answer], outcome: Outcome, side: Mapping[str, Split]) -> Score:
    texts = tuple(answer.text for answer in answers if answer.refused is None)
    return Score(
        id=item.id,
        task=item.task,
        content=item.content,
        group=item.group,
        category=item.category,
        split=side[item.group],
        answers=texts,
        health=health(texts, any(answer.cut_off for answer in answers)),
        value=outcome.value,
        unscored=outcome.unscored,
        metrics=dict(outcome.metrics),
    )


def _refused(answers: Sequence[Answer]) -> str | None:
    """Why the conversation could not go on, or None."""
    return next((answer.refused for answer in answers if answer.refused), None)


def _rows(found: Task, spec: TaskSpec, where: str) -> list[dict[str, Any]]:
    if spec.id == "pocket":
        world = importlib.import_module("equipoise.pocket.world")
        return list(world.rows(found.pocket_kind, split="eval", n=found.pocket_rows))
    split = spec.split or found.default_split
    return read_rows(spec.id or found.default_id, revision=spec.revision, split=split, what=where)


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "no rows"


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(label, done, total)) if progress else None
