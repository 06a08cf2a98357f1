"""equipoise: preference fine-tuning of small language models over several domains, with evidence.

The names below are the Python interface; nothing heavy is imported until one of them is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equipoise.api import compare, evaluate, export, open_run, plan, run
    from equipoise.recipe_file import load_recipe

__version__ = "0.1.0"
__all__ = ["compare", "evaluate", "export", "load_recipe", "open_run", "plan", "run"]
_HOMES = dict.fromkeys(__all__, "equipoise.api") | {"load_recipe": "equipoise.recipe_file"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'equipoise' has no attribute {name!r}")
