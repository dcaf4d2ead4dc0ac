"""What the README and docs/ say of files, keys and each other is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from omg_graph.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "knowledge_base" / "README.md",
    ROOT / "prompts" / "README.md",
]


def keys_of_table(heading: str) -> set[str]:
    """The names in the first column of the table under a bold heading."""
    table = README.split(f"**`{heading}`**", 1)[1].split("\n\n", 2)[1]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(scope="module")
def results(tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme") / "out"
    common = ["run", "--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--json"]
    assert main([*common, "--missing", "audio", "--draws", "3", "--limit", "2", "--output", str(folder)]) == 0
    return folder


def test_the_keys_of_a_trajectory(results: Path) -> None:
    line = (results / "trajectory.jsonl").read_text("utf-8").splitlines()[0]
    assert keys_of_table("trajectory.jsonl") == set(json.loads(line))


def test_the_keys_of_a_reconstruction(results: Path, tiny_plain_folder: Path, tiny_plain_file: Path) -> None:
    told = {name.replace("<name>", "audio") for name in keys_of_table("reconstruction.npz")}
    with np.load(results / "reconstruction.npz", allow_pickle=False) as file:
        assert set(file) == told - {"audio_lengths", "audio_filled"}
    padded = results.parent / "padded"
    common = ["run", "--input", str(tiny_plain_file), "--model", str(tiny_plain_folder), "--json"]
    assert main([*common, "--missing", "a.b", "--output", str(padded)]) == 0
    with np.load(padded / "reconstruction.npz", allow_pickle=False) as file:
        assert "a.b_lengths" in file


def test_a_run_writes_the_files_that_are_named(results: Path) -> None:
    assert all(f"**`{path.name}`**" in README for path in results.iterdir())
    assert len(list(results.iterdir())) == len(re.findall(r"^\*\*`[\w.]+`\*\*", README, re.M))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_every_page_of_docs_is_linked() -> None:
    linked = set(re.findall(r"\]\((docs/[\w.-]+)\)", README))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


def test_make_targets_that_pages_name_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`", page.read_text("utf-8"))
    }
    assert {"demo-model"} <= named <= targets
