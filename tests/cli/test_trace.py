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
from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import Plan

Capture = pytest.CaptureFixture[str]
Omg = Callable[..., Any]


@pytest.fixture(scope="module")
def results(clips_run: SavedRun) -> Path:
    return clips_run.folder


def ids_of(results: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (results / "trajectory.jsonl").read_text("utf-8").splitlines()]


def test_the_page_is_that_of_the_run(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--limit", "2"]
    assert main(["run", *common, "--missing", "audio", "--output", str(out)]) == 0
    written = (out / "report.html").read_bytes()
    capsys.readouterr()
    assert main(["trace", "report", str(out), "--output", str(page)]) == 0
    assert page.read_bytes() == written
    assert capsys.readouterr().out.startswith(f"{page}: 2 samples, ")
    # beside the results by default
    assert main(["trace", "report", str(out / "trajectory.jsonl"), "--json"]) == 0
    expected = {"report": str(out / "report.html"), "bytes": len(written), "samples": 2}
    assert json.loads(capsys.readouterr().out) == expected


def test_some_samples_of_it(results: Path, tmp_path: Path) -> None:
    first, second, third, *_ = ids_of(results)
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
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--limit", "3"]
    assert main(["run", *common, "--missing", "audio", "--output", str(tmp_path / "out"), "--no-report"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert main(["trace", "show", str(tmp_path / "out")]) == 0
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
    assert "12 samples" not in out
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
    results: Path, tmp_path: Path, refused: Omg, arguments: list[str], complaint: str
) -> None:
    places = {"results": results, "empty": tmp_path}
    assert complaint in refused("trace", *(word.format(**places) for word in arguments))


# fork and compare


@pytest.fixture(scope="module")
def one(tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one clip."""
    folder = tmp_path_factory.mktemp("whatif") / "one"
    command = ["run", "--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "test"]
    command += ["--missing", "audio", "--limit", "1", "--draws", "2", "--steps", "3", "--no-report", "--json"]
    assert main([*command, "--output", str(folder)]) == 0
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


def test_another_sentiment_from_the_files_of_a_run(one: Path, omg: Omg, tmp_path: Path) -> None:
    before = trajectory(one)
    now = before["plan"]["constraints"][-1]["value"]
    value = "strongly negative" if now != "strongly negative" else "strongly positive"
    made = omg("trace", "fork", one, "--set", f"Sentiment={value}", "--output", tmp_path / "out")
    after = trajectory(tmp_path / "out")
    assert made["trajectories"] == [after]
    assert after["plan"]["constraints"][-1]["value"] == value
    assert (after["seed"], after["hidden"]) == (before["seed"], ["audio"])
    assert len(after["denoising"]["audio"]) == len(before["denoising"]["audio"])
    with np.load(tmp_path / "out" / "reconstruction.npz") as arrays:
        assert arrays["audio_draws"].shape == (2, 5)
    (sample,) = omg("trace", "compare", one, tmp_path / "out")["samples"]
    assert sample["plan"]["changed"] == [{"field": "Sentiment", "before": now, "after": value}]
    assert sample["same_input"]
    assert sample["output"]["audio"]["from_mean"] > 0
    assert sample["output"]["audio"]["distance"] is not None
    # a fork of a fork
    omg("trace", "fork", tmp_path / "out", "--set", f"Sentiment={now}", "--output", tmp_path / "back")
    (sample,) = omg("trace", "compare", one, tmp_path / "back")["samples"]
    assert sample["plan"]["changed"] == []
    assert sample["output"]["audio"]["distance"] == 0
    assert sample["evidence"]["audio"]["moved"] == pytest.approx(0, abs=1e-9)


def test_an_entry_dropped(results: Path, omg: Omg, tmp_path: Path) -> None:
    sample = trajectory(results)
    entry = sample["evidence"]["audio"][0]
    name, out = sample["id"], tmp_path / "out"
    omg("trace", "fork", results, "--id", name, "--drop-evidence", entry["id"], "--output", out)
    (compared,) = omg("trace", "compare", results, out)["samples"]
    evidence = compared["evidence"]["audio"]
    gone = [each["id"] for each in evidence["entries"] if each["after"] is None]
    assert gone == [entry["id"]]
    assert evidence["moved"] == pytest.approx(entry["weight"], abs=1e-6)
    assert compared["plan"]["before"] == compared["plan"]["after"]
    assert compared["notes"] == [[], [f"evidence left out on request: {entry['id']}"]]


def test_the_table_and_the_page(one: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture) -> None:
    entry, page, out = trajectory(one)["evidence"]["audio"][0]["id"], tmp_path / "page.html", tmp_path / "out"
    place = ["--output", str(out), "--model", str(tiny_model_folder), "--no-report"]
    assert main(["trace", "fork", str(one), "--drop-evidence", entry, *place]) == 0
    assert "evidence left out on request" in capsys.readouterr().out
    changed = trajectory(out)
    changed["notes"].append("<img src=x onerror=alert(1)>")
    (out / "trajectory.jsonl").write_text(json.dumps(changed), "utf-8")
    assert main(["trace", "compare", str(one), str(out), "--html", str(page)]) == 0
    told = capsys.readouterr().out
    assert all(words in told for words in (": the same", "gone", "moved by"))
    written = page.read_text("utf-8")
    assert entry in written
    assert '"words":{"truth":"before","estimate":"after"}' in written
    assert "<img" not in written
    assert "&lt;img" in written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{results}", "--set", "Sentiment=positive"], "expected one sample, there are 12"),
        (["{one}", "--set", "Sentiment"], "--set: expected FIELD=VALUE"),
        (["{one}", "--set", "Sentiment=so so"], "Sentiment can't be 'so so'"),
        (["{one}", "--drop-evidence", "nobody"], "got 'nobody'"),
        (["{one}"], "expected a change"),
        (["{one}", "--pick", "99"], "pick: expected a candidate from 1 to"),
        (["nowhere", "--pick", "1"], "a folder that omg run wrote"),
    ],
)
def test_what_can_t_be_forked(
    one: Path,
    results: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    refused: Omg,
    arguments: list[str],
    told: str,
) -> None:
    run, *changes = arguments
    place = ["--output", tmp_path / "out", "--model", tiny_model_folder]
    assert told in refused("trace", "fork", run.format(one=one, results=results), *changes, *place)
    assert not (tmp_path / "out").exists()


def test_a_candidate_is_picked_by_its_place_in_the_table(
    one: Path, tiny_model_folder: Path, tmp_path: Path, omg: Omg
) -> None:
    plan = Plan.model_validate(trajectory(one)["plan"])
    ranked = plan.ranked()
    assert ranked[0] == plan.chosen
    texts = [plan.candidates[index].text for index in ranked]
    assert len(set(texts)) == len(texts) == len(plan.candidates)
    place = len(texts)
    omg("trace", "fork", one, "--pick", place, "--output", tmp_path, "--model", tiny_model_folder)
    assert trajectory(tmp_path)["plan"]["text"] == texts[-1]


def test_runs_on_other_samples_aren_t_compared(one: Path, tmp_path: Path, capsys: Capture) -> None:
    changed = trajectory(one) | {"id": "another"}
    (tmp_path / "trajectory.jsonl").write_text(json.dumps(changed), "utf-8")
    assert main(["trace", "compare", str(one), str(tmp_path)]) == 2
    assert "they share none" in capsys.readouterr().err
