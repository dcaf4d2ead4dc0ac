"""The page as a file: whole, small, and with nothing in it that came as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from omg_graph.errors import DataError
from omg_graph.record.results import SavedRun
from omg_graph.report import figures, page
from omg_graph.report.page import DETAILED, render, write_report

VENDOR = Path(page.__file__).parent / "vendor"


class Elements(HTMLParser):
    """Every element of a page with its attributes, and what scripts hold."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data


@pytest.fixture(scope="module")
def hostile(hostile_run: SavedRun) -> Elements:
    return Elements(render(hostile_run))


def test_text_makes_no_element(hostile: Elements, hostile_run: SavedRun) -> None:
    scripts = [attributes for tag, attributes in hostile.found if tag == "script"]
    data = [attributes for attributes in scripts if attributes.get("type") == "application/json"]
    assert len(data) == len(hostile_run.trajectories)
    assert len(scripts) - len(data) == len(page.SCRIPTS)
    assert not [tag for tag, attributes in hostile.found if tag == "img" or "onerror" in attributes]


def test_nothing_is_a_template(hostile_run: SavedRun) -> None:
    content = render(hostile_run)
    assert "&amp;amp; {{ 7*7 }} ⟨U+202E⟩" in content
    assert "&amp;amp; 49" not in content


def test_data_are_json(hostile: Elements) -> None:
    for script in hostile.scripts[:3]:
        assert set(json.loads(script)) == {"modalities", "labels", "candidates"}


def test_the_policy_lets_these_scripts_run_and_nothing_load(hostile: Elements) -> None:
    policy = next(
        a["content"] for tag, a in hostile.found if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["img-src"] == "data:"
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in hostile.scripts[3:]
    }
    assert set(directives["script-src"].split()) == hashes


def test_no_element_names_another_place(hostile: Elements) -> None:
    links = [
        value
        for _, attributes in hostile.found
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "srcset", "poster")
    ]
    assert links
    assert all(link is not None and link.startswith("#") for link in links)


def test_a_hundred_samples_stay_under_five_megabytes(clips_run: SavedRun, tmp_path: Path) -> None:
    many = replace(clips_run, trajectories=(clips_run.trajectories * 9)[:105])
    size = write_report(many, tmp_path / "page.html")
    assert size == (tmp_path / "page.html").stat().st_size < 5_000_000
    content = (tmp_path / "page.html").read_text("utf-8")
    assert content.count('<article id="sample-') == DETAILED
    assert "105 samples" in content
    assert "The first 100 can be opened here" in content


def test_pictures_get_coarser_and_stories_fewer_where_there_is_no_room(
    plain_run: SavedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    roomy = render(plain_run)
    monkeypatch.setattr(figures, "FEWEST", 4)
    monkeypatch.setattr(page, "FEWEST", 4)
    monkeypatch.setattr(page, "LEAST", 0)
    texts = sum(len(text.encode()) for text in re.findall("<article.*?</article>", roomy, re.S))
    data = sum(map(len, re.findall('id="data-.*?</script>', roomy)))
    monkeypatch.setattr(page, "STORIES", texts + data // 2)
    coarse = render(plain_run)
    assert len(coarse) < len(roomy)
    assert "pictures are coarser" in coarse
    assert "pictures are coarser" not in roomy
    assert coarse.count("<article") == 2
    monkeypatch.setattr(page, "STORIES", texts * 3 // 4)
    fewer = render(plain_run)
    assert fewer.count("<article") == 1
    assert "The first 1 can be opened here" in fewer


def test_only_those_asked_for(clips_run: SavedRun) -> None:
    chosen = clips_run.trajectories[3]
    content = render(clips_run, ids=[chosen.id])
    assert content == render(clips_run, ids=[chosen.id])
    assert content.count("<article") == 1
    assert clips_run.trajectories[0].id not in content
    with pytest.raises(DataError, match="nobody"):
        render(clips_run, ids=["nobody"])


def test_every_term_of_every_candidate_is_there(clips_run: SavedRun) -> None:
    chosen = clips_run.trajectories[0]
    content = render(clips_run, ids=[chosen.id])
    assert chosen.plan is not None
    for candidate in chosen.plan.candidates:
        for number in (candidate.log_probability, candidate.score):
            assert number is not None
            assert f"{round(number, 2) + 0.0:.2f}".replace("-", "−") in content
    for entry in chosen.evidence["audio"]:
        assert {f"{entry.weight:.3f}", f"{entry.similarity:.3f}".replace("-", "−")} <= set(
            re.findall(r"−?\d+\.\d+", content)
        )
        assert entry.source in content
    assert set(re.findall(r"<td>(\w+)</td><td class=\"number\">", content)) >= set(chosen.timings)


def test_a_run_without_its_arrays_says_so(clips_run: SavedRun) -> None:
    bare = [
        trajectory.model_copy(
            update={
                "arrays": {},
                "reconstruction": {
                    name: ref.model_copy(update={"uri": "gone"})
                    for name, ref in trajectory.reconstruction.items()
                },
            }
        )
        for trajectory in clips_run.trajectories[:2]
    ]
    content = render(
        replace(clips_run, trajectories=tuple(bare), lacking=("arrays.safetensors isn't there",))
    )
    assert "arrays.safetensors isn&#39;t there" in content
    assert "nothing can be drawn" in content


def test_the_libraries_are_those_that_were_published() -> None:
    told = dict(
        re.findall(r"^\| `([\w.]+)` .*\| ([0-9a-f]{64}) \|$", (VENDOR / "README.md").read_text("utf-8"), re.M)
    )
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}
    assert told == found
    terms = (VENDOR / "LICENSES.txt").read_text("utf-8")
    assert all(name in terms for name in found)
