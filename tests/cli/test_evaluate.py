"""``omg evaluate`` and ``omg compare``: what they print, and what they refuse in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.cli import main
from omg_graph.model.folder import load_model

Capture = pytest.CaptureFixture[str]
Evaluate = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evaluate(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture) -> Evaluate:
    """``omg evaluate`` on the clips, into a folder of the test's own."""

    def go(*arguments: str, output: str = "out") -> tuple[int, str, str]:
        fixed = ["--model", str(tiny_model_folder), "--data", str(tiny_data_file)]
        code = main(["evaluate", *fixed, "--output", str(tmp_path / output), *arguments])
        return code, *capsys.readouterr()

    return go


def test_tables_and_the_family_are_printed(evaluate: Evaluate, tmp_path: Path) -> None:
    code, out, err = evaluate("--patterns", "text,text+audio", "--draws", "0")
    assert code == 0, err
    for shown in ("text+audio", "mean fill + ridge", "10 nearest neighbours", "anchor", "ACC2", "NMSE"):
        assert shown in out
    assert "metrics: mosi" in out
    assert "rough" in out
    assert "knowledge base" in err
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "metrics.json",
        "predictions.jsonl",
        "table.md",
        "masks",
    }


def test_another_planner(
    evaluate: Evaluate, tiny_model_folder: Path, chat_server: Any, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    fields = load_model(tiny_model_folder).schema.fields
    chat_server.reply = lambda *_: json.dumps({field.name: (field.values or ())[0] for field in fields})
    for name, value in {"OPENAI_API_KEY": "sk-secret", "OPENAI_BASE_URL": chat_server.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "cache"))
    short = ("--patterns", "text,audio", "--limit", "3", "--draws", "0", "--floors", "none", "--json")
    code, out, err = evaluate(*short, "--planner", "chat", "--planner-model", "openai:tiny")
    assert code == 0, err
    chat, asked = json.loads(out), len(chat_server.requests)
    assert chat["model"]["models"][0]["planner"] == "chat openai:tiny"
    assert asked > 0
    code, out, _ = evaluate(*short, output="own")
    own = json.loads(out)
    assert (code, own["model"]["models"][0]["planner"]) == (0, "distilled")
    assert len(chat_server.requests) == asked
    assert chat["rows"] != own["rows"]
    code, _, err = evaluate(*short, "--planner-model", "openai:tiny", output="neither")
    assert code == 2
    assert "takes no --planner-model" in err


def test_json_is_the_document(evaluate: Evaluate, tmp_path: Path) -> None:
    code, out, err = evaluate(
        *("--protocol", "imbalanced", "--missing-rate", "audio=0.5,vision=0.25", "--seeds", "2"),
        *("--draws", "0", "--floors", "none", "--json"),
    )
    assert code == 0, err
    document = json.loads(out)
    assert document == json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [row["mask_seed"] for row in document["rows"]] == [0, 1]
    assert document["rows"][0]["rate"] == {"text": 0.0, "audio": 0.5, "vision": 0.25}
    assert document["floors"] == []


def test_the_paper_beside(evaluate: Evaluate, tmp_path: Path) -> None:
    code, out, err = evaluate("--draws", "0", "--beside-paper", "mosi")
    assert code == 0, err
    assert "beside the paper's Table 1, CMU-MOSI" in out
    for shown in ("paper: Ours", "paper: best of the others", "89.2", "86.7"):
        assert shown in out
    assert "text 12, vision 4, audio 5: not the same" in out
    assert "12 of 'test'" in out
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    by_paper = {entry["paper_condition"]: entry for entry in document["paper"]["conditions"]}
    assert set(by_paper) == {"A", "V", "L", "VA", "LA", "LV", "LVA"}
    floors = {row["method"] for row in document["floors"]}
    for row in document["rows"]:
        (entry,) = (e for e in by_paper.values() if e["condition"] == row["condition"])
        letters = {"text": "L", "vision": "V", "audio": "A"}
        assert set(entry["paper_condition"]) == {letters[name] for name in row["observed"]}
        assert entry["here"]["omg"]["acc2"] == pytest.approx(100 * row["acc2"])
        assert set(entry["here"]) == {"omg"} | floors
        assert len(entry["paper"]) == 16
    page = (tmp_path / "out" / "table.md").read_text()
    assert "## Beside the paper: Table 1, CMU-MOSI" in page
    assert "| paper: DiCMoR | 60.5 | 62.2 | 84.5 † | 64.0 | 85.5 | 83.5 † | 85.7 † |" in page


def test_the_paper_beside_random_rates(evaluate: Evaluate) -> None:
    code, out, err = evaluate(
        *("--protocol", "random", "--missing-rate", "0.0,0.25,0.7", "--seeds", "2", "--draws", "0"),
        *("--floors", "none", "--beside-paper", "mosei", "--json"),
    )
    assert code == 0, err
    document = json.loads(out)
    assert [entry["paper_condition"] for entry in document["paper"]["conditions"]] == ["0.0", "0.7"]
    for entry in document["paper"]["conditions"]:
        rows = [row["acc2"] for row in document["rows"] if row["condition"] == entry["condition"]]
        assert entry["here"]["omg"]["acc2"] == pytest.approx(100 * sum(rows) / 2)


def test_the_same_command_gives_the_same_results_and_shows_no_difference(
    evaluate: Evaluate, tmp_path: Path, capsys: Capture
) -> None:
    arguments = ("--protocol", "random", "--missing-rate", "0.5", "--seeds", "1", "--draws", "0")
    for output in ("first", "second"):
        assert evaluate(*arguments, output=output)[0] == 0
    first, second = (tmp_path / name / "predictions.jsonl" for name in ("first", "second"))
    assert first.read_text() == second.read_text()
    assert main(["compare", str(tmp_path / "first"), str(tmp_path / "second")]) == 0
    shown = capsys.readouterr().out
    assert "no difference shown" in shown
    assert "better" not in shown
    assert main(["compare", str(tmp_path / "first"), "--metrics", "mae", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["first"] == "omg"
    assert "anchor" in {row["against"] for row in document["comparisons"]}
    for row in (row for floor in document["comparisons"] for row in floor["differences"]):
        assert row["metric"] == "mae"
        assert row["difference"] == pytest.approx(row["first"] - row["second"])
        assert row["low"] <= row["high"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--protocol", "none"), "--protocol"),
        (("--protocol", "file"), "--masks"),
        (("--protocol", "random", "--missing-rate", "2"), "--missing-rate"),
        (("--patterns", "text,smell"), "smell"),
        (("--metrics", "bleu"), "--metrics"),
        (("--metrics", "classes"), "--metrics"),
        (("--split", "holdout"), "--split"),
        (("--label", "nothing"), "--label"),
        (("--fill-nonfinite", "median"), "--fill-nonfinite"),
        (("--train-data", "nowhere.pkl"), "--train-data"),
        (("--protocol", "file", "--masks", "nowhere.json"), "mask file"),
        (("--beside-paper", "sims"), "mosi or mosei"),
        (("--beside-paper", "mosi", "--metrics", "number"), "family mosi"),
        (
            ("--beside-paper", "mosi", "--protocol", "imbalanced", "--missing-rate", "text=0.5"),
            "fixed or random",
        ),
        (("--beside-paper", "mosi", "--protocol", "random", "--missing-rate", "0.25"), "missing rates"),
    ],
)
def test_what_cannot_be_is_one_line(
    evaluate: Evaluate, arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    code, out, err = evaluate(*arguments)
    assert code == 2
    assert out == ""
    assert complaint in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_compare_refuses(evaluate: Evaluate, tmp_path: Path, refused: Callable[..., str]) -> None:
    fixed = ("--draws", "0", "--floors", "none", "--limit", "6")
    for output in ("text", "audio"):
        evaluate("--patterns", output, *fixed, output=output)
    text, audio = tmp_path / "text", tmp_path / "audio"
    assert "same conditions" in refused("compare", text, audio)
    assert "there are those of omg" in refused("compare", text, "--method", "svm")
    assert "two results" in refused("compare", text)
    assert "omg evaluate wrote" in refused("compare", "nowhere")
    assert "missing argument" in refused("compare").lower()
