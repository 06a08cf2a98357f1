"""Sources of preference pairs: one small function for each `kind` of the recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from equipoise.data.built import Built
from equipoise.data.sources import hh, orca, pocket, table
from equipoise.recipe import Source

KINDS: dict[str, Callable[[str, Any], Built]] = {
    "pocket": pocket.build,
    "table": table.build,
    "orca": orca.build,
    "hh": hh.build,
}
"""Every kind maps (name of the source, its part of the recipe) to its pairs."""


def build(name: str, spec: Source) -> Built:
    """The pairs of a source, not yet cleaned, with what was dropped on the way, by reason.

    Raises InputError where the source cannot be read, lacks a column, is malformed beyond
    `spec.max_malformed`, or makes no pair at all.
    """
    return KINDS[spec.kind](name, spec)


__all__ = ["KINDS", "Built", "build"]
