"""Take the README's picture of the report page anew: the embedded default on the example sample.

It needs chromium on the path. After a new embedded model: ``python benchmarks/report_picture.py``.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from omg_graph.cli import main

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "report.png"
WIDTH, HEIGHT, GAP = 880, 1180, 12
STEP = 9
"""Which denoising step the slider stands at."""


def plan(page: Page) -> None:
    """The head of the page, with the plan."""
    page.evaluate("scrollTo(0, 0)")


def denoising(page: Page) -> None:
    """The path, with the slider in its middle."""
    slider = page.locator("input[type=range]").first
    slider.focus()
    page.keyboard.press("Home")
    for _ in range(STEP - 1):
        page.keyboard.press("ArrowRight")
    page.evaluate("document.querySelector('#denoising-0-0').scrollIntoView()")
    page.evaluate("document.activeElement.blur()")


def take(report: Path) -> Image.Image:
    """Both views side by side, one light and one dark."""
    picture = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), (128, 128, 128))
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for place, (scheme, view) in enumerate((("light", plan), ("dark", denoising))):
            context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            page = context.new_page()
            page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
            page.goto(report.as_uri())
            view(page)
            shot = Image.open(io.BytesIO(page.screenshot()))
            picture.paste(shot, (place * (WIDTH + GAP), 0))
        browser.close()
    return picture


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results"
        sample = str(ROOT / "examples" / "sample.pkl")
        code = main(["run", "--input", sample, "--draws", "19", "--output", str(results)])
        if code:
            sys.exit(code)
        PICTURE.parent.mkdir(exist_ok=True)
        # 256 colours: a third of the size, and nothing of it is seen
        take(results / "report.html").quantize(256).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1e3:.0f} kB")
