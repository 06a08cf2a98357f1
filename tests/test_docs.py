"""README and docs: what they show exists, loads and compiles."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from equipoise import cli
from equipoise.dpo.loss import LOSSES
from equipoise.recipe_file import parse_recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = {info.name or info.callback.__name__ for info in cli.app.registered_commands if info.callback is not None}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text) + re.findall(
        r"<(?:img|source)\b[^>]*?src(?:set)?=\"([^\"]+)\"", text
    ):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipes_load_and_python_compiles(page: Path) -> None:
    for text in blocks(page, "yaml"):
        if "stages:" in text:
            parse_recipe(text, where=page.name)
    for text in blocks(page, "python"):
        compile(text, page.name, "exec")


def test_every_command_is_in_the_readme_and_every_one_there_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^(?:EQUIPOISE\S+ )?equipoise ([\w-]+)", readme, flags=re.MULTILINE))
    named |= set(re.findall(r"`equipoise ([\w-]+)", readme))
    assert named == COMMANDS
    for command in COMMANDS:
        assert typer.main.get_command(cli.app).commands[command].help  # type: ignore[attr-defined]


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[^)#]+)", (ROOT / "README.md").read_text()))
    pages = {str(path.relative_to(ROOT)) for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(kind)}
    assert not pages - linked


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"`?\bmake ([a-z-]+)`", page.read_text()):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page.name}: make {target}"


def test_every_loss_is_documented() -> None:
    text = (ROOT / "docs" / "losses.md").read_text()
    assert all(f"| `{name}` |" in text for name in LOSSES)


def test_the_table_of_the_benchmark_is_that_of_its_result() -> None:
    """benchmarks/table.py prints it from benchmarks/results/dpo_step.json."""
    folder = ROOT / "benchmarks"
    command = [sys.executable, folder / "table.py", folder / "results" / "dpo_step.json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "performance.md").read_text()
    assert page.partition("<!-- benchmarks/table.py -->\n")[2].partition("\n<!-- end -->")[0] == printed.strip()
