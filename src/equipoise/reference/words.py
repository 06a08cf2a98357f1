"""What a value may be, in words, from its JSON Schema: `whole number above 0`, `adamw` or `adamw_8bit`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from equipoise.recipe_parts import NAME

Link = Callable[[str], str]
"""Maps the name of a part to the words that stand for it."""
_SIMPLE = {"string": "text", "boolean": "`true` or `false`", "integer": "whole number", "number": "number"}


def type_words(node: Mapping[str, Any], link: Link) -> str:
    """The values that a schema allows, in words; null is left out, since it means that the key is not there."""
    if "$ref" in node:
        return link(node["$ref"].rpartition("/")[2])
    if "oneOf" in node:
        return link("Source")  # the one choice between forms that a key of theirs decides
    if "anyOf" in node:
        said = [type_words(branch, link) for branch in node["anyOf"] if branch.get("type") != "null"]
        return _either(list(dict.fromkeys(said)))
    if "enum" in node or "const" in node:
        return _either([_code(value) for value in node.get("enum", [node.get("const")])])
    if node.get("type") == "array":
        return f"list of {type_words(node['items'], link)}"
    if node.get("type") == "object":
        values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        return f"mapping of names to {type_words(next(value for value in values if value), link)}"
    if node.get("pattern") == NAME:
        return "name"
    if "pattern" in node:
        return "percentage such as `2%`" if node["pattern"].endswith("%$") else "text"
    return _SIMPLE[node["type"]] + _bounds(node)


def default_words(node: Mapping[str, Any], required: bool) -> str:
    """What holds where the key is not there."""
    if required:
        return "**needed**"
    value = node.get("default")
    if value is None or value in ([], {}):
        return "none" if "default" in node else "its own"
    return _code(value)


def _code(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`"
    if isinstance(value, float):
        return f"`{value:g}`".replace("e-0", "e-")
    return f"`{json.dumps(value)}`"


def _either(said: Sequence[str]) -> str:
    return " or ".join([*([", ".join(said[:-1])] if len(said) > 1 else []), *said[-1:]])


def _bounds(node: Mapping[str, Any]) -> str:
    low, above = node.get("minimum"), node.get("exclusiveMinimum")
    high, below = node.get("maximum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    parts = [
        f"{word} {bound:g}" if bound != 2**31 else f"{word} 2^31"
        for word, bound in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if bound is not None
    ]
    return f" {' and '.join(parts)}" if parts else ""
