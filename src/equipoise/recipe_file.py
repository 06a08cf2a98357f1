"""Reading recipes: YAML with line numbers in errors, overrides, references checked, a fingerprint."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from equipoise.recipe import CIRCUMSTANCES, Recipe
from equipoise.recipe_evaluation import METRICS, NAMED_TASKS, REWARDED, Evaluation, MtBenchSpec, PreferenceSpec, kind_of
from equipoise.recipe_sources import ranked, scored
from equipoise.records import InputError, content_id
from equipoise.yaml_text import parse_yaml, plain

Location = tuple[str | int, ...]
KINDS = ("pocket", "orca", "hh", "table", "reddit", "finance_instruct", "on_policy", "mt_bench_style")
SHOWN_CHANGES = 8
"""Differences of two recipes that a message lists: more of them mean another recipe, not a change."""
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class RecipeError(InputError):
    """The recipe is wrong; the message has one line for each problem."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file, apply `a.b=c` overrides and check everything that can be checked without data.

    Raises RecipeError with one line per problem: file, line, field, what to do.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot read the recipe: {error}") from None
    return parse_recipe(text, overrides, where=str(path))


def parse_recipe(text: str, overrides: Sequence[str] = (), *, where: str = "recipe") -> Recipe:
    """The same as `load_recipe` for the text of a recipe."""
    document = parse_yaml(text, where, error=RecipeError)
    if not isinstance(document, CommentedMap):
        raise RecipeError(f"{where}: a recipe is a mapping of keys to values, beginning with `name:`")
    values = _expand(plain(document), where)
    for override in overrides:
        _apply(values, override)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, document, where))) from None
    problems = list(_dangling(recipe))
    if problems:
        raise RecipeError("\n".join(f"{where}{_at(document, loc)}: {_field(loc)}: {text}" for loc, text in problems))
    return recipe


def parse_evaluation(record: Mapping[str, Any], overrides: Sequence[str] = ()) -> Evaluation:
    """An evaluation without the rest of a recipe; overrides begin with `evaluation.` as those of a recipe do."""
    values = {"evaluation": dict(record)}
    for override in overrides:
        _apply(values, override)
    if list(values) != ["evaluation"]:
        raise RecipeError(f"--set {overrides[-1]}: only keys of `evaluation` can be set here")
    try:
        return Evaluation.model_validate(values["evaluation"])
    except ValidationError as error:
        problems = [{**problem, "loc": ("evaluation", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RecipeError("\n".join(_told(problems, None, "the command line"))) from None


def resolved(recipe: Recipe) -> dict[str, Any]:
    """The recipe with every default filled in, as it stands in `recipe.json`, with its fingerprint."""
    return {**recipe.model_dump(mode="json"), "fingerprint": fingerprint(recipe)}


def stored_recipe(record: Mapping[str, Any]) -> Recipe:
    """The recipe of a `recipe.json`; raises RecipeError where it is none."""
    try:
        return Recipe.model_validate({key: value for key, value in record.items() if key != "fingerprint"})
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, None, "recipe.json"))) from None


def fingerprint(recipe: Recipe) -> str:
    """Identity of the experiment: what changes the result, and nothing else (not its name, not who watches it)."""
    return fingerprint_of(recipe.model_dump(mode="json"))


def fingerprint_of(record: Mapping[str, Any]) -> str:
    """The same for what stands in `recipe.json`, which an older version may have written with fewer keys."""
    return content_id({key: value for key, value in record.items() if key not in {*CIRCUMSTANCES, "fingerprint"}})


def changed_fields(one: Recipe, other: Recipe) -> list[str]:
    """Fields in which two recipes differ, as `a.b.c: x -> y`; what changes no result is left out."""
    left, right = (dict(_leaves(item.model_dump(mode="json", exclude=set(CIRCUMSTANCES)))) for item in (one, other))
    keys = sorted(left.keys() | right.keys())
    return [f"{key}: {left.get(key)!r} -> {right.get(key)!r}" for key in keys if left.get(key) != right.get(key)]


def told_changes(changes: Sequence[str]) -> list[str]:
    """The first `SHOWN_CHANGES` of what `changed_fields` found, and how many more there are."""
    more = len(changes) - SHOWN_CHANGES
    return [*changes[:SHOWN_CHANGES], *([f"and {more} more"] if more > 0 else [])]


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield prefix, value
    else:
        for key, child in children:
            yield from _leaves(child, f"{prefix}.{key}" if prefix else str(key))


def _expand(value: Any, where: str) -> Any:
    """Replace ${NAME} and ${NAME:-default} in texts by environment variables."""
    if isinstance(value, dict):
        return {key: _expand(child, where) for key, child in value.items()}
    if isinstance(value, list):
        return [_expand(child, where) for child in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        found = os.environ.get(match[1]) or match[2]
        if found is None:
            raise RecipeError(f"{where}: ${{{match[1]}}}: set the environment variable {match[1]}")
        return found

    return _VARIABLE.sub(replacement, value)


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one `a.b.c=value`; stages may be named by position or by their name."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise RecipeError(f"--set {override}: write it as a.b.c=value")
    here: Any = document
    for part in parts[:-1]:
        here = _descend(here, part, override)
    last = parts[-1]
    value = plain(parse_yaml(text, f"--set {override}", error=RecipeError))
    if isinstance(here, list):
        here[_position(here, last, override)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise RecipeError(f"--set {override}: {last!r} has nothing to be set in")


def _descend(here: Any, part: str, override: str) -> Any:
    if isinstance(here, list):
        return here[_position(here, part, override)]
    if isinstance(here, dict):
        if here.get(part) is None:
            here[part] = {}
        return here[part]
    raise RecipeError(f"--set {override}: {part!r} has nothing below it")


def _position(items: list[Any], part: str, override: str) -> int:
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    known = ", ".join(str(name) for name in names if name)
    raise RecipeError(f"--set {override}: no entry {part!r}; there are {len(items)}: {known}")


def _dangling(recipe: Recipe) -> Iterator[tuple[Location, str]]:
    """References inside the recipe that lead nowhere."""
    tasks = recipe.evaluation.tasks.chosen()
    if not tasks:
        yield ("evaluation", "tasks"), "name at least one task"
    judged = tasks.get("mt_bench")
    by_judge = isinstance(judged, MtBenchSpec) and judged.scored_by == "judge"
    if by_judge and recipe.evaluation.judge is None:
        where: Location = ("evaluation", "tasks", "mt_bench", "scored_by")
        yield where, "a judge grades it; add `judge: {url: ..., model: ...}` to `evaluation`"
    rewarded = [name for name in tasks if name in REWARDED and not (name == "mt_bench" and by_judge)]
    for name, task in tasks.items():
        if isinstance(task, PreferenceSpec) and isinstance(task.source, str) and task.source not in recipe.sources:
            yield (
                ("evaluation", "tasks", name, "source"),
                f"no source {task.source!r}{_nearest(task.source, recipe.sources)}",
            )
    if rewarded and recipe.reward is None:
        yield ("evaluation", "tasks"), f"{', '.join(rewarded)}: scored by a reward model; add `reward: {{id: ...}}`"
    for name, spec in recipe.sources.items():
        if ranked(spec) and getattr(spec, "reward", None) is None and recipe.reward is None:
            yield ("sources", name), "a reward model ranks its answers; add `reward: {id: ...}` to it or to the recipe"
    longest = recipe.evaluation.generation.max_new_tokens
    for name in longest if isinstance(longest, dict) else ():
        if name not in tasks:
            at_longest = ("evaluation", "generation", "max_new_tokens", name)
            yield at_longest, f"{name!r} is not evaluated{_nearest(name, tasks)}"
    names = [stage.name for stage in recipe.stages]
    for number, stage in enumerate(recipe.stages):
        at: Location = ("stages", number)
        if stage.name in names[:number]:
            yield (*at, "name"), f"a second stage is called {stage.name!r}; give each its own name"
        for source in stage.mix.sources:
            if source not in recipe.sources:
                yield (*at, "mix", source), f"no source {source!r}{_nearest(source, recipe.sources)}"
        for rule in ("improve", "hold", "health"):
            for key in getattr(stage.gate, rule):
                domain, _, metric = key.partition(".")
                at_key: Location = (*at, "gate", rule, key)
                if domain not in tasks:
                    yield at_key, f"the gate looks at {domain!r}, which is not evaluated{_nearest(domain, tasks)}"
                if rule != "health" and metric and metric not in METRICS.get(kind_of(domain), (metric,)):
                    yield at_key, f"{domain} has no figure {metric!r}{_nearest(metric, METRICS[kind_of(domain)])}"
        if not isinstance(stage.order, str) and stage.order.by == "score_gap":
            for source in stage.mix.sources:
                if source in recipe.sources and not scored(recipe.sources[source]):
                    where = (*at, "order", "by")
                    yield where, f"score_gap: source {source} gives no scores; use margin, reward_gap or length"
        if not isinstance(stage.order, str) and stage.order.by == "reward_gap" and recipe.reward is None:
            yield (*at, "order", "by"), "reward_gap asks a reward model; add `reward: {id: ...}` to the recipe"
        yield from _unadapted(recipe, number)
        if stage.dpo.max_prompt_length >= stage.dpo.max_length:
            yield (*at, "dpo", "max_prompt_length"), "must be below max_length, or no answer has room"


def _unadapted(recipe: Recipe, number: int) -> Iterator[tuple[Location, str]]:
    """Domains of a stage's pairs without an adapter, and adapters without pairs, where each domain has its own."""
    stage = recipe.stages[number]
    if not isinstance(stage.lora, dict):
        return
    sources = [source for one in recipe.stages[: number if stage.replay else 0] for source in one.mix.sources]
    sources = [source for source in (*stage.mix.sources, *sources) if source in recipe.sources]
    at: Location = ("stages", number, "lora")
    domains = {recipe.sources[source].domain: source for source in reversed(sources)}
    for domain, source in domains.items():
        if domain not in stage.lora:
            yield at, f"domain {domain!r} (source {source}) has no adapter; add `{domain}: {{rank: 8, alpha: 16}}`"
    for domain in stage.lora:
        if domain not in domains:
            yield (*at, domain), f"no pairs of this domain in the stage{_nearest(domain, domains)}; leave it out"


def _explain(error: ValidationError, document: Any, where: str) -> Iterator[str]:
    return _told(error.errors(include_url=False), document, where)


def _told(problems: Iterable[Mapping[str, Any]], document: Any, where: str) -> Iterator[str]:
    told: set[str] = set()  # a union complains once for each of its branches: the first says enough
    for problem in problems:
        location = problem["loc"]
        if _field(location) in told:
            continue
        told.add(_field(location))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key{_unknown(location)}"
        elif problem["type"] == "missing":
            message = "missing; add it"
        elif problem["type"] not in ("value_error", "union_tag_invalid", "union_tag_not_found"):
            message = f"{message[0].lower()}{message[1:]} (found {problem['input']!r})"
        yield f"{where}{_at(document, location)}: {_field(location)}: {message}"


def _keys_at(location: Location) -> list[str]:
    """Keys that the recipe's schema allows at a location."""
    return [key for kind in _kinds_at(location) for key in kind.model_fields if key not in NAMED_TASKS]


def _kinds_at(location: Location) -> list[Any]:
    kinds: list[Any] = [Recipe]
    for part in location:
        kinds = [found for kind in kinds for found in _step(kind, part)]
    return kinds


def _unknown(location: Location) -> str:
    """What to do about a key that the schema does not have: it may stand one level too high."""
    key = str(location[-1])
    for kind in _kinds_at(location[:-1]):
        for name, field in kind.model_fields.items():
            if any(key in below.model_fields for below in _models_in(field.annotation)):
                return f"; did you mean '{name}.{key}'?"
    return _nearest(key, _keys_at(location[:-1]))


def _step(kind: type[BaseModel], part: str | int) -> list[Any]:
    field = kind.model_fields.get(str(part))
    if field is not None:
        return _models_in(field.annotation)
    tags = get_args(kind.model_fields["kind"].annotation) if "kind" in kind.model_fields else ()
    return [] if part in KINDS and part not in tags else [kind]  # a dictionary key, a list position or a union's tag


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _nearest(word: str, known: Any) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; known: {', '.join(sorted(set(known)))}" if known else ""


def _at(document: Any, location: Location) -> str:
    """`:line` of the deepest part of `location` that stands in the file (empty if none does)."""
    line: int | None = None
    for part in location:
        if isinstance(document, CommentedMap) and part in document:
            line = document.lc.key(part)[0] + 1
        elif isinstance(document, CommentedSeq) and isinstance(part, int) and part < len(document):
            line = document.lc.item(part)[0] + 1
        else:
            continue  # the tag of a union, a default, or something from --set
        document = document[part]
    return f":{line}" if line else ""


def _field(location: Location) -> str:
    """`a.b.c`; pydantic's own marks for the branch of a union are no keys and are left out."""
    parts = [str(part) for part in location]
    shown = [part for place, part in enumerate(parts) if not _is_tag(parts, place)]
    return ".".join(shown) or "recipe"


def _is_tag(parts: Sequence[str], place: int) -> bool:
    in_source = place == 2 and parts[0] == "sources" and parts[2] in KINDS
    in_tasks = place == 2 and list(parts[:2]) == ["evaluation", "tasks"] and parts[2] in NAMED_TASKS
    return (
        in_source
        or in_tasks
        or any(mark in parts[place] for mark in ("[", "constrained-"))
        or parts[place] in ("int", "dict", "Curriculum")
    )
