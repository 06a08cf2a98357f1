"""The report in a real browser: no errors, no requests, accessible, as wide as the window, and usable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import WIDTHS, browser, opened
from equipoise.records import Score
from equipoise.run_folder import write_lines
from test_report import HOSTILE, LONG, page_of
from test_report_parts import make_retried

HEBREW = "\u05e9\u05dc\u05d5\u05dd \u202egnp.exe\u202c"


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with retries and questions, whose best and worst answers are hostile."""
    run = make_retried(tmp_path_factory.mktemp("browser") / "demo", items=20, steps=4)
    for number in (8, 9, 12):
        for point, value in (("base", 0.0), ("2-finance", 50.0 - 10 * number)):
            scores = run.scores(point)["reddit"]
            texts = {8: HOSTILE, 9: LONG.replace(" ", ""), 12: HEBREW}
            answers = (texts[number] + (" more" if point == "base" else ""),)
            run.write_scores(point, "reddit", [_with(one, number, value, answers) for one in scores])
    questions = [
        {"id": f"reddit-{n}", "prompt": [{"role": "user", "content": f"{HOSTILE} Question {n}?"}]} for n in range(20)
    ]
    write_lines(run.folder / "items" / "reddit.jsonl", questions)
    page_of(run)
    return run.folder / "report.html"


def _with(score: Score, number: int, value: float, answers: tuple[str, ...]) -> Score:
    if score.id != f"reddit-{number}":
        return score
    fields = {name: getattr(score, name) for name in Score.__dataclass_fields__}
    return Score(**{**fields, "value": value, "answers": answers, "unscored": None})


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_clean_accessible_and_not_too_wide(chrome: Any, report: Path, width: int, theme: str) -> None:
    with opened(chrome, report, width=width, color_scheme=theme) as seen:
        if (width, theme) in ((1280, "dark"), (390, "light")):  # axe takes seconds for a page with all of it open
            seen.page.evaluate(
                "for (const one of document.querySelectorAll('details:not([data-kind])')) one.open = true"
            )
        seen.require_clean()
        seen.require_accessible()
        seen.require_no_sideways_scrolling()


def test_the_first_screen_answers_what_everybody_asks(chrome: Any, report: Path) -> None:
    with opened(chrome, report) as seen:
        asked = seen.page.locator("dl.answered dt")
        assert asked.all_inner_texts() == ["Trained", "Better", "Worse", "How sure", "Ship"]
        assert seen.page.locator("dl.answered").bounding_box()["y"] < 300
        plot = seen.page.locator("svg.change").first.bounding_box()
        assert plot["y"] + plot["height"] < 900


def test_the_theme_is_set_by_a_click_and_kept(chrome: Any, report: Path) -> None:
    with opened(chrome, report, color_scheme="light") as seen:
        page = seen.page

        def paper() -> str:
            return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

        assert paper() == "rgb(250, 249, 246)"
        page.get_by_role("button", name="dark").click()
        assert paper() == "rgb(20, 23, 26)"
        assert page.get_by_role("button", name="dark").get_attribute("aria-pressed") == "true"
        page.reload()
        assert paper() == "rgb(20, 23, 26)"
        page.get_by_role("button", name="system").click()
        assert paper() == "rgb(250, 249, 246)"
        page.emulate_media(media="print")
        page.get_by_role("button", name="dark", include_hidden=True).evaluate("button => button.click()")
        assert paper() == "rgb(255, 255, 255)"  # paper is white whatever the screen was
        seen.require_clean()


def test_answers_are_filtered_by_domain_kind_and_words(chrome: Any, report: Path) -> None:
    with opened(chrome, report) as seen:
        page, shown = seen.page, seen.page.locator("details[data-kind]:visible")
        whole = shown.count()
        page.get_by_label("Kind").select_option("random")
        random = shown.count()
        assert 0 < random < whole
        assert page.locator("form.filters output").inner_text() == f"{random} of {whole} shown"
        page.get_by_role("combobox", name="Domain").select_option("reddit")
        groups = page.locator("[data-group]:visible h3").all_inner_texts()
        assert groups == ["reddit"] and 0 < shown.count() < random
        page.get_by_label("With the words").fill("no such words")
        assert shown.count() == 0
        page.get_by_role("button", name="Show all").click()
        page.wait_for_function(f"document.querySelector('form.filters output').value.startsWith('{whole} of')")
        assert shown.count() == whole
        seen.require_clean()


def test_values_are_shown_to_a_pointer_and_to_a_keyboard(chrome: Any, report: Path) -> None:
    with opened(chrome, report) as seen:
        page, tip = seen.page, seen.page.locator(".tip")
        page.locator("svg.change").first.hover()
        assert "before" in tip.inner_text() and "interval" in tip.inner_text()
        chart = page.locator("#stages svg.chart").first
        chart.hover()
        assert tip.inner_text().startswith("step ") and "all: 0." in tip.inner_text()
        page.mouse.move(0, 0)
        assert not tip.is_visible()
        chart.focus()
        page.keyboard.press("ArrowRight")
        assert tip.inner_text().startswith("step 1\n")
        page.keyboard.press("ArrowRight")
        assert tip.inner_text().startswith("step 2\n")
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.keyboard.press("Home")
        page.locator("svg.ribbon").first.hover(position={"x": 60, "y": 5})
        assert "left" in tip.inner_text()


def test_hostile_text_is_text(chrome: Any, report: Path) -> None:
    with opened(chrome, report) as seen:
        page = seen.page
        page.get_by_role("combobox", name="Domain").select_option("reddit")
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        said = page.locator("#answers").inner_text()
        for text in ("<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "⟨U+202E⟩gnp.exe", "🦉", "␛[31m"):
            assert text in said, text
        assert "characters left out" in said
        assert page.locator("#answers img, #answers script").count() == 0
        assert page.locator("mark.gone", has_text="more").count() > 0
        boxes = page.evaluate("[...document.querySelectorAll('.said')].map(e => [e.scrollWidth, e.clientWidth])")
        assert all(wide <= room for wide, room in boxes)
        seen.require_clean()
        seen.require_no_sideways_scrolling()


def test_without_scripts_all_but_the_filters_is_there(chrome: Any, report: Path) -> None:
    with opened(chrome, report, java_script_enabled=False) as seen:
        page = seen.page
        for name in ("form.filters", ".theme"):
            assert not page.locator(name).is_visible()
        for name in ("dl.answered", "svg.change", "svg.ribbon", "svg.chart", "details[data-kind]"):
            assert page.locator(name).first.is_visible(), name
        page.locator("details[data-kind] summary").nth(1).click()
        assert page.locator("details[data-kind]").nth(1).locator(".said").first.is_visible()


def test_on_paper_everything_is_open(chrome: Any, report: Path) -> None:
    with opened(chrome, report, width=800) as seen:
        page = seen.page
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible() and not page.locator("form.filters").is_visible()
        assert page.locator("details[data-kind]").last.locator(".said").first.is_visible()
        assert page.locator("#settings pre").first.is_visible()
