"""The house rules: imports go one way, the face is light, every recipe key is read by something."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

import equipoise
from equipoise import recipe as recipe_module

SOURCE = Path(equipoise.__file__).parent
FLOORS = [
    {"records", "recipe", "recipe_parts", "recipe_sources", "recipe_data", "recipe_evaluation", "recipe_file"}
    | {"recipe_lora", "recipe_stage", "recipe_text", "yaml_text", "run_folder", "holder", "store", "progress"},
    {"model"},
    {"data"},
    {"dpo"},
    {"evaluation"},
    {"outcome", "measure", "models", "pools", "draw", "preparation"},
    {
        "beginning",
        "scoring",
        "training",
        "attempts",
        "remedies",
        "shrink",
        "stages",
        "planning",
        "verify",
        "verify_stages",
    },
    {"study", "init", "reference", "controls"},
    {"report"},
    {"exporting"},
    {"api", "console", "console_pairs", "console_scores", "console_study"}
    | {"watch", "watch_read", "watch_show", "watch_time", "commands_live", "ui"}
    | {
        "compat",
        "commands",
        "commands_eval",
        "commands_export",
        "commands_init",
        "commands_study",
        "cli",
        "cli_base",
        "cli_study",
        "__main__",
        "__init__",
    },
]
"""From the ground up; a module imports its own floor and those below. `pocket` is reached by name only."""
PROGRAMS = {"pocket"}
HEAVY = {"torch", "transformers", "peft", "datasets"}


def floor(module: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if module in names)


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "equipoise"}
    return found


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if "recipes" not in path.parts)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own in PROGRAMS or own == "__init__":
        return
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "equipoise" or len(parts) < 2 or parts[1] in ("__version__",):
            continue
        assert parts[1] not in PROGRAMS, f"{path.name} imports {name}; the pocket is reached by name only"
        assert floor(parts[1]) <= floor(own), f"{own} imports {name}, which stands above it"


@pytest.mark.parametrize("module", ["equipoise", "equipoise.cli", "equipoise.recipe_file", "equipoise.report.html"])
def test_the_face_is_light(module: str) -> None:
    code = f"import sys, {module}; sys.exit(str({HEAVY} & set(sys.modules)) if {HEAVY} & set(sys.modules) else 0)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_no_file_and_no_function_is_too_long() -> None:
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno <= 80, f"{path}: {node.name}"
            if isinstance(node, ast.ExceptHandler):
                caught = getattr(node.type, "id", "")
                assert node.type is not None and caught != "Exception", f"{path}:{node.lineno} catches everything"


def test_every_recipe_key_is_read() -> None:
    """A key that nothing reads is a promise that nobody keeps: each one is an attribute somewhere in the code."""
    read = set()
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                read.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                read.add(node.value)  # getattr(spec, "layout")
    for kind in vars(recipe_module).values():
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not BaseModel:
            for key in kind.model_fields:
                assert key in read or (kind is recipe_module.Tasks), f"{kind.__name__}.{key} is read nowhere"


def test_every_field_is_documented() -> None:
    for kind in vars(recipe_module).values():
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not BaseModel:
            for key, field in kind.model_fields.items():
                assert field.description or key == "kind", f"{kind.__name__}.{key} has no text under it"


def test_help_is_fast() -> None:
    """Generous here, since other work may run beside: it answers in 0.2 s on a quiet machine."""
    started = time.perf_counter()
    result = subprocess.run([sys.executable, "-m", "equipoise", "run", "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert "--resume" in result.stdout
    assert time.perf_counter() - started < 3
