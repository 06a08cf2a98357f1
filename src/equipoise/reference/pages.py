"""The reference of all recipe keys, `docs/recipe.md`: one table for each part, in the order of a recipe.

It is made from the schema, so a key, a default or a limit that changes in the recipe's classes changes here; a test
says when the page was not made again. By hand are only the headings and their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain

from pydantic import BaseModel

from equipoise.recipe_evaluation import TaskSpec
from equipoise.recipe_sources import FileSource, SourceBase
from equipoise.reference.schema import Node, plain_schema, tidy
from equipoise.reference.words import default_words, type_words

INTRODUCTION = """# Every key of a recipe

Made by `equipoise recipes reference` from the classes that read recipes; do not edit it by hand. `equipoise recipes
schema` makes the same as a JSON Schema ([recipe.schema.json](recipe.schema.json)), with which editors complete keys and
mark mistakes ([how](own-model.md)).

A recipe is one YAML file. Its first line is a comment with the question that the experiment asks. A key that does not
exist is an error that names the nearest one. `--set stages.finance.dpo.beta=0.05` overrides a key for one run. A text
may hold `${NAME}` or `${NAME:-default}`: an environment variable. A *name* has letters, digits, `.`, `_` and `-`, and
begins with a letter or digit. Under default, *none* means that nothing is set, and *its own* that the defaults of that
part hold.
"""
SOURCE, ROWS, TASK = "Every source", "Every source that reads rows", "Every task"
SHARED: dict[str, tuple[type[BaseModel], str]] = {
    SOURCE: (SourceBase, "sources:"),
    ROWS: (FileSource, "sources:"),
    TASK: (TaskSpec, "evaluation: tasks:"),
}
"""Keys that several parts have in common stand once: under which heading, of which class, for which other headings."""
ANY_SOURCE = {
    "description": "Each source has a name of your choice and a `kind`: `table` for any file of your own, the others "
    "for data sets of a known layout, for answers that a model writes, and for the embedded world. What each kind "
    "makes of its rows stands in [data.md](data.md)."
}
SECTIONS: dict[str, str] = {
    "The top": "Recipe",
    "model": "ModelSpec",
    "reward": "RewardSpec",
    "sources": "Source",
    SOURCE: "SourceBase",
    ROWS: "FileSource",
    "sources: kind table": "TableSource",
    "sources: kind table: columns": "Columns",
    "sources: kind orca": "OrcaSource",
    "sources: kind hh": "HhSource",
    "sources: kind reddit": "RedditSource",
    "sources: kind reddit: min_gap": "MinGap",
    "sources: kind finance_instruct": "FinanceInstructSource",
    "sources: sampling": "Sampling",
    "sources: kind on_policy": "OnPolicySource",
    "sources: kind on_policy: columns": "PromptColumns",
    "sources: kind mt_bench_style": "MtBenchStyleSource",
    "sources: kind mt_bench_style: policies": "Policy",
    "sources: kind mt_bench_style: ranking": "Ranking",
    "sources: kind pocket": "PocketSource",
    "stages": "Stage",
    "stages: mix": "Mix",
    "stages: replay": "Replay",
    "stages: order": "Curriculum",
    "stages: dpo": "Dpo",
    "stages: dpo: beta as a schedule": "BetaSchedule",
    "stages: dpo: beta that adapts": "AdaptiveBeta",
    "stages: optim": "Optim",
    "stages: optim: stop": "Stop",
    "stages: lora": "Lora",
    "stages: lora of a domain": "DomainLora",
    "stages: gate": "Gate",
    "stages: gate: retry": "Retry",
    "stages: gate: retry: scale": "Scale",
    "stages: gate: shrink": "Shrink",
    "evaluation": "Evaluation",
    "evaluation: tasks": "Tasks",
    TASK: "TaskSpec",
    "evaluation: tasks: tatqa": "TatqaSpec",
    "evaluation: tasks: mt_bench": "MtBenchSpec",
    "evaluation: tasks: preference_accuracy": "PreferenceSpec",
    "evaluation: tasks: lm_eval": "HarnessSpec",
    "evaluation: generation": "Generation",
    "evaluation: generation: server": "Server",
    "evaluation: judge": "JudgeSpec",
}
"""Each heading and the class whose keys stand below it, in the order of the page."""
NAMED_TASKS = {"lm_eval": "A task of lm-evaluation-harness.", "preference_accuracy": "Pairs under a name of your own."}


def reference_text() -> str:
    """The text of `docs/recipe.md`; the same recipe classes give the same bytes.

    Raises ValueError for a class of the recipe that has no heading yet.
    """
    schema = plain_schema()
    parts: dict[str, Node] = {"Recipe": schema, "Source": ANY_SOURCE, **schema["$defs"]}
    new = sorted(parts.keys() - set(SECTIONS.values()))
    if new:
        raise ValueError(f"reference: {', '.join(new)}: no heading yet; add it to pages.SECTIONS")
    shared = {heading: _own_schema(kind) for heading, (kind, _) in SHARED.items()}
    parts |= {SECTIONS[heading]: node for heading, node in shared.items()}
    sections = (_section(heading, parts, shared) for heading in SECTIONS)
    return "\n".join([INTRODUCTION, *chain.from_iterable(sections)])


def _own_schema(kind: type[BaseModel]) -> Node:
    """A class that others are made of, which no recipe holds as it is."""
    made = kind.model_json_schema()
    tidy(made)
    return made


def _section(heading: str, parts: Mapping[str, Node], shared: Mapping[str, Node]) -> Iterator[str]:
    part = parts[SECTIONS[heading]]
    level = "##" if ":" not in heading and heading not in SHARED else "###"
    yield f"{level} {heading}\n"
    if part.get("description"):
        yield f"{part['description']}\n"
    properties = _properties(part)
    holders = {key: _holder(key, node, heading, shared) for key, node in properties.items()}
    needed = set(part.get("required", []))
    rows = [_row(key, node, key in needed, parts) for key, node in properties.items() if holders[key] is None]
    for pattern, node in part.get("patternProperties", {}).items():
        kind = next(kind for kind in NAMED_TASKS if kind in pattern)
        named = {"default": None, **node, "description": NAMED_TASKS[kind]}
        rows.append(_row(f"{kind}:<name>", named, False, parts))
    if rows:
        yield "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows]) + "\n"
    others = [f"*[{title}](#{_anchor(title)})*" for title in dict.fromkeys(holders.values()) if title]
    if others:
        yield f"Also the keys under {' and '.join(others)}.\n"


def _properties(part: Node) -> dict[str, Node]:
    """Every key of a part, of all the forms that it has; the one that says which form it is comes first."""
    found: dict[str, Node] = {}
    for form in [*part.get("anyOf", []), part]:
        for key, node in form.get("properties", {}).items():
            found[key] = node if key not in found or "description" in node else found[key]
    return {key: found[key] for key in sorted(found, key=lambda key: key != "kind")}


def _holder(key: str, node: Node, heading: str, shared: Mapping[str, Node]) -> str | None:
    """The heading of the shared table that has this very key for this part; None where the part shows it itself."""
    for title, kind in shared.items():
        holds = heading.startswith(SHARED[title][1]) or (heading, title) == (ROWS, SOURCE)
        if holds and kind["properties"].get(key) == node:
            return title
    return None


def _row(key: str, node: Node, needed: bool, parts: Mapping[str, Node]) -> str:
    meaning = node.get("description") or ("Which form this is." if key == "kind" else "")
    if not meaning and "$ref" in node:  # pydantic leaves out what the class says in the same words
        meaning = parts[node["$ref"].rpartition("/")[2]]["description"]
    cells = (f"`{key}`", type_words(node, _link), default_words(node, needed), meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _link(name: str) -> str:
    heading = next(heading for heading, kind in SECTIONS.items() if kind == name)
    return f"[{heading.rpartition(': ')[2]}](#{_anchor(heading)})"


def _anchor(heading: str) -> str:
    """The name that Markdown readers give to a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-")
