"""The study page in a real browser: clean, accessible, as wide as the window, and every choice does what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import WIDTHS, browser, opened
from equipoise.recipe_file import parse_recipe, resolved
from equipoise.report.study_html import write_study
from equipoise.run_folder import read_lines, write_json, write_lines
from study_runs import RECIPE, spread, write_run

HOSTILE = "<img src=x onerror=alert(1)> \u202eevil"


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine finished recipes with other learning rates, answers that try to be markup, and a failed run."""
    folder = tmp_path_factory.mktemp("study")
    for number in range(9):
        gains = {"tatqa": spread(number / 2), "mt_bench": spread(2 - number / 2)}
        run = write_run(folder / f"r{number}", gains, rate=f"{number + 1}e-5")
        lines = read_lines(run / "scores/1-only/tatqa.jsonl")
        write_lines(run / "scores/1-only/tatqa.jsonl", [{**line, "answers": [f"{number} {HOSTILE}"]} for line in lines])
        asked = [{"id": f"test-{k}", "prompt": [{"role": "user", "content": "Which one? " * 40}]} for k in range(40)]
        write_lines(run / "items/tatqa.jsonl", asked)
    write_json(folder / "study.json", {"rows": [{"name": "lost", "state": "failed", "reason": HOSTILE}]})
    return write_study([folder])


@pytest.mark.parametrize(("width", "scheme"), zip(WIDTHS, ("light", "dark"), strict=True))
def test_it_opens(started: Any, study: Path, width: int, scheme: str) -> None:
    with opened(started, study, width=width, color_scheme=scheme) as seen:
        seen.page.locator("#pair-items details").first.click()
        seen.require_accessible()
        seen.require_no_sideways_scrolling()
        seen.require_clean()
        assert "⟨U+202E⟩evil" in seen.page.locator("#h-left + .wide").inner_text()


def test_recipes_are_filtered_sorted_and_marked(started: Any, study: Path) -> None:
    with opened(started, study) as seen:
        page = seen.page
        names = page.locator(".board tbody tr:visible th button")
        page.locator("#filter [name=kind]").select_option("worse")
        assert sorted(names.all_inner_texts()) == ["r5", "r6", "r7", "r8"]
        assert page.locator("#filter output").inner_text() == "4 of 9 shown"
        assert page.locator("svg.front .spot:visible").count() == 4
        page.locator("#filter [name=kind]").select_option("")
        page.locator("#filter [name=order]").select_option("tatqa")
        assert names.all_inner_texts() == [f"r{number}" for number in reversed(range(9))]
        page.locator("#filter [name=words]").fill("R3")
        assert names.all_inner_texts() == ["r3"]
        page.locator("#filter [name=words]").fill("")
        names.first.focus()
        page.keyboard.press("Enter")
        assert names.first.get_attribute("aria-pressed") == "true"
        assert page.locator("svg.parallel .lit").count() == page.locator("svg.front .lit").count() == 1
        seen.require_clean()


def test_the_domains_of_the_front_are_chosen_and_marks_say_their_figures(started: Any, study: Path) -> None:
    with opened(started, study) as seen:
        page = seen.page
        spot = page.locator('svg.front .spot[data-row="0"]')
        before = spot.get_attribute("transform")
        page.locator("#axes [name=x]").select_option("mt_bench")
        page.locator("#axes [name=y]").select_option("tatqa")
        assert spot.get_attribute("transform") != before
        assert page.locator("svg.front .x-name").text_content() == "mt_bench"
        # tatqa gains rise by a half and mt_bench gains fall by a half from r0 to r8: so do the places of the marks
        places = page.evaluate("""() => [...document.querySelectorAll("svg.front .spot")].map((spot) => [
            document.querySelectorAll(".board .pin")[spot.dataset.row].textContent,
            ...spot.getAttribute("transform").match(/[\\d.]+/g).map(Number)])""")
        places.sort()
        assert [x for _, x, _ in places] == sorted((x for _, x, _ in places), reverse=True)
        assert [y for _, _, y in places] == sorted((y for _, _, y in places), reverse=True)
        spot.locator(".sign").hover()
        assert "overall" in page.locator(".tip").inner_text() and "tatqa" in page.locator(".tip").inner_text()
        seen.require_clean()


def test_the_gain_by_settings_is_chosen(started: Any, study: Path) -> None:
    with opened(started, study) as seen:
        page = seen.page
        page.locator("#measure [name=measure]").select_option("tatqa")
        # the learning rate rises from r0 to r8 and tatqa with it; the line joins recipes that differ in it alone
        points = page.locator("svg.effect .only").get_attribute("points")
        heights = [float(point.split(",")[1]) for point in points.split()]
        assert len(heights) == 9 and heights == sorted(heights, reverse=True)
        seen.require_clean()


def test_two_runs_are_compared_item_by_item(started: Any, study: Path) -> None:
    with opened(started, study) as seen:
        page = seen.page
        page.locator("#pair [name=one]").select_option("r8")
        page.locator("#pair [name=other]").select_option("r0")
        counts = page.locator("#pair-counts tbody tr").all_inner_texts()
        assert counts[0].split("\t") == ["tatqa", "40", "0", "0", "0", "the first is shown to be better"]
        assert counts[1].split("\t") == ["mt_bench", "0", "40", "0", "0", "the second is shown to be better"]
        page.locator("#pair [name=domain]").select_option("tatqa")
        page.locator("#pair [name=texts]").check()
        first = page.locator("#pair-items tbody tr").first.inner_text().split("\t")
        assert first[1] == "tatqa" and first[-1] == "+4"
        page.locator("#pair-items details").first.click()
        said = page.locator("#pair-items details").first.inner_text()
        assert "8 <img src=x onerror=alert(1)> ⟨U+202E⟩evil" in said and "0 <img" in said and "Which one?" in said
        page.locator("#pair [name=side]").select_option("the second")
        assert page.locator("#pair-items tbody tr").count() == 0
        seen.require_clean()


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four domains, and six recipes with long names that are not told apart."""
    folder = tmp_path_factory.mktemp("crowded")
    tasks = ("tatqa", "mt_bench", "finance_instruct", "reddit")
    for number in range(6):
        name = f"8-progressive-3stage-as-designed-pocket-reversed-{number}"
        gains = {task: spread(0.4 + number / 100 if task == "reddit" else 0.01) for task in tasks}
        run = write_run(folder / name, gains, rate=f"{number + 1}e-5")
        text = RECIPE.format(name=name, seed=0, rate=f"{number + 1}e-5")
        text = text.replace("mt_bench: {}", "mt_bench: {}, finance_instruct: {}, reddit: {}")
        write_json(run / "recipe.json", resolved(parse_recipe(text)))
    return write_study([folder])


@pytest.mark.parametrize("width", WIDTHS)
def test_long_names_do_not_break_the_tables(started: Any, crowded: Path, width: int) -> None:
    fits = (
        "(css) => { const one = document.querySelector(css); return one.offsetWidth <= one.parentElement.clientWidth; }"
    )
    with opened(started, crowded, width=width) as seen:
        advice = seen.page.locator(".advice")
        assert seen.page.evaluate(fits, ".advice")
        assert advice.locator("details.also summary").first.inner_text() == "5 recipes"
        assert advice.bounding_box()["height"] < (900 if width == WIDTHS[0] else 1800)
        if width == WIDTHS[0]:
            assert seen.page.evaluate(fits, ".board")
            seen.page.emulate_media(media="print")
            seen.page.set_viewport_size({"width": 703, "height": 900})  # A4 without its margins
            assert seen.page.evaluate(fits, ".board")
        seen.require_accessible()
        seen.require_clean()


def test_without_an_overall_score_the_first_domain_is_shown(started: Any, tmp_path: Path) -> None:
    for number, rate in enumerate(("1e-5", "2e-5", "3e-5")):
        write_run(tmp_path / f"r{number}", {"tatqa": spread(number)}, base={"tatqa": [3.0] * 40}, rate=rate)
    with opened(started, write_study([tmp_path])) as seen:
        points = seen.page.locator("svg.effect .only").get_attribute("points")
        heights = [float(point.split(",")[1]) for point in points.split()]
        assert len(heights) == 3 and heights == sorted(heights, reverse=True)
        assert seen.page.locator("#measure [name=measure] option").all_inner_texts() == ["tatqa"]
        seen.require_clean()


def test_without_scripts_it_can_be_read(started: Any, study: Path) -> None:
    with opened(started, study, java_script_enabled=False) as seen:
        assert seen.page.locator(".board tbody tr").count() == 9
        assert seen.page.locator("#pair-counts tbody tr").count() == 2
        assert seen.page.locator("#pair-items tbody tr").count() == 10
        assert not seen.page.locator("#filter").is_visible()
        assert seen.page.locator("svg.front .spot").count() == 9
