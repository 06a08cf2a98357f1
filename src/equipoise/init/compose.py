"""From answers and what was found in the files to the keys of a recipe, each with its comment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from equipoise.evaluation.items import splits
from equipoise.init import settings
from equipoise.init.answers import GENERAL, POCKET, Answers
from equipoise.init.look import Look
from equipoise.init.model import Facts
from equipoise.init.text import Entries, Key
from equipoise.recipe_evaluation import PREFERENCE, REWARDED
from equipoise.recipe_sources import Sampling
from equipoise.records import InputError

DEV_SHARE = 0.4
MOST_ITEMS = 400
"""Held-out pairs that are asked about: their interval is already within 0.05."""
ANSWERED = 0.7
"""Of the questions that a model answers, so many are counted on to make a pair."""
OWN_TASK = {"finance_instruct": "finance_instruct"}
"""Kinds whose rows a task can ask about where a model writes the pairs."""


@dataclass(frozen=True)
class Plan:
    """What the recipe is about to say, before it is written."""

    answers: Answers
    facts: Facts
    name: str
    sources: Mapping[str, Look]
    general: str | None
    tasks: Mapping[str, Mapping[str, Any]]
    held: Mapping[str, int]
    bytes_per_token: float = settings.BYTES_PER_TOKEN

    @property
    def domain(self) -> str:
        """What the experiment is about."""
        return next(iter(self.sources.values())).domain


def make_plan(answers: Answers, facts: Facts, looks: Sequence[Look], general: Look | None, name: str | None) -> Plan:
    """Name the sources and choose the tasks; raises InputError where there is nothing to train on or to measure."""
    sources: dict[str, Look] = {}
    for found in looks:
        sources[_free(found.domain, sources)] = found
    of_general = None
    if general is not None:
        of_general = _free(GENERAL, sources)
        sources[of_general] = general
    for found in sources.values():
        if found.answered_by_model and answers.reward is None:
            raise InputError(
                f"{found.id}: {found.layout.words}: the model's own answers become pairs, ranked by a reward model; "
                "name one with --reward"
            )
        if found.training < 1:
            raise InputError(f"{found.id}: {len(found.pairs)} usable pairs, none is left for training; add more rows")
        if found.whole and found.held_out and not _judges(found.held_groups):
            pairs, groups = len(found.pairs), len({pair.group for pair in found.pairs})
            raise InputError(
                f"{found.id}: {pairs} usable pairs of {groups} different prompts; needs at least {_fewest(pairs)} "
                "pairs of different prompts, so that enough is kept apart to judge by; add more rows"
            )
    held = {f"{PREFERENCE}:{source}": _items(found) for source, found in sources.items() if found.held_out}
    tasks = {**_own_tasks(sources, answers), **_asked_tasks(answers)}
    first = next(iter(sources.values()))
    if not tasks:
        why = "a model writes its pairs" if first.answered_by_model else "too few pairs to keep some apart"
        raise InputError(f"{first.id}: {why}, so there is nothing to evaluate on; name --tasks")
    return Plan(answers, facts, name or first.domain, sources, of_general, tasks, held)


def _judges(groups: int) -> bool:
    """Whether so many independent items leave two, the least there is an interval of, for gates and for the verdict."""
    sides = list(splits(map(str, range(groups)), DEV_SHARE).values())
    return min(sides.count("dev"), sides.count("test")) >= 2


def _fewest(pairs: int) -> int:
    """The fewest different prompts of so many pairs of which enough are held out."""
    share = settings.hold_out(pairs)
    return next(groups for groups in count(1) if _judges(round(share * groups)))


def question(plan: Plan) -> str:
    """The first line: what the experiment asks."""
    others = [task.partition(":")[2] or task for task in list(plan.tasks)[1:]]
    hold = f" while {_listed(others)} {'holds' if len(others) == 1 else 'hold'}" if others else ""
    return f"Does {plan.domain} improve{hold}?"


def next_steps(file: str) -> list[str]:
    """What to do with the file, for its reader."""
    return [
        f"Written by equipoise init. Next: equipoise plan {file}, then equipoise run {file}.",
        "All keys and their defaults: docs/recipe.md. A wrong key is an error that names its line.",
    ]


def keys(plan: Plan) -> list[Key]:
    """The recipe's keys in their order."""
    reward = [Key("id", plan.answers.reward, "scores answers from the outside; hub id, folder or pocket")]
    return [
        Key("name", plan.name, "of the experiment, and of its folder under runs/"),
        Key("seed", 0, "of every random choice; other seeds show how much is luck"),
        Key("model", _model(plan), f"what is trained, {plan.facts.told()}"),
        *([Key("reward", reward)] if plan.answers.reward else []),
        Key("sources", [_source(name, found) for name, found in plan.sources.items()], "where pairs come from"),
        Key("stages", Entries([_stage(plan)]), "one after the other; each is kept only if its gate passes"),
        Key("evaluation", _evaluation(plan), "measured before and after, on the same items"),
    ]


def _model(plan: Plan) -> list[Key]:
    found = [Key("id", plan.answers.model, "hub id, local folder, or pocket (the embedded model)")]
    if plan.answers.quantization:
        found.append(Key("quantization", plan.answers.quantization, "frozen weights in 4 bits: less memory, slower"))
    return found


def _source(name: str, found: Look) -> Key:
    said = {
        "kind": found.layout.words,
        "id": "file, folder in the hub's layout, or hub id",
        "domain": "the ability that these pairs teach",
        "split": "of a folder or hub data set",
        "columns": "which column is what",
        "score": "the column that says how much a comment was liked",
        "rule": "which two comments make a pair (docs/data.md)",
        "rejected": "where the worse answer comes from (docs/data.md has four ways)",
        "finance_only": "keep only rows that speak of money",
        "hold_out": "share kept for the evaluation" + (f": {found.held_out} pairs here" if found.whole else ""),
    }
    rows = f"{found.rows} rows" if found.whole else f"more than {found.rows} rows"
    keys = [Key(key, _columns(value) if key == "columns" else value, said[key]) for key, value in found.record.items()]
    return Key(name, keys, f"{rows} when this was written")


def _columns(columns: Mapping[str, Any]) -> list[Key]:
    said = {
        "prompt": "what is asked; several columns are joined by an empty line",
        "system": "the system message",
        "chosen": "the better answer",
        "rejected": "the worse answer",
        "first": "the first answer",
        "second": "the second answer",
        "label": "1: the first is better, 2: the second, else: neither; of several the majority",
        "group": "what rows share when they belong together",
    }
    return [Key(key, value, said[key]) for key, value in columns.items()]


def _stage(plan: Plan) -> list[Key]:
    available = {name: _available(found, plan) for name, found in plan.sources.items()}
    pairs, shares = settings.mix(available, plan.general, plan.answers.pairs)
    values = settings.training(pairs, plan.facts.parameters)
    every = [pair for found in plan.sources.values() for pair in found.pairs]
    longest, prompt = settings.lengths(every, plan.bytes_per_token, _answer_tokens(plan), plan.facts.positions)
    return [
        Key("name", "tune", "of the stage; a further one would start where it ends"),
        Key("mix", _mix(pairs, shares), "how many pairs of which source"),
        Key("dpo", _dpo(values, longest, prompt), "the loss: prefer chosen over rejected"),
        Key("optim", _optim(values), "the optimiser"),
        Key("lora", _lora(values), "the adapter; the model's own weights stay as they are"),
        Key("gate", _gate(plan), "the rule that decides whether the stage is kept"),
    ]


def counted_on(plan: Plan, drawn: int) -> int:
    """Pairs that so many drawn ones become: not every question that a model answers makes a pair."""
    answered = any(found.answered_by_model for found in plan.sources.values())
    return max(1, int(ANSWERED * drawn)) if answered else drawn


def _available(found: Look, plan: Plan) -> int:
    """Pairs of a source that a stage can count on; what is asked about is not trained on."""
    asked = [spec.get("limit", 0) for spec in plan.tasks.values() if spec.get("id") == found.id]
    left = max(1, found.training - sum(asked))
    return max(1, int(ANSWERED * left)) if found.answered_by_model else left


def _items(found: Look) -> int:
    """Held-out pairs that the evaluation asks about."""
    return min(MOST_ITEMS, found.held_out) if found.whole else MOST_ITEMS


def _mix(pairs: int, shares: Mapping[str, float]) -> list[Key]:
    short = Key("when_short", "shrink", "too few pairs: take fewer; or fail, or repeat some")
    if len(shares) == 1:
        return [Key(next(iter(shares)), pairs, "pairs of this source"), short]
    return [
        Key("pairs", pairs, "in all"),
        Key("shares", dict(shares), "1 in all; more of the others protects them better"),
        short,
    ]


def _dpo(values: settings.Training, longest: int, prompt: int) -> list[Key]:
    return [
        Key("beta", values.beta, "pull towards the model as it was; higher changes less"),
        Key("max_length", longest, "tokens; a pair whose answer does not fit is dropped and counted"),
        Key("max_prompt_length", prompt, "tokens; a longer prompt loses its beginning, and is counted"),
    ]


def _optim(values: settings.Training) -> list[Key]:
    return [
        Key("learning_rate", values.learning_rate, "first to change: lower if others lose, higher if nothing moves"),
        Key("epochs", values.epochs, "passes over the mix; fractions are allowed"),
        Key("batch_size", values.batch_size, "pairs per step, whatever the memory"),
    ]


def _lora(values: settings.Training) -> list[Key]:
    return [
        Key("rank", values.rank, "size of the adapter"),
        Key("alpha", 2 * values.rank, "its weight is alpha / rank"),
    ]


def _gate(plan: Plan) -> list[Key]:
    first, *others = plan.tasks
    found = [Key("improve", {first: 0}, "must lie above this, with its whole interval")]
    if others:
        margins = {task: _margin(plan, task) for task in others}
        found.append(Key("hold", margins, "must not lose more than this; see docs/stages.md"))
    return [*found, Key("on_fail", "rollback", "go back to the last good stage; or stop, continue, retry")]


def _margin(plan: Plan, task: str) -> float:
    if task in plan.held:
        return settings.margin(plan.held[task], DEV_SHARE)
    return settings.MARGINS[task]


def _evaluation(plan: Plan) -> list[Key]:
    tasks = [Key(name, dict(spec) or {}, _task_comment(name, plan)) for name, spec in plan.tasks.items()]
    found = [
        Key("tasks", tasks, "each becomes a domain with a verdict of its own"),
        Key("dev_share", DEV_SHARE, "share of the items that gates look at; the verdict uses the rest"),
    ]
    longest = {name: settings.LONGEST[name] for name in plan.tasks if name in settings.LONGEST}
    if longest:
        generation = [
            Key("temperature", 0, "0: the most likely answer, the same every time"),
            Key("max_new_tokens", longest, "longest answer in tokens"),
        ]
        found.append(Key("generation", generation, "how answers are written"))
    return found


def _task_comment(name: str, plan: Plan) -> str:
    if name in plan.held:
        return f"{plan.held[name]} held-out pairs: is the better answer preferred?"
    return {
        "tatqa": "questions about tables, exact match",
        "mt_bench": "general questions with a second turn, by reward",
        "finance_instruct": "questions about finance, by reward",
        "reddit": "replies to posts about money, by reward",
        "ifeval": "instructions that a program can check",
    }[name]


def _own_tasks(sources: Mapping[str, Look], answers: Answers) -> dict[str, dict[str, Any]]:
    """What the sources themselves allow: held-out pairs, or questions of the same file."""
    found: dict[str, dict[str, Any]] = {}
    for name, look in sources.items():
        if look.held_out:
            few = look.whole and look.held_out <= MOST_ITEMS
            found[f"{PREFERENCE}:{name}"] = {"source": name, **({} if few else {"limit": MOST_ITEMS})}
        elif look.layout.kind in OWN_TASK:
            task = OWN_TASK[look.layout.kind]
            found[task] = {"id": answers.eval_data.get(task, look.id), "limit": max(4, min(200, len(look.pairs) // 5))}
    return found


def _asked_tasks(answers: Answers) -> dict[str, dict[str, Any]]:
    """The tasks that were named; with a reward model and none named, MT-Bench's general questions."""
    named = [*dict.fromkeys([*answers.tasks, *answers.eval_data])]
    if not named and answers.reward:
        named = ["mt_bench"]
    needs = [task for task in named if task in REWARDED]
    if needs and answers.reward is None:
        raise InputError(f"--tasks {needs[0]}: a reward model scores its answers; name one with --reward")
    return {task: _asked_task(task, answers) for task in named}


def _asked_task(task: str, answers: Answers) -> dict[str, Any]:
    place = {"id": answers.eval_data[task]} if task in answers.eval_data else {}
    if not place and answers.model == POCKET and task != "ifeval":
        place = {"id": POCKET}
    return {**place, "limit": settings.LIMITS[task]}


def _answer_tokens(plan: Plan) -> int | None:
    generates = any(found.answered_by_model for found in plan.sources.values())
    return Sampling().max_new_tokens if generates else None


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """The name, with a number where it is taken."""
    return next(free for free in [name, *(f"{name}-{n}" for n in range(2, 1000))] if free not in taken)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
