"""The scripts behind make reproduce: which studies there are, and a page of as much as there is."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from omg_graph.errors import DataError, OmgError

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("reproduce")
    for name in ("reproduce", "results_page", "goals"):
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
    assert names(script, tmp_path) == ["mosi", "mfeat", "training", "simulator", "study"]
    everything = ["mosi", "mosi-ablation", "mfeat", "mfeat-ablation", "training", "simulator", "study"]
    assert names(script, tmp_path, "--full") == everything
    assert names(script, tmp_path, "--full", "--only", "mosi-ablation") == ["mosi-ablation"]
    assert script._options(["--full"]).seeds == 5
    assert script._options([]).seeds == 1


def test_without_the_data_sets_the_simulator_is_left(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMG_DATA", raising=False)
    assert names(script, tmp_path) == ["simulator", "study"]
    assert "expected OMG_DATA" in capsys.readouterr().err
    with pytest.raises(DataError, match="set OMG_DATA"):
        names(script, tmp_path, "--only", "mosi")
    assert script.main(["--only", "music", "--output", str(tmp_path)]) == 2
    assert "--only: expected one of mosi, mfeat, training, simulator, study" in capsys.readouterr().err


def test_a_page_of_nothing_says_so(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever part is run, wherever: the page has a place for all of them."""
    monkeypatch.delenv("OMG_DATA", raising=False)
    page = tmp_path / "docs" / "results.md"
    assert script.main(["--full", "--page-only", "--output", str(tmp_path), "--page", str(page)]) == 0
    text = page.read_text("utf-8")
    assert text.count("Not run yet.") == 6
    assert "At a glance" not in text
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
    import goals as goals_module
    from results_page import Chapter, results_page

    own = [row("acc2", "average", 0.80), row("nmse", "one", 0.4), row("nmse", "both", 0.3)]
    document = {
        "variants": [
            entry("default", own, []) | {"seeds": [0, 1, 2]},
            entry("plain", [row("acc2", "average", 0.78)], [gap("acc2", 0.78, 0.80, 0.005)]) | {"seeds": [0]},
        ],
        "floors": [
            entry("weak", [row("acc2", "average", 0.60)], [gap("acc2", 0.60, 0.80, 0.01)]),
            entry("strong", [row("acc2", "average", 0.79)], [gap("acc2", 0.79, 0.80, 0.02)]),
            entry("anchor", [row("acc2", "average", 0.799)], [gap("acc2", 0.799, 0.80, 0.0005)]),
        ],
        "versions": {"python": "3.11"},
        "machine": {"gpu": "none", "processor": "an abacus", "cores": "2"},
    }
    folder = tmp_path / "made"
    (folder / "plots").mkdir(parents=True)
    (folder / "ablation.json").write_text(json.dumps(document), "utf-8")
    (folder / "ablation.md").write_text("# Ablations\n\n- 3 of 5 seeds\n\n## K\n", "utf-8")
    (folder / "plots" / "top-k.png").write_bytes(b"picture")
    page = tmp_path / "results.md"
    groups = {"one": (("a",),), "both": (("a",), ("b", "a"))}
    goals = goals_module.prediction_goals("Made up", "plain")
    results_page(page, [Chapter(folder, "Made up", "Nothing real.", "plain", groups, goals=goals)], full=True)
    text = page.read_text("utf-8")
    # the method less plain diffusion, and less the best floor, signs turned
    assert "| ACC2 | 80.0 | `plain` | 78.0 | +2.0 [+1.5, +2.5] |" in text
    assert "| ACC2 | 80.0 | `strong` | 79.0 | +1.0 [-1.0, +3.0]: no difference shown |" in text
    assert "`weak` |" not in text
    assert "| `default` | 0.4000 [0.3000, 0.5000] | 0.3000 [0.2000, 0.4000] |" in text
    # two points ahead of the one by an interval without zero, a point ahead of the other by one that has it
    verdicts = [line.rsplit("|", 2)[1].strip() for line in text.splitlines() if line.startswith("| Made up")]
    assert verdicts == ["**not shown**", "reached", "reached"]
    assert "ahead of `anchor`, which has all but the network" in text  # any lead: it is no floor
    assert "an abacus, 2 cores; python 3.11" in text
    assert "3 of the 5 seeds" in text
    assert "### K" in text
    assert "![Made up: top-k](results/made-top-k.png)" in text
    assert (tmp_path / "results" / "made-top-k.png").read_bytes() == b"picture"


def test_goals_of_reconstruction(script: ModuleType) -> None:
    """In the three groups of patterns, and by what is drawn."""
    import goals as goals_module

    names = ("one", "few", "most")
    own = [row("nmse", group, value) for group, value in zip(names, (0.44, 0.44, 0.24), strict=True)]
    own += [row("energy_score", "average", 3.9), row("coverage90", "average", 0.93)]
    floors = [
        entry("anchor", [], [gap("nmse", 0.45, 0.44, 0.02) | {"condition": "one"}]),
        entry("10 nearest neighbours", [row("energy_score", "average", 4.0)], []),
    ]
    document = {"variants": [entry("default", own, [])], "floors": floors}
    found = list(goals_module.reconstruction_goals("digits", names)(document))
    assert [(goal.verdict, goal.came.split()[0]) for goal in found] == [
        ("reached", "0.4400"),
        ("not shown", "-0.0100"),  # below the anchor, by an interval that holds zero
        ("missed", "0.4400"),
        ("reached", "0.2400"),
        ("missed", "-2.5%"),
        ("missed", "93.0%"),
    ]


def interval(value: float, half: float) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def test_goals_of_study_and_training(script: ModuleType) -> None:
    import goals as goals_module

    ratios = {"error_ratio": 1.05, "energy_ratio": 1.2, "degree_ratio": 0.94}
    methods = {"model": {name: interval(value, 0.01) for name, value in ratios.items()}}
    gains = {"without plan": {"error_ratio": interval(0.01, 0.02)}}
    figures = {"methods": methods, "gains": gains}
    better = {"methods": methods, "gains": {"without evidence": {"error_ratio": interval(0.03, 0.02)}}}
    settings = {"modes": {"subsets": {"all clips": figures}}, "rare-details": {"subsets": {"all": better}}}
    found = list(goals_module.study_goals({"settings": settings}))
    assert [goal.verdict for goal in found] == [
        "reached",
        "missed",
        "missed",
        "not shown",
        "reached",
        "missed",
        "missed",
        "reached",
    ]
    # where a part needn't help, whether it does is no goal
    (only,) = (goal for goal in found if goal.wanted.startswith("evidence"))
    assert only.where == "simulator, `rare-details`, all"
    subsets = dict.fromkeys(("all clips", "known contents", "unseen contents"), figures)
    apart = {"compositions": {"subsets": subsets, "by_pattern": {}}}
    found = list(goals_module.study_goals({"settings": apart}))
    assert [goal.where.split(", ")[-1] for goal in found] == ["known contents"] * 4 + ["unseen contents"] * 4
    (slow,) = goals_module.training_goals({"data": "clips", "wall_seconds": 660.0, "cpu_seconds": 600.0})
    assert (slow.verdict, slow.came) == ("missed", "11.0 minutes (10.0 of CPU time)")


def test_a_training_is_timed_once_and_by_its_command(
    script: ModuleType, data_sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "training"

    def trained(command: list[str], **_settings: Any) -> subprocess.CompletedProcess[bytes]:
        assert command[1:4] == ["-m", "omg_graph.cli", "train"]
        assert command[-2:] == ["--epochs", "3"]
        model = Path(command[command.index("--output") + 1])
        model.mkdir()
        (model / "manifest.json").write_text('{"training": {"seconds": {"executor": 2.5}}}', "utf-8")
        return subprocess.CompletedProcess(command, 0, b"{}")

    monkeypatch.setattr(script, "subprocess", SimpleNamespace(run=trained, PIPE=subprocess.PIPE))
    told: list[str] = []
    data = data_sets / "mosi" / "mosi_train_valid.pkl"
    for _ in range(2):
        script._training_time(folder, data, 3, lambda what, _done, _of: told.append(what))
    assert told == ["omg train"]
    document = json.loads((folder / "training.json").read_text("utf-8"))
    assert document["stages"] == {"executor": 2.5}
    assert document["epochs_at_most"] == 3
    assert "| executor | 2.5 |" in (folder / "training.md").read_text("utf-8")

    failing = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(returncode=2), PIPE=subprocess.PIPE)
    monkeypatch.setattr(script, "subprocess", failing)
    with pytest.raises(OmgError, match="ended with 2"):
        script._training_time(tmp_path / "other", data, None, lambda *_: None)
