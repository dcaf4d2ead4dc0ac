"""Planners by name: our own, and those of another package's entry points, as the documentation shows one."""

from __future__ import annotations

import importlib
import json
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from omg_graph.cli import main
from omg_graph.errors import ConfigError, ModelError, SchemaError
from omg_graph.model.folder import load_model, save_model
from omg_graph.model.planners import PLANNERS, STORED, make_planner

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "planners.md").read_text("utf-8")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, where packages can be put down with their metadata."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def put(folder: Path, module: str, source: str, entries: dict[str, str], group: str = PLANNERS) -> None:
    (folder / f"{module}.py").write_text(source, "utf-8")
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}")


def test_a_planner_of_another_package_is_stored_with_its_model(
    install: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    source = (
        "from omg_graph.planner.student import StudentPlanner\n"
        "class Mine(StudentPlanner):\n    name = 'mine'\n"
    )
    put(install, "mine_planner", source, {"mine": "mine_planner:Mine"}, STORED)
    model = load_model(tiny_model_folder)
    try:
        mine = importlib.import_module("mine_planner").Mine.load(tiny_model_folder / "planner")
        save_model(replace(model, planner=mine), tmp_path / "model")
        loaded = load_model(tmp_path / "model")
    finally:
        sys.modules.pop("mine_planner", None)
    assert (loaded.planner.name, loaded.config.planner) == ("mine", "mine")
    with pytest.raises(ModelError, match="can be stored"):
        save_model(replace(model, planner=SimpleNamespace(name="odd")), tmp_path / "odd")  # type: ignore[arg-type]


def test_the_distilled_one_is_the_models_own(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    assert make_planner("distilled", model) is model.planner


def test_the_documented_planner_runs(
    install: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = (
        block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "def make(" in block
    )
    (declared,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.M | re.S)
    entries = tomllib.loads(declared)["project"]["entry-points"][PLANNERS]
    put(install, "keyword_planner", source, entries)
    output = tmp_path / "out"
    sample = ROOT / "examples" / "sample.pkl"
    try:
        code = main(["run", "--input", str(sample), "--planner", "keyword", "--output", str(output)])
    finally:
        sys.modules.pop("keyword_planner", None)
    assert code == 0, capsys.readouterr().err
    (line,) = (output / "trajectory.jsonl").read_text("utf-8").splitlines()
    plan = json.loads(line)["plan"]
    assert plan["planner"] == "keyword"
    assert [constraint["field"] for constraint in plan["constraints"]] == ["Entity", "Action", "Sentiment"]
    assert [candidate["times"] for candidate in plan["candidates"]] == [5]


def test_what_cannot_be_made(install: Path, tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    other = (
        "from types import SimpleNamespace\nfrom omg_graph.planner.schema import Schema\n"
        "schema = Schema(name='other', fields=({'name': 'A', 'values': ('x',)},), text_form='{A}')\n"
        "def make(model, options):\n    return SimpleNamespace(name='odd', schema=schema)\n"
    )
    put(install, "odd_planner", other, {"odd": "odd_planner:make", "gone": "no_such_module_here:make"})
    try:
        with pytest.raises(SchemaError, match=r"other.*model\.schema"):
            make_planner("odd", model)
        with pytest.raises(ConfigError, match="can't be imported"):
            make_planner("gone", model)
        with pytest.raises(ConfigError, match="chat, distilled, gone, odd"):
            make_planner("nobody", model)
    finally:
        sys.modules.pop("odd_planner", None)


def test_no_package_takes_the_name_of_our_own(install: Path, tiny_model_folder: Path) -> None:
    put(install, "taker", "", {"distilled": "taker:make"})
    model = load_model(tiny_model_folder)
    assert make_planner("distilled", model) is model.planner
