"""``omg trace``: the story once more, as a page or in the terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from omg_graph.cli import main
from omg_graph.cli.runtime import Settings

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "apply", lambda self: None)


@pytest.fixture(scope="module")
def results(tiny_data_file: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace") / "out"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "valid"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "apply", lambda self: None)
        assert main(["run", *common, "--missing", "audio", "--limit", "3", "--output", str(folder)]) == 0
    return folder


def ids_of(results: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (results / "trajectory.jsonl").read_text("utf-8").splitlines()]


def test_the_page_is_that_of_the_run(results: Path, tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "page.html"
    assert main(["trace", "report", str(results), "--output", str(page)]) == 0
    assert page.read_bytes() == (results / "report.html").read_bytes()
    assert capsys.readouterr().out.startswith(f"{page}: 3 samples, ")


def test_beside_the_results_by_default(results: Path, capsys: Capture) -> None:
    assert main(["trace", "report", str(results / "trajectory.jsonl"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    size = (results / "report.html").stat().st_size
    assert told == {
        "report": str(results / "report.html"),
        "bytes": size,
        "samples": 3,
    }


def test_some_samples_of_it(results: Path, tmp_path: Path) -> None:
    first, second, third = ids_of(results)
    page = tmp_path / "page.html"
    command = ["trace", "report", str(results), "--output", str(page), "--pixels", "audio=5x1"]
    assert main([*command, "--id", third, "--id", first]) == 0
    content = page.read_text("utf-8")
    assert content.index(third) < content.index(first)
    assert second not in content
    assert '"kind":"image"' in content


def test_without_a_report_nothing_is_computed_for_its_pictures(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    folder = tmp_path / "out"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--missing", "audio"]
    kept = []
    for more in (["--no-report"], [], ["--no-report", "--keep-path", "all"]):
        assert main(["run", *common, "--limit", "1", "--output", str(folder), *more]) == 0
        assert ("report     " in capsys.readouterr().out) == (folder / "report.html").exists() == (not more)
        line = json.loads((folder / "trajectory.jsonl").read_text("utf-8"))
        assert {"observed/text", "path/audio", "clean/audio", "truth/audio"} <= set(line["arrays"])
        kept.append({"steps/audio", "nearest/audio"} & set(line["arrays"]))
        if more == ["--no-report"]:
            assert main(["trace", "report", str(folder)]) == 0
            capsys.readouterr()
            assert "How the estimate took shape wasn't kept" in (folder / "report.html").read_text("utf-8")
    assert kept == [set(), {"steps/audio", "nearest/audio"}, {"steps/audio", "nearest/audio"}]


def test_the_terminal_tells_what_the_run_told(
    tiny_data_file: Path, tiny_model_folder: Path, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "valid"]
    folder = tmp_path / "out"
    assert main(["run", *common, "--missing", "audio", "--limit", "3", "--output", str(folder)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert main(["trace", "show", str(results)]) == 0
    again = capsys.readouterr().out.splitlines()
    start = next(line for line in told if line.startswith("sample "))
    end = next(line for line in told if line.startswith("utility "))
    story = told[told.index(start) : told.index(end)]
    assert again[again.index(start) : again.index(end)] == story
    assert any("without the reconstruction" in line for line in story)
    assert any("3 samples" in line for line in again)


def test_one_sample_of_several(results: Path, capsys: Capture) -> None:
    chosen = ids_of(results)[2]
    assert main(["trace", "show", str(results), "--id", chosen]) == 0
    out = capsys.readouterr().out
    assert f"sample {chosen}" in out
    assert "3 samples" not in out
    assert re.search(r"^terms      L_rec [\d.]+, C_sem [\d.]+, C_evi -?[\d.]+, C_path [\d.]+$", out, re.M)
    assert re.search(r"^timings    planner [\d.]+ s, rerank", out, re.M)
    assert main(["trace", "show", str(results), "--id", chosen, "--json"]) == 0
    line = (results / "trajectory.jsonl").read_text("utf-8").splitlines()[2]
    assert json.loads(capsys.readouterr().out) == json.loads(line)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["show", "{results}", "--id", "nobody"], "there is no sample 'nobody'"),
        (["report", "{empty}"], "run omg run first"),
        (["report", "{results}", "--output", "{empty}"], "a file in a folder that is there"),
        (["report", "{results}", "--output", "{empty}/no/page.html"], "a file in a folder that is there"),
        (["report", "{results}", "--pixels", "audio"], "NAME=ROWSxCOLUMNS"),
        (["report", "{results}", "--pixels", "audio=0x5"], "NAME=ROWSxCOLUMNS"),
        (["report", "{results}", "--pixels", "audio=2x2"], "got 5 numbers"),
        (["report", "{results}", "--pixels", "smell=2x2"], "nothing of that name"),
    ],
)
def test_what_cannot_be_told_is_one_line(
    results: Path, tmp_path: Path, capsys: Capture, arguments: list[str], complaint: str
) -> None:
    places = {"results": results, "empty": tmp_path}
    assert main(["trace", *(word.format(**places) for word in arguments)]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
