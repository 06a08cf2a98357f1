"""The web app in a real browser: every page clicked through on a desk and on a phone, with a real run behind it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import WIDTHS, Opened, browser, opened
from equipoise.run_folder import write_json
from live_runs import HOSTILE, ended, going, mark, short_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run and its copy, a refused one with hostile texts, and one that goes on."""
    real = short_run(tmp_path_factory.mktemp("real"))
    shutil.copytree(real, real.parent / "study" / "copy")
    hostile = ended(real.parent / "hostile", question=HOSTILE)
    gate = {"outcome": "fail", "action": "stop", "flagged": False, "reasons": [HOSTILE, "word " * 20_000]}
    write_json(hostile / "stages" / "1-first" / "gate.json", gate)
    mark(going(real.parent / "going"))
    return real.parent


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """The app in a process of its own, on a free port."""
    command = [sys.executable, "-m", "equipoise", "ui", str(runs), "--port", "0"]
    environment = {**os.environ, "EQUIPOISE_CACHE": str(runs.parent / "cache")}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        found = re.match(r"(http://127\.0\.0\.1:\d+)/", server.stdout.readline())
        assert found
        yield found[1]
    finally:
        server.terminate()
        server.wait(20)
        assert server.stdout is not None
        server.stdout.close()


@pytest.fixture(scope="module")
def started() -> Iterator[Any]:
    with browser() as one:
        yield one


def require_good(seen: Opened) -> None:
    seen.require_clean()
    seen.require_accessible()
    seen.require_no_sideways_scrolling()


def names(seen: Opened) -> list[str]:
    return [link.inner_text() for link in seen.page.locator("#runs .name a").all() if link.is_visible()]


@pytest.mark.parametrize("width", WIDTHS)
def test_list_run_report_and_comparison(started: Any, address: str, width: int) -> None:
    with opened(started, address, width=width) as seen:
        page = seen.page
        assert set(names(seen)) == {"short", "study/copy", "hostile", "going"}
        require_good(seen)
        page.fill("#filter", "very short copy")
        assert names(seen) == ["study/copy"] and "1 of 4" in page.inner_text("#count")
        page.fill("#filter", "")
        page.select_option("#state", "running")
        assert names(seen) == ["going"]
        page.select_option("#state", "")
        if width == WIDTHS[0]:
            for order in (["study/copy", "short", "hostile", "going"], ["going", "hostile", "short", "study/copy"]):
                page.click("th[data-key=name] button")
                assert names(seen) == order
        assert page.locator("#compare").is_disabled()
        for name in ("short", "study/copy"):
            page.check(f"input[value='{name}']")
        page.click("#compare")
        assert "not told apart" in page.inner_text("main") and "+0.000" in page.inner_text("main")
        require_good(seen)
        page.goto(f"{address}/run/short")
        assert "kept: 1-only" in page.inner_text("#live")
        require_good(seen)
        page.click("text=Report")
        assert page.url == f"{address}/report/short" and "short" in page.inner_text("h1")
        seen.require_clean()


def test_theme_and_dark(started: Any, address: str) -> None:
    with opened(started, f"{address}/run/short", color_scheme="dark") as seen:
        dark = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        require_good(seen)
        seen.page.click("#theme")
        assert seen.page.inner_text("#theme") == "Theme: light"
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        seen.page.reload()
        assert seen.page.inner_text("#theme") == "Theme: light"
        require_good(seen)


def test_hostile_text_is_text(started: Any, address: str) -> None:
    with opened(started, f"{address}/run/hostile", width=390) as seen:
        seen.page.on("dialog", lambda dialog: seen.errors.append("a script ran"))
        seen.page.click("summary")
        assert "<script>alert(1)</script>" in seen.page.inner_text("h1 + p")
        assert "⟨U+202E⟩" in seen.page.inner_text("details") and seen.page.locator("main img").count() == 0
        require_good(seen)
        seen.page.goto(address)
        assert "<script>alert(1)</script>" in seen.page.inner_text("#runs")
        require_good(seen)


def test_a_run_is_followed_to_its_end(started: Any, address: str, runs: Path) -> None:
    folder = runs / "going"
    with opened(started, f"{address}/run/going") as seen:
        assert "training, step 3 of 4" in seen.page.inner_text("#live")
        require_good(seen)
        ended(folder)
        seen.page.get_by_text("a gate refused a stage").wait_for(timeout=10_000)
        require_good(seen)
    shutil.rmtree(folder)
    mark(going(folder))


@pytest.mark.parametrize("width", [WIDTHS[0], pytest.param(WIDTHS[1], marks=pytest.mark.slow)])
def test_both_models_answer(started: Any, address: str, width: int) -> None:
    """A message gets two answers; the second turn goes on; hostile words of the user stay words."""
    with opened(started, f"{address}/talk/short", width=width) as seen:
        page = seen.page
        page.fill("#longest", "12")
        assert "Enter sends" in page.inner_text("#keys")
        for turn, question in enumerate(("What is a bond?", HOSTILE)):
            page.fill("#question", question)
            page.press("#question", "Shift+Enter")  # a new line, and nothing is sent
            assert page.input_value("#question") == f"{question}\n" and page.locator("#base .user").count() == turn
            page.press("#question", "Enter")
            for side in ("base", "tuned"):
                page.locator(f"#{side} .facts").nth(turn).wait_for(timeout=60_000)
                assert page.locator(f"#{side} .assistant .said").nth(turn).inner_text().strip()
        assert "<script>alert(1)</script>" in page.locator("#base .user .said").nth(1).inner_text()
        assert page.locator("main img").count() == 0
        require_good(seen)
        page.click("#again")
        assert page.locator("#base li").count() == 0


def test_an_answer_is_stopped_and_a_missing_model_is_said(started: Any, address: str) -> None:
    with opened(started, f"{address}/talk/short") as seen:
        page = seen.page
        page.fill("#longest", "2048")
        page.fill("#temperature", "5")  # hardly ever ends by itself
        page.fill("#question", "Go on.")
        page.click("#send")
        page.locator("#base .assistant .said", has_text=re.compile(r"\w{3}")).wait_for(timeout=60_000)
        page.click("#stop")
        page.locator("#send:enabled").wait_for(timeout=10_000)
        assert "cut off" in page.inner_text("#base .facts")
        assert "stopped before it began" in page.inner_text("#tuned")
        seen.require_clean()
        page.goto(f"{address}/talk/hostile")
        page.fill("#question", "Are you there?")
        page.click("#send")
        page.locator("#wrong:visible").wait_for(timeout=30_000)
        assert "local/model" in page.inner_text("#wrong") and page.input_value("#question") == "Are you there?"
        require_good(seen)
