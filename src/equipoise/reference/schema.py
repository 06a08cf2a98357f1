"""The JSON Schema of a recipe (draft 2020-12), with which editors complete and check recipes while they are written.

pydantic makes it from the classes of `recipe.py`. Three things are added that stand in the validators of those classes
and not in their fields: the short forms that a recipe may use, rules that tie two keys together, and `${NAME}`, which
the reader of recipes replaces before it looks at types.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from typing import Any

from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import HARNESS_NAME, NAMED_TASKS, PREFERENCE_NAME

Node = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
VARIABLE = "Variable"
_NOTES = ("title", "description", "default")
_LEAVES = ("integer", "number", "boolean")


def schema_text() -> str:
    """The schema as the text of `docs/recipe.schema.json`; the same recipe classes give the same bytes."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def recipe_schema() -> Node:
    """The schema for editors: every form that a recipe file may have."""
    made = plain_schema()
    parts = made.pop("$defs")
    for part in (made, *parts.values()):
        _each_value(part, _or_variable)
    parts[VARIABLE] = {
        "description": "Replaced by an environment variable before anything is checked; `${NAME:-text}` has a default.",
        "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
        "type": "string",
    }
    return {"$schema": DIALECT, "title": "equipoise recipe", **_without(made, "title"), "$defs": parts}


def plain_schema() -> Node:
    """The same without `${NAME}`: the forms that a recipe has once its variables are replaced."""
    made = Recipe.model_json_schema()
    parts = made["$defs"]
    for node in (made, *parts.values()):
        tidy(node)
    made["properties"]["sources"]["minProperties"] = 1
    parts["Mix"] = _mix(parts["Mix"])
    _order_by_name(parts["Stage"])
    _tasks_by_name(parts["Tasks"])
    parts["Columns"]["anyOf"] = [{"required": ["chosen", "rejected"]}, {"required": ["first", "second", "label"]}]
    _needs(parts["Gate"], "on_fail", "retry", "retry")
    _needs(parts["Generation"], "backend", "openai", "server")
    for kind in ("linear", "cosine"):
        _needs(parts["BetaSchedule"], "kind", kind, "end")
    return made


def tidy(node: Node) -> None:
    """Titles that only repeat a key, defaults that are whole parts, and line ends within a sentence go, in place."""
    node.pop("discriminator", None)  # OpenAPI's word for the choice that `const` makes here
    if isinstance(node.get("description"), str):
        paragraphs = node["description"].split("\n\n")
        node["description"] = "\n\n".join(" ".join(part.split()) for part in paragraphs)
    if isinstance(node.get("default"), dict) and node["default"]:
        del node["default"]
    if "oneOf" in node and not all("$ref" in branch for branch in node["oneOf"]):
        node["anyOf"] = node.pop("oneOf")  # no value fits two of them; editors say more about `anyOf`
    if "patternProperties" in node:
        node["additionalProperties"] = False  # a key that is no name is refused
    for child in node.get("properties", {}).values():
        child.pop("title", None)
    for child in _children(node):
        tidy(child)


def _children(node: Node) -> list[Node]:
    """The schemas directly within a schema."""
    found = [*node.get("properties", {}).values(), *node.get("patternProperties", {}).values()]
    for key in ("anyOf", "oneOf"):
        found += node.get(key, [])
    return found + [node[key] for key in ("items", "additionalProperties") if isinstance(node.get(key), dict)]


def _mix(full: Node) -> Node:
    """Counts, shares, or the short form `{general: 800}`."""
    known: Mapping[str, Node] = full["properties"]
    forms = {
        "counts": {"counts": _given(known["counts"]), "when_short": known["when_short"], "by": {"const": "pairs"}},
        "shares": {
            "pairs": _given(known["pairs"]),
            "shares": _given(known["shares"]),
            "by": known["by"],
            "when_short": known["when_short"],
        },
        "short": {"when_short": known["when_short"], "by": {"const": "pairs"}},
    }
    required = {"counts": ["counts"], "shares": ["pairs", "shares"], "short": []}
    branches: dict[str, Node] = {
        name: {"type": "object", "properties": properties, "additionalProperties": False, "required": required[name]}
        for name, properties in forms.items()
    }
    branches["short"]["additionalProperties"] = {
        "description": "Pairs of this source.",
        "exclusiveMinimum": 0,
        "type": "integer",
    }
    branches["short"]["not"] = {"anyOf": [{"required": [name]} for name in ("counts", "pairs", "shares")]}
    branches["short"]["minProperties"] = 1
    return {"title": "Mix", "description": full["description"], "anyOf": copy.deepcopy(list(branches.values()))}


def _given(node: Node) -> Node:
    """An optional key where its form of the part requires it: no null, no default."""
    value = next(branch for branch in node["anyOf"] if branch.get("type") != "null")
    return {"description": node["description"], **value}


def _order_by_name(stage: Node) -> None:
    """`order: curriculum` stands for a curriculum with its defaults."""
    branches = stage["properties"]["order"]["anyOf"]
    branches[0] = {"enum": ["shuffle", "curriculum"], "type": "string"}


def _tasks_by_name(tasks: Node) -> None:
    """Tasks whose own name follows a colon stand beside the others in a recipe."""
    named = {name: tasks["properties"].pop(name) for name in NAMED_TASKS}
    (harness,), (pairs,) = (node["patternProperties"].values() for node in named.values())
    tasks["patternProperties"] = {HARNESS_NAME: {"anyOf": [harness, {"type": "null"}]}, PREFERENCE_NAME: pairs}
    tasks["minProperties"] = 1


def _needs(part: Node, key: str, value: str, other: str) -> None:
    """`key: value` needs the key `other`."""
    rule = {"if": {"properties": {key: {"const": value}}, "required": [key]}, "then": {"required": [other]}}
    part.setdefault("allOf", []).append(rule)


def _each_value(part: Node, change: Callable[[Node], Node]) -> None:
    """Replace the schema of every value of a part by what `change` makes of it, in place; a `kind` stays as it is."""
    for key, node in part.get("properties", {}).items():
        if key != "kind":
            part["properties"][key] = change(node)
    for branch in part.get("anyOf", []):
        _each_value(branch, change)
    for name, node in part.get("patternProperties", {}).items():
        part["patternProperties"][name] = change(node)
    if isinstance(part.get("additionalProperties"), dict):
        part["additionalProperties"] = change(part["additionalProperties"])


def _or_variable(node: Node) -> Node:
    """The same schema, which a text with `${NAME}` fits as well where it would not fit otherwise."""
    if "anyOf" in node:
        branches = [_within(branch) for branch in node["anyOf"]]
        takes_text = any(branch.get("type") == "string" and not _limited(branch) for branch in branches)
        wants = not takes_text and any(_leaf(branch) for branch in branches)
        return {**node, "anyOf": [*branches, *([_variable()] if wants else [])]}
    if not _leaf(node):
        return _within(node)
    value = _without(node, *_NOTES)
    return {"anyOf": [value, _variable()], **{key: node[key] for key in _NOTES if key in node}}


def _within(node: Node) -> Node:
    """Lists and mappings hold values, too."""
    changed = dict(node)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            changed[key] = _or_variable(node[key])
    if "patternProperties" in node:
        changed["patternProperties"] = {name: _or_variable(value) for name, value in node["patternProperties"].items()}
    return changed


def _leaf(node: Node) -> bool:
    return node.get("type") in _LEAVES or (_limited(node) and node.get("type", "string") == "string")


def _limited(node: Node) -> bool:
    """Whether a text is not free; a shortest length is fulfilled by every `${NAME}`."""
    return any(key in node for key in ("enum", "const", "pattern"))


def _variable() -> Node:
    return {"$ref": f"#/$defs/{VARIABLE}"}


def _without(node: Node, *keys: str) -> Node:
    return {key: value for key, value in node.items() if key not in keys}
