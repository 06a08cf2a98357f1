"""Tasks x instruments -> scores: one record for each item, a value or the reason why there is none.

Answers and rewards come from the store where they are kept, so evaluating the same model on the same items again
costs next to nothing and gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import TYPE_CHECKING

from equipoise.evaluation.health import NOTHING_WRITTEN, health
from equipoise.evaluation.items import splits, task
from equipoise.evaluation.tasks.base import Evidence, Outcome, PairLikelihood, Rewards, Task
from equipoise.model.generate import Answer, Generator
from equipoise.model.reward import Conversation, Reward
from equipoise.model.thinking import without_thinking
from equipoise.recipe_evaluation import Evaluation, MtBenchSpec
from equipoise.records import InputError, Item, Message, Score, Split

if TYPE_CHECKING:
    from equipoise.evaluation.judge import Judge

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, all)."""


@dataclass(frozen=True)
class Instruments:
    """What a model is measured with.

    `generator` is the model that answers, `reward` and `judge` grade its answers (None where no task needs them).
    `likelihoods` and `harness` hold what was found out about items for which nothing is generated here.
    """

    generator: Generator
    reward: Reward | None = None
    judge: Judge | None = None
    likelihoods: Mapping[str, Mapping[str, PairLikelihood | str]] = field(default_factory=dict)
    harness: Mapping[str, Mapping[str, tuple[Outcome, tuple[str, ...]]]] = field(default_factory=dict)


def evaluate(
    tasks: Mapping[str, list[Item]],
    instruments: Instruments,
    evaluation: Evaluation,
    *,
    seed: int,
    thinking: bool = False,
    progress: Progress | None = None,
) -> dict[str, list[Score]]:
    """Score every item of every task and return the scores by task, sorted by item id.

    Args:
        tasks: items by name of the task.
        instruments: the model, and what its answers are measured with.
        evaluation: how answers are generated and graded, and the share of the groups that gates look at.
        seed: of sampling; without effect at temperature 0.
        thinking: answers begin with thinking, which is neither scored nor shown to the model again.
        progress: called while it goes on.

    Raises InputError where a task is unknown or lacks the reward model or the judge that it needs.
    """
    for name in tasks:
        _require_graders(name, instruments, evaluation)
    scores = {}
    for name, items in tasks.items():
        found = task(name)
        if "answers" in found.needs:
            answers = _answers(name, items, instruments.generator, evaluation, seed, thinking, progress)
        else:
            answers = [_taken_over(name, item, instruments) for item in items]
        outcomes = list(_outcomes(name, found, items, answers, instruments, evaluation, progress))
        side = splits((item.group for item in items), evaluation.dev_share)
        made = [_score(found, *one, side) for one in zip(items, answers, outcomes, strict=True)]
        scores[name] = sorted(made, key=lambda score: score.id)
    return scores


def judged(name: str, evaluation: Evaluation) -> bool:
    """Whether a judge grades the answers of a task, instead of the reward model."""
    spec = evaluation.tasks.chosen().get(name)
    return isinstance(spec, MtBenchSpec) and spec.scored_by == "judge"


def rewarded(name: str, evaluation: Evaluation) -> bool:
    """Whether a reward model scores the answers of a task."""
    return "reward" in task(name).needs and not judged(name, evaluation)


def _require_graders(name: str, instruments: Instruments, evaluation: Evaluation) -> None:
    where = f"evaluation.tasks.{name}"
    if rewarded(name, evaluation) and instruments.reward is None:
        raise InputError(f"{where}: is scored by a reward model; name one under `reward`")
    if judged(name, evaluation) and instruments.judge is None:
        raise InputError(f"{where}: is scored by a judge; name one under `evaluation.judge`")


def _taken_over(name: str, item: Item, instruments: Instruments) -> list[Answer]:
    """What the model wrote for another program."""
    _, texts = instruments.harness.get(name, {}).get(item.id, (None, ()))
    return [Answer(text, 0, False) for text in texts]


def _answers(
    name: str,
    items: Sequence[Item],
    generator: Generator,
    evaluation: Evaluation,
    seed: int,
    thinking: bool,
    progress: Progress | None,
) -> list[list[Answer]]:
    """Answers to each item, one for each turn; a conversation ends with its first refused prompt."""
    generation = evaluation.generation
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
            answers[i].append(_said(answer) if thinking else answer)
    return answers


def _said(answer: Answer) -> Answer:
    """What a thinking model says once it has thought; one that never stops thinking has not answered."""
    said = without_thinking(answer)
    return said if said.text or said.refused else replace(said, refused="the answer is thinking alone")


def conversation(item: Item, answers: Sequence[Answer]) -> tuple[Message, ...]:
    """The prompt of the next turn: everything said so far, the model's own answers included."""
    messages = list(item.prompt)
    for answer, follow_up in zip(answers, item.follow_ups, strict=False):
        messages += [Message("assistant", answer.text), Message("user", follow_up)]
    return tuple(messages)


def _outcomes(
    name: str,
    found: Task,
    items: Sequence[Item],
    answers: Sequence[list[Answer]],
    instruments: Instruments,
    evaluation: Evaluation,
    progress: Progress | None,
) -> Iterator[Outcome]:
    """Score each item; where a prompt was refused or a reward is missing, that is the reason."""
    open_ = [i for i, given in enumerate(answers) if _refused(given) is None]
    graded: dict[int, Rewards | Sequence[float] | str] = {}
    if rewarded(name, evaluation):
        graded = _rewards(name, items, answers, open_, instruments.reward, progress)
    elif judged(name, evaluation):
        graded = _grades(name, items, answers, open_, instruments.judge, progress)
    pairs = instruments.likelihoods.get(name, {})
    for i, (item, given) in enumerate(zip(items, answers, strict=True)):
        grade, pair = graded.get(i), pairs.get(item.id)
        reason = _refused(given) or (grade if isinstance(grade, str) else None)
        if "answers" not in found.needs and "pair" in found.needs and not isinstance(pair, PairLikelihood):
            reason = f"no log-probability: {pair}"
        if reason:
            yield Outcome(None, reason)
            continue
        yield found.score(
            item,
            Evidence(
                answers=given,
                rewards=grade if isinstance(grade, Rewards) else None,
                grades=None if isinstance(grade, Rewards | str) else grade,
                pair=pair if isinstance(pair, PairLikelihood) else None,
                outcome=instruments.harness[name][item.id][0] if item.id in instruments.harness.get(name, {}) else None,
            ),
        )


def _turns(
    items: Sequence[Item], answers: Sequence[list[Answer]], open_: Sequence[int]
) -> list[tuple[int, int, tuple[Message, ...]]]:
    """(item, turn, conversation before the answer) of every answer that is to be graded."""
    return [(i, turn, conversation(items[i], answers[i][:turn])) for i in open_ for turn in range(len(answers[i]))]


def _rewards(
    name: str,
    items: Sequence[Item],
    answers: Sequence[list[Answer]],
    open_: Sequence[int],
    reward: Reward | None,
    progress: Progress | None,
) -> dict[int, Rewards | Sequence[float] | str]:
    """Rewards of each item's answers, or the reason why there are none; the reference answers' beside them."""
    assert reward is not None
    blank = [i for i in open_ if not all(answer.text.strip() for answer in answers[i])]
    open_ = [i for i in open_ if i not in set(blank)]
    turns = _turns(items, answers, open_)
    asked: list[Conversation] = [(said, answers[i][turn].text) for i, turn, said in turns]
    with_reference = [i for i in open_ if items[i].gold.get("reference")]
    asked += [(items[i].prompt, items[i].gold["reference"]) for i in with_reference]
    values = reward.score(asked, _labelled(progress, f"{name}: rewards"))
    details = reward.details(asked[: len(turns)])
    raw: dict[int, list[float | str]] = {}
    further: dict[int, list[Mapping[str, float]]] = {}
    for (i, _, _), value, figures in zip(turns, values, details, strict=False):
        raw.setdefault(i, []).append(value)
        further.setdefault(i, []).append(figures)
    references = dict(zip(with_reference, values[len(turns) :], strict=True))
    found: dict[int, Rewards | Sequence[float] | str] = dict.fromkeys(blank, "no reward: empty answer")
    for i, given in raw.items():
        reason = next((value for value in given if isinstance(value, str)), None)
        beside = references.get(i)
        numbers = [value for value in given if not isinstance(value, str)]
        found[i] = (
            f"no reward: {reason}"
            if reason
            else Rewards(
                numbers,
                reward.calibration.to_ten,
                beside if isinstance(beside, float) else None,
                _means(further[i]),
            )
        )
    return found


def _means(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the turns of what every turn has."""
    names = [name for name in figures[0] if all(name in one for one in figures)]
    return {name: fsum(one[name] for one in figures) / len(figures) for name in names}


def _grades(
    name: str,
    items: Sequence[Item],
    answers: Sequence[list[Answer]],
    open_: Sequence[int],
    judge: Judge | None,
    progress: Progress | None,
) -> dict[int, Rewards | Sequence[float] | str]:
    """A judge's grades of each item's answers, or the reason why there are none."""
    from equipoise.evaluation.judge import Judged

    assert judge is not None
    turns = _turns(items, answers, open_)
    asked = [
        Judged(
            said, answers[i][turn].text, turn=turn + 1, reference=_reference(items[i], turn), question=said[-1].content
        )
        for i, turn, said in turns
    ]
    found: dict[int, Rewards | Sequence[float] | str] = {}
    for (i, _, _), grade in zip(turns, judge.grade(asked, _labelled(progress, f"{name}: grades")), strict=True):
        before = found.get(i, [])
        if isinstance(before, list):
            found[i] = [*before, grade.value] if grade.value is not None else str(grade.reason)
    return found


def _reference(item: Item, turn: int) -> str | None:
    """The reference answer of a turn (from 0) that the judge is shown, where there is one."""
    given = item.gold.get("references", ())
    return given[turn] if turn < len(given) and given[turn] else None


def _score(found: Task, item: Item, answers: list[Answer], outcome: Outcome, side: Mapping[str, Split]) -> Score:
    texts = tuple(answer.text for answer in answers if answer.refused is None)
    written = "answers" in found.needs or texts
    return Score(
        id=item.id,
        task=item.task,
        content=item.content,
        group=item.group,
        category=item.category,
        split=side[item.group],
        answers=texts,
        health=health(texts, any(answer.cut_off for answer in answers), item.question) if written else NOTHING_WRITTEN,
        value=outcome.value,
        unscored=outcome.unscored,
        metrics=dict(outcome.metrics),
    )


def _refused(answers: Sequence[Answer]) -> str | None:
    """Why the conversation could not go on, or None."""
    return next((answer.refused for answer in answers if answer.refused), None)


def _labelled(progress: Progress | None, label: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(label, done, total)) if progress else None
