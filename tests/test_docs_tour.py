"""docs/tour.md is executed as it stands, and what it shows is what the commands print (slow: ten small trainings)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs_pages import ROOT, Command, commands, masked, tables
from docs_workshop import run_here
from ui_process import ask_ui

TOUR = commands(ROOT / "docs" / "tour.md")
DEMO = "equipoise run recipes/pocket.yaml --name demo"
"""What `make demo` runs once everything is installed."""


def shown_is_in(shown: str, output: str) -> str:
    """The first line shown that the output lacks, in this order, or ""; `...` stands for any text."""
    rest = [masked(line) for line in output.splitlines()]
    for line in shown.splitlines():
        if line.strip() in ("", "..."):
            continue
        pattern = ".*".join(re.escape(part) for part in masked(line).split("..."))
        place = next((number for number, said in enumerate(rest) if re.fullmatch(pattern, said)), None)
        if place is None:
            return line
        rest = rest[place + 1 :]
    return ""


@pytest.mark.parametrize(
    ("shown", "lacks"),
    [
        ("a  1\n...\nb 2 ...", ""),
        ("b 2 and more\na 1", "a 1"),
        ("a 2", "a 2"),
        ("done in 9 s", ""),
    ],
)
def test_lines_are_compared_in_their_order_without_times(shown: str, lacks: str) -> None:
    assert shown_is_in(shown, "a 1\nc\nb 2 and more\ndone in 12 s\n") == lacks


def test_make_demo_runs_what_the_tour_tests() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^demo:.*\n(\t.*\n)*\t\S*{re.escape(DEMO)}\n", makefile, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each command of the tour printed, one after the other in one folder; all of them end with 0."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQUIPOISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        for command in TOUR:
            if command.text == "equipoise ui":
                found[command.text] = ask_ui(folder, "--port", "0")
                continue
            words = Command("", 0, DEMO).words if command.text == "make demo" else command.words
            done = run_here(folder, words[1:])
            assert done.code == 0, f"{command}: exit code {done.code}\n{done.output}"
            found[command.text] = done.output
        assert (folder / "runs" / "demo" / "report.html").is_file()
        assert (folder / "runs" / "study" / "report.html").is_file()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_tour_shows_what_its_commands_print(outputs: dict[str, str]) -> None:
    wrong = [(str(command), line) for command in TOUR if (line := shown_is_in(command.shown, outputs[command.text]))]
    assert not wrong


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_gives_the_table_of_the_readme(outputs: dict[str, str]) -> None:
    rows = next(one for one in tables((ROOT / "README.md").read_text()) if one[0][:3] == ["domain", "before", "after"])
    printed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in outputs["make demo"].splitlines()]
    assert len(rows) == 5 and all(row in printed for row in rows[1:])


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("recipe", "code"), [("pocket-reddit-only", 1), ("pocket-mixed", 0)])
def test_the_other_recipes_give_the_tables_of_the_pocket_page(recipe: str, code: int, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "pocket.md").read_text()
    behind = page[page.index(f"`equipoise run {recipe}`") :]
    rows = next(one for one in tables(behind) if one[0][:3] == ["domain", "before", "after"])
    done = run_here(tmp_path, ["run", recipe])
    assert done.code == code
    printed = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.output.splitlines()]
    assert all(row in printed for row in rows[1:])
