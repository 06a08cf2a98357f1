"""A real browser for the pages: headless Chromium that keeps what went wrong on a page.

A page opened here must log no error, ask no other host for anything, and pass axe-core's checks for accessibility.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WIDTHS = (1280, 390)
"""A desk and a phone."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Opened:
    """A page, and what it did that it should not."""

    page: Any
    home: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def require_clean(self) -> None:
        """Fail where the page logged an error or asked another host for something."""
        assert not self.errors, self.errors
        assert not self.foreign, self.foreign

    def require_accessible(self) -> None:
        """Fail where axe-core finds anything to mend (contrast, landmarks, names, order of headings, ...)."""
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        said = [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}" for rule in found for node in rule["nodes"]
        ]
        assert not said, "\n".join(said[:20])

    def require_no_sideways_scrolling(self) -> None:
        """Fail where the page is wider than the window."""
        wide, window = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= window, f"the page is {wide} px wide in a window of {window} px"


def chromium() -> str:
    """Where Chromium is; the test is skipped where it is not installed."""
    pytest.importorskip("playwright")
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if not found:
        pytest.skip("no Chromium on this machine: browser tests need one (Debian: chromium)")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """Headless Chromium, closed at the end."""
    place = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=place, headless=True, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started: Any, address: str | Path, *, width: int = WIDTHS[0], **options: Any) -> Iterator[Opened]:
    """The page at `address` (a file, or an address of this machine), watched from its first request on."""
    target = address.resolve().as_uri() if isinstance(address, Path) else address
    home = "file://" if isinstance(address, Path) else "/".join(target.split("/")[:3])
    context = started.new_context(viewport={"width": width, "height": 900}, **options)
    page = context.new_page()
    seen = Opened(page, home)
    page.on("console", lambda said: seen.errors.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((home, "data:", "blob:")) else seen.foreign.append(asked.url),
    )
    try:
        page.goto(target)
        yield seen
    finally:
        context.close()
