"""The pictures of README.md, from a finished run: its report in a browser, and `equipoise watch` in the terminal.

python benchmarks/pictures.py runs/demo    # writes docs/pictures/

The report is written again first, so that the picture is what this version of the code makes of the run. Needs
Chromium, playwright and Pillow.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from equipoise.report.html import write_report
from equipoise.run_folder import Run
from equipoise.watch import look
from equipoise.watch_read import Reader
from equipoise.watch_show import rendered

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 1280
"""Of the report's window, in CSS pixels; the picture has half as many again."""
SHARPNESS = 1.5
BEHIND = "How sure is this?"
"""The heading above which the picture ends."""
COLUMNS = 118
COLOURS = 128
LARGEST = 300_000
"""Bytes of a picture: the page that shows it has to load at once."""


def main() -> None:
    """Write report.png, report-dark.png and terminal.svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--out", type=Path, default=PICTURES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / options.run.resolve().name
        shutil.copytree(options.run, folder)
        write_report(Run(folder))
        for theme, name in (("light", "report.png"), ("dark", "report-dark.png")):
            place = options.out / name
            place.write_bytes(small(photograph(folder / "report.html", theme)))
            print(f"{place}: {place.stat().st_size / 1000:.0f} kB")
    place = options.out / "terminal.svg"
    place.write_text(terminal(options.run))
    print(f"{place}: {place.stat().st_size / 1000:.0f} kB")


def photograph(page: Path, theme: Any) -> bytes:
    """The first screen of a page in headless Chromium, as PNG."""
    from playwright.sync_api import sync_playwright

    place = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if place is None:
        raise SystemExit("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=place, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(
            viewport={"width": WIDTH, "height": 1400}, device_scale_factor=SHARPNESS, color_scheme=theme
        )
        window.goto(page.resolve().as_uri())
        behind = window.get_by_role("heading", name=BEHIND)
        end = behind.bounding_box() if behind.count() else None
        if end is None:
            raise SystemExit(f"{page}: no heading {BEHIND!r}; mend BEHIND in {Path(__file__).name}")
        picture = window.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": end["y"] - 10})
        browser.close()
    return picture


def small(picture: bytes) -> bytes:
    """The same picture with a palette; raises ValueError where it is still too large for a page."""
    from PIL import Image

    packed = io.BytesIO()
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(packed, format="PNG", optimize=True)
    if packed.tell() > LARGEST:
        raise ValueError(f"a picture of {packed.tell()} bytes: at most {LARGEST}")
    return packed.getvalue()


def terminal(run: Path) -> str:
    """What `equipoise watch RUN --once` prints, as SVG; in a font of whoever looks, so that no other host is asked."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI

    console = Console(record=True, width=COLUMNS, highlight=False, file=io.StringIO(), force_terminal=True)
    console.print(f"[dim]$[/] equipoise watch runs/{run.resolve().name} --once\n")
    console.print(rendered(look(run, Reader())))
    made = console.export_svg(title="equipoise", theme=MONOKAI, unique_id="equipoise")
    return re.sub(r"@font-face \{.*?\}\s*", "", made, flags=re.DOTALL)


if __name__ == "__main__":
    main()
