"""Chinese data, schema and prompt from end to end: a chat model's plans, a model trained on them, a run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.planner.prompting import load_prompt
from omg_graph.planner.schemas import load_schema

PLANS = [("作品", "称赞", "积极"), ("服务", "抱怨", "略微消极")]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chat_server: Any) -> None:
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """CH-SIMS's layout: Chinese transcripts, a sentiment in [-1, 1]."""
    random = np.random.default_rng(0)

    def part(name: str, rows: int) -> dict[str, Any]:
        label = random.uniform(-1, 1, rows).round(1)
        features = {
            modality: label[:, None] + random.normal(size=(rows, 3)) for modality in ("text", "audio")
        }
        texts = ["这部电影真好看" if value > 0 else "等了两个小时才送到" for value in label]
        ids = [f"{name}{row // 4}$_${row}" for row in range(rows)]
        return {"id": ids, "raw_text": texts, "regression_labels": label, **features}

    path = tmp_path / "sims.pkl"
    path.write_bytes(pickle.dumps({"train": part("a", 32), "valid": part("b", 8)}))
    return path


def test_plans_in_chinese_from_teacher_to_run(
    data: Path,
    tmp_path: Path,
    chat_server: Any,
    train_tiny: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    schema = load_schema("affect_zh")

    def reply(request: dict[str, Any], _: int) -> str:
        said = json.loads(request["messages"][-1]["content"])["transcript"]
        return json.dumps(dict(zip(schema.field_names, PLANS["电影" not in said], strict=True)))

    chat_server.reply = reply
    teacher = ("--teacher", "chat", "--planner-model", "openai:tiny", "--planner-language", "zh")
    plans = tmp_path / "plans.jsonl"
    first = train_tiny(data, "chinese-labels")
    source = ("--data", str(data), "--model", str(first), "--plans-only", str(plans))
    assert main(["distill", *source, "--schema", "affect_zh", *teacher]) == 0, capsys.readouterr()
    system = chat_server.requests[0]["messages"][0]["content"]
    assert "如何作答" in system
    assert all(value in system for field in schema.fields for value in field.values or ())
    assert "Fill in" not in system
    folder = train_tiny(data, "chinese", schema_file="affect_zh", plans=str(plans))
    output = tmp_path / "out"
    common = ("run", "--input", str(data), "--split", "valid", "--model", str(folder), "--missing", "audio")
    assert main([*common, "--limit", "2", "--output", str(output)]) == 0
    assert main([*common, "--output", str(output), "--planner", "chat", *teacher[2:]]) == 0
    for line in (output / "trajectory.jsonl").read_text("utf-8").splitlines():
        plan = json.loads(line)["plan"]
        assert plan["text"] in {schema.text(values) for values in PLANS}
        assert plan["prompt_sha256"] == load_prompt("zh").sha256


def test_a_schema_that_makes_no_sense_is_refused_with_its_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(
        'name: x\nfields:\n  - name: Feeling\n    values: [好, 好]\ntext_form: "{Feeling}"\n', "utf-8"
    )
    code = main(["train", "--data", str(data), "--output", str(tmp_path / "m"), "--schema", str(path)])
    assert code == 2
    assert "schema.yaml, line 4: field 'Feeling' has the value '好' twice" in capsys.readouterr().err
