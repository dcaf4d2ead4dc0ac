"""The page in a real browser: it opens without complaint, and works by mouse, by keyboard and on a phone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from omg_graph.record.comparison import compare
from omg_graph.record.results import SavedRun
from omg_graph.report.page import write_comparison, write_report

PHONE = {"width": 375, "height": 720}
DESK = {"width": 1100, "height": 900}


@dataclass
class Visit:
    """A page that was opened, and what it did beside being shown."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def files(
    clips_run: SavedRun,
    plain_run: SavedRun,
    hostile_run: SavedRun,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    names = ("clips", "plain", "hostile", "one", "pixels", "compared", "images")
    made = {name: folder / f"{name}.html" for name in names}
    write_report(clips_run, made["clips"])
    write_report(plain_run, made["plain"])
    write_report(hostile_run, made["hostile"])
    write_report(clips_run, made["one"], ids=[clips_run.trajectories[0].id])
    write_report(clips_run, made["pixels"], pictures={"audio": (1, 5)})
    for name, run in (("compared", clips_run), ("images", plain_run)):
        pairs = [compare(one, one, (run.arrays.find,) * 2, run.arrays.scale) for one in run.trajectories[:2]]
        write_comparison(pairs, (run, run), made[name])
    return made


@pytest.fixture
def visit(browser: Any, files: dict[str, Path]) -> Iterator[Open]:
    """Open one of the pages; at the end, nothing may have gone wrong or out."""
    visits: list[tuple[Visit, Any]] = []

    def go(name: str, place: str = "", viewport: dict[str, int] = DESK, scheme: str = "light") -> Visit:
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        made = Visit(context.new_page())
        made.page.on("console", lambda message: made.complaints.append(message.text))
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.goto(files[name].as_uri() + place)
        visits.append((made, context))
        return made

    yield go
    for made, context in visits:
        context.close()
        assert made.complaints == []
        own = [url for url in made.requests if url.startswith("file:") and "/pages" in url]
        assert [url for url in made.requests if url not in own and not url.startswith("data:")] == []


def open_article(page: Any) -> Any:
    (article,) = [each for each in page.query_selector_all("main > article") if each.is_visible()]
    return article


@pytest.mark.parametrize("name", ["clips", "plain", "hostile", "pixels", "one"])
def test_every_picture_is_drawn(visit: Open, name: str) -> None:
    page = visit(name, "#sample-0").page
    article = open_article(page)
    holders = article.query_selector_all("[data-draw]:not([data-draw=numbers]):not([data-draw=key])")
    assert holders
    for holder in holders:
        assert holder.query_selector("svg"), holder.get_attribute("data-draw")
    for picture in article.query_selector_all("figure > div > svg, .panels svg"):
        assert picture.get_attribute("aria-label")


def test_one_sample_needs_no_list(visit: Open) -> None:
    page = visit("one").page
    assert page.query_selector("#list") is None
    assert open_article(page).is_visible()


def test_the_slider_works_by_keyboard_and_by_mouse(visit: Open, clips_run: SavedRun) -> None:
    last = len(clips_run.trajectories[0].denoising["audio"])
    page = visit("clips", "#sample-0").page
    slider = page.locator("article:visible input[type=range]").first
    told = page.locator("article:visible output").first
    caption = page.locator("article:visible [data-caption=step]").first
    picture = page.locator("article:visible [data-draw=step]").first
    assert told.inner_text().startswith(f"{last} of {last}, t = ")
    end = picture.inner_html()
    slider.focus()
    page.keyboard.press("ArrowLeft")
    assert told.inner_text().startswith(f"{last - 1} of {last}, t = ")
    assert slider.get_attribute("aria-valuetext") == told.inner_text()
    page.keyboard.press("Home")
    assert told.inner_text().startswith(f"1 of {last}, t = ")
    assert "at step 1" in caption.inner_text()
    assert picture.inner_html() != end
    box = slider.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    assert told.inner_text().startswith(f"{last} of {last}, t = ")
    assert picture.inner_html() == end


def shown(page: Any) -> list[str]:
    return [row.inner_text() for row in page.locator("#samples tbody tr:visible td:first-child").all()]


def test_the_filters_work(visit: Open, clips_run: SavedRun) -> None:
    page = visit("clips").page
    ids = [trajectory.id for trajectory in clips_run.trajectories]
    assert shown(page) == ids
    page.fill("#find", ids[3].upper())
    assert shown(page) == [ids[3]]
    assert page.inner_text("#count") == "1 of 12"
    page.fill("#find", "nothing like it")
    assert shown(page) == []
    page.fill("#find", "")
    page.select_option("#missing", label="audio")
    assert shown(page) == ids
    label = clips_run.trajectories[0].prediction.label  # type: ignore[union-attr]
    page.focus("#label")
    page.select_option("#label", label=label)
    expected = [t.id for t in clips_run.trajectories if t.prediction and t.prediction.label == label]
    assert shown(page) == expected


def test_the_list_can_be_sorted_by_mouse_and_by_keyboard(visit: Open, clips_run: SavedRun) -> None:
    page = visit("clips").page
    by_error = sorted(clips_run.trajectories, key=lambda trajectory: trajectory.errors["audio"].nmse)
    head = page.locator("#samples th").filter(has_text="error")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert shown(page) == [trajectory.id for trajectory in by_error]
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert shown(page) == [trajectory.id for trajectory in reversed(by_error)]


def test_samples_are_reached_by_keyboard_and_left_again(visit: Open, clips_run: SavedRun) -> None:
    page = visit("clips").page
    ids = [trajectory.id for trajectory in clips_run.trajectories]
    focused = "document.activeElement.tagName === 'H1' && document.activeElement.textContent"
    page.locator("#samples a").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"{focused} === {json.dumps(ids[1])}")
    page.get_by_role("link", name="Next").click()
    page.wait_for_function(f"{focused} === {json.dumps(ids[2])}")
    assert ids[2] in page.title()
    page.go_back()
    page.wait_for_function(f"{focused} === {json.dumps(ids[1])}")
    page.get_by_role("link", name="All samples").click()
    page.locator("#samples").wait_for(state="visible")
    assert not page.locator("main > article:visible").count()


@pytest.mark.parametrize(("name", "rows"), [("clips", 5), ("plain", 2)])
def test_pictures_have_tables(visit: Open, name: str, rows: int) -> None:
    page = visit(name, "#sample-0").page
    details = page.locator("article:visible details[data-draw=numbers]").first
    details.locator("summary").focus()
    page.keyboard.press("Enter")
    details.locator("table").wait_for()
    assert details.locator("tbody tr").count() == rows
    assert "reconstruction" in details.locator("thead").inner_text()
    assert "NaN" not in details.inner_text()


@pytest.mark.parametrize("name", ["clips", "plain", "hostile"])
def test_a_phone_needs_no_sideways_scrolling(visit: Open, name: str) -> None:
    for place in ("", "#sample-0"):
        page = visit(name, place, viewport=PHONE).page
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_the_theme_can_be_chosen(visit: Open) -> None:
    page = visit("clips", "#sample-0", scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: light"
    assert page.evaluate(ground) == "rgb(255, 255, 255)" != dark
    page.click("#theme")
    assert page.evaluate(ground) == dark


def test_hostile_text_stays_text(visit: Open) -> None:
    page = visit("hostile", "#sample-0").page
    assert page.evaluate("typeof window.hurt") == "undefined"
    heading = page.locator("article:visible h1").inner_text()
    assert heading.startswith("0<script>window.hurt = 1</script>")
    assert "⟨U+202E⟩gnirts␇" in heading
    assert page.locator("article:visible svg").filter(has_text="<script>").count()
    assert page.locator("article:visible script:not([type])").count() == 0


def test_without_scripts_the_tables_remain(browser: Any, files: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(files["clips"].as_uri())
    assert page.locator("article").nth(3).is_visible()
    assert not page.locator(".filters").is_visible()
    context.close()


@pytest.mark.parametrize(("name", "pictures"), [("compared", 2), ("images", 6)])
def test_two_runs_are_drawn_over_each_other(visit: Open, name: str, pictures: int) -> None:
    page = visit(name, viewport=PHONE).page
    drawn = page.query_selector_all("[data-draw=values]")
    assert len(drawn) == pictures
    assert all(holder.query_selector("svg[aria-label]") for holder in drawn)
    assert {"before", "after"} <= set(" ".join(page.inner_text("main").split()).split(" "))
    page.click("details.table summary >> nth=0")
    page.wait_for_selector("details[open] table")
    heads = [head.inner_text() for head in page.query_selector_all("details[open] thead th")]
    assert heads[1:] == ["after", "before"]
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
