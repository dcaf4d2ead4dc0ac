"""``omg trace``: results shown again, run on with something changed, and compared."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.record.trajectory import Plan

Capture = pytest.CaptureFixture[str]
Omg = Callable[..., Any]


@pytest.fixture(scope="module")
def results(tiny_data_file: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace") / "out"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "valid"]
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


# fork and compare


@pytest.fixture(scope="module")
def runs(tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one clip, and one of three."""
    folder = tmp_path_factory.mktemp("whatif")
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "test"]
    for name, limit in (("one", "1"), ("three", "3")):
        told = [
            "--missing",
            "audio",
            "--limit",
            limit,
            "--draws",
            "2",
            "--steps",
            "3",
            "--no-report",
            "--json",
        ]
        assert main(["run", *common, *told, "--output", str(folder / name)]) == 0
    return folder


@pytest.fixture
def omg(tiny_model_folder: Path, capsys: Capture) -> Omg:
    """Exit code 0, and what it printed as JSON."""

    def go(*arguments: object) -> Any:
        capsys.readouterr()
        model = ["--model", str(tiny_model_folder), "--no-report"] if arguments[1] == "fork" else []
        code = main([*map(str, arguments), *model, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return go


def trajectory(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "trajectory.jsonl").read_text("utf-8").splitlines()[0])
    return found


def test_another_sentiment_from_the_files_of_a_run(runs: Path, omg: Omg, tmp_path: Path) -> None:
    before = trajectory(runs / "one")
    now = before["plan"]["constraints"][-1]["value"]
    value = "strongly negative" if now != "strongly negative" else "strongly positive"
    made = omg("trace", "fork", runs / "one", "--set", f"Sentiment={value}", "--output", tmp_path / "out")
    after = trajectory(tmp_path / "out")
    assert made["trajectories"] == [after]
    assert after["plan"]["constraints"][-1]["value"] == value
    assert (after["seed"], after["hidden"]) == (before["seed"], ["audio"])
    assert len(after["denoising"]["audio"]) == len(before["denoising"]["audio"])
    with np.load(tmp_path / "out" / "reconstruction.npz") as arrays:
        assert arrays["audio_draws"].shape == (2, 5)
    (sample,) = omg("trace", "compare", runs / "one", tmp_path / "out")["samples"]
    assert sample["plan"]["changed"] == [{"field": "Sentiment", "before": now, "after": value}]
    assert sample["same_input"]
    assert sample["output"]["audio"]["from_mean"] > 0
    assert sample["output"]["audio"]["distance"] is not None
    # a fork of a fork
    omg("trace", "fork", tmp_path / "out", "--set", f"Sentiment={now}", "--output", tmp_path / "back")
    (sample,) = omg("trace", "compare", runs / "one", tmp_path / "back")["samples"]
    assert sample["plan"]["changed"] == []
    assert sample["output"]["audio"]["distance"] == 0
    assert sample["evidence"]["audio"]["moved"] == pytest.approx(0, abs=1e-9)


def test_an_entry_dropped(runs: Path, omg: Omg, tmp_path: Path) -> None:
    sample = trajectory(runs / "three")
    entry = sample["evidence"]["audio"][0]
    name, out = sample["id"], tmp_path / "out"
    omg("trace", "fork", runs / "three", "--id", name, "--drop-evidence", entry["id"], "--output", out)
    (compared,) = omg("trace", "compare", runs / "three", out)["samples"]
    evidence = compared["evidence"]["audio"]
    gone = [one["id"] for one in evidence["entries"] if one["after"] is None]
    assert gone == [entry["id"]]
    assert evidence["moved"] == pytest.approx(entry["weight"], abs=1e-6)
    assert compared["plan"]["before"] == compared["plan"]["after"]
    assert compared["notes"] == [[], [f"evidence left out on request: {entry['id']}"]]


def test_the_table_and_the_page(runs: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    entry, page = trajectory(runs / "one")["evidence"]["audio"][0]["id"], tmp_path / "page.html"
    place = ["--output", str(tmp_path / "out"), "--model", str(tiny_model_folder), "--no-report"]
    assert main(["trace", "fork", str(runs / "one"), "--drop-evidence", entry, *place]) == 0
    assert "evidence left out on request" in capsys.readouterr().out
    assert main(["trace", "compare", str(runs / "one"), str(tmp_path / "out"), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert ": the same" in told
    assert "gone" in told
    assert "moved by" in told
    written = page.read_text("utf-8")
    assert entry in written
    assert '"words":{"truth":"before","estimate":"after"}' in written


def test_a_page_escapes_what_it_is_given(runs: Path, omg: Omg, tmp_path: Path) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    changed = trajectory(runs / "one")
    changed["notes"] = ["<img src=x onerror=alert(1)>"]
    (hostile / "trajectory.jsonl").write_text(json.dumps(changed), "utf-8")
    (sample,) = omg("trace", "compare", runs / "one", hostile, "--html", tmp_path / "page.html")["samples"]
    assert sample["output"]["audio"]["distance"] is None, "its arrays aren't there"
    written = (tmp_path / "page.html").read_text("utf-8")
    assert "<img" not in written
    assert "&lt;img" in written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["three", "--set", "Sentiment=positive"], "expected one sample, there are 3"),
        (["one", "--set", "Sentiment"], "--set: expected FIELD=VALUE"),
        (["one", "--set", "Sentiment=so so"], "Sentiment can't be 'so so'"),
        (["one", "--drop-evidence", "nobody"], "got 'nobody'"),
        (["one"], "expected a change"),
        (["one", "--pick", "99"], "pick: expected a candidate from 1 to"),
        (["nowhere", "--pick", "1"], "a folder that omg run wrote"),
    ],
)
def test_what_can_t_be_forked(
    runs: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture, arguments: list[str], told: str
) -> None:
    name, *changes = arguments
    place = ["--output", str(tmp_path / "out"), "--model", str(tiny_model_folder)]
    assert main(["trace", "fork", str(runs / name), *changes, *place]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_candidate_is_picked_by_its_place_in_the_table(
    runs: Path, tiny_model_folder: Path, tmp_path: Path, omg: Omg
) -> None:
    plan = Plan.model_validate(trajectory(runs / "one")["plan"])
    ranked = plan.ranked()
    assert ranked[0] == plan.chosen
    texts = [plan.candidates[index].text for index in ranked]
    assert len(set(texts)) == len(texts) == len(plan.candidates)
    place = len(texts)
    omg("trace", "fork", runs / "one", "--pick", place, "--output", tmp_path, "--model", tiny_model_folder)
    assert trajectory(tmp_path)["plan"]["text"] == texts[-1]


def test_runs_on_other_samples_aren_t_compared(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    changed = trajectory(runs / "one") | {"id": "another"}
    (tmp_path / "trajectory.jsonl").write_text(json.dumps(changed), "utf-8")
    assert main(["trace", "compare", str(runs / "one"), str(tmp_path)]) == 2
    assert "they share none" in capsys.readouterr().err
