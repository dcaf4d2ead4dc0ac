"""The scripts behind make reproduce: which studies there are, and a page of as much as there is."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from omg_graph.errors import DataError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("reproduce")
    for name in ("reproduce", "results_page"):
        sys.modules.pop(name, None)


@pytest.fixture
def data_sets(tmp_path: Path, tiny_data_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as OMG_DATA's, the tiny clips standing for both data sets."""
    for name in ("mosi", "mfeat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / f"{name}_train_valid.pkl").write_bytes(tiny_data_file.read_bytes())
    monkeypatch.setenv("OMG_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def names(script: ModuleType, output: Path, *arguments: str) -> list[str]:
    options = script._options(list(arguments))
    return [part.name for part in script.chosen(script.parts(options, output), options.only)]


def test_which_studies_there_are(script: ModuleType, data_sets: Path, tmp_path: Path) -> None:
    assert names(script, tmp_path) == ["mosi", "mfeat", "simulator", "study"]
    everything = ["mosi", "mosi-ablation", "mfeat", "mfeat-ablation", "simulator", "study"]
    assert names(script, tmp_path, "--full") == everything
    assert names(script, tmp_path, "--full", "--only", "mosi-ablation") == ["mosi-ablation"]
    assert script._options(["--full"]).seeds == 5
    assert script._options([]).seeds == 1


def test_without_the_data_sets_the_simulator_is_left(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMG_DATA", raising=False)
    assert names(script, tmp_path) == ["simulator", "study"]
    assert "OMG_DATA was expected" in capsys.readouterr().err
    with pytest.raises(DataError, match="set OMG_DATA"):
        names(script, tmp_path, "--only", "mosi")
    assert script.main(["--only", "music", "--output", str(tmp_path)]) == 2
    assert "--only: one of mosi, mfeat, simulator, study was expected" in capsys.readouterr().err


def test_a_page_of_nothing_says_so(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part is run, wherever: the page has a place for all of them."""
    monkeypatch.delenv("OMG_DATA", raising=False)
    page = tmp_path / "docs" / "results.md"
    assert script.main(["--full", "--page-only", "--output", str(tmp_path), "--page", str(page)]) == 0
    text = page.read_text("utf-8")
    assert text.count("Not run yet.") == 5
    assert "make reproduce-full" in text
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) == 3
    assert all((page.parent / link).is_file() for link in links)


def row(metric: str, condition: str, value: float) -> dict[str, Any]:
    return {"metric": metric, "condition": condition, "value": value, "low": value - 0.1, "high": value + 0.1}


def gap(metric: str, first: float, second: float, half: float) -> dict[str, Any]:
    difference = first - second
    limits = {"difference": difference, "low": difference - half, "high": difference + half}
    return {"metric": metric, "condition": "average", "first": first, "second": second} | limits


def entry(name: str, figures: list[dict[str, Any]], differences: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "protocols": {"fixed": {"figures": figures, "differences": differences}}}


def test_figures_of_the_page(script: ModuleType, tmp_path: Path) -> None:
    from results_page import Chapter, results_page

    own = [row("acc2", "average", 0.80), row("nmse", "a", 0.4), row("nmse", "a+b", 0.2)]
    document = {
        "variants": [
            entry("default", own, []),
            entry("plain", [row("acc2", "average", 0.78)], [gap("acc2", 0.78, 0.80, 0.01)]),
        ],
        "floors": [
            entry("weak", [row("acc2", "average", 0.60)], [gap("acc2", 0.60, 0.80, 0.01)]),
            entry("strong", [row("acc2", "average", 0.79)], [gap("acc2", 0.79, 0.80, 0.02)]),
        ],
        "versions": {"python": "3.11"},
        "machine": {"gpu": "none"},
    }
    folder = tmp_path / "made"
    (folder / "plots").mkdir(parents=True)
    (folder / "ablation.json").write_text(json.dumps(document), "utf-8")
    (folder / "ablation.md").write_text("# Ablations\n\n- 3 of 5 seeds\n\n## K\n", "utf-8")
    (folder / "plots" / "top-k.png").write_bytes(b"picture")
    page = tmp_path / "results.md"
    groups = {"one": (("a",),), "both": (("a",), ("b", "a"))}
    results_page(page, [Chapter(folder, "Made up", "Nothing real.", "plain", groups)], full=True)
    text = page.read_text("utf-8")
    # the method less plain diffusion, and less the best floor, signs turned
    assert "| acc2 | 0.8000 | plain | 0.7800 | +0.0200 [+0.0100, +0.0300]  |" in text
    assert "| acc2 | 0.8000 | strong | 0.7900 | +0.0100 [-0.0100, +0.0300] no difference shown |" in text
    assert "weak |" not in text
    assert "| default | 0.4000 | 0.3000 |" in text
    assert "3 of 5 seeds" in text
    assert "### K" in text
    assert "![Made up: top-k](results/made-top-k.png)" in text
    assert (tmp_path / "results" / "made-top-k.png").read_bytes() == b"picture"
