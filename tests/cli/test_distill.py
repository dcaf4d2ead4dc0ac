"""``omg distill`` and ``omg train --plans``: as a user runs them, with a chat model over HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.cli import main
from omg_graph.cli.train import PAGE, REPORT
from omg_graph.model.folder import load_model
from omg_graph.planner import calling
from omg_graph.planner.prompting import load_prompt
from omg_graph.training.teaching import PLANS, TRAINING_PLANS

SECRET = "sk-secret"
Capture = pytest.CaptureFixture[str]
Distil = Callable[..., tuple[int, str, str]]
CHAT = ("--teacher", "chat", "--planner-model", "openai:tiny")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chat_server: Any) -> None:
    monkeypatch.setattr(calling, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)


@pytest.fixture
def distil(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture) -> Distil:
    """``omg distill`` of the tiny model; its code, and what it said."""

    def go(*arguments: str) -> tuple[int, str, str]:
        source = ["--data", str(tiny_data_file), "--model", str(tiny_model_folder)]
        code = main(["distill", *source, "--output", str(tmp_path / "taught"), *arguments])
        out, err = capsys.readouterr()
        assert SECRET not in out + err
        assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        return code, out, err

    return go


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else: measuring a planner takes a few seconds."""
    monkeypatch.setattr("omg_graph.cli.distill.report_planner", lambda *_, **__: None)


@pytest.fixture
def by_transcript(tiny_model_folder: Path) -> Callable[[dict[str, Any], int], str]:
    """A provider's answer that depends on the transcript alone, so that a mixed-up order would show."""
    schema = load_model(tiny_model_folder).schema

    def reply(body: dict[str, Any], _: int) -> str:
        transcript = json.loads(body["messages"][-1]["content"])["transcript"]
        word = "story" if "story" in transcript else "music"
        return json.dumps(
            {
                field.name: (word if field.name == "Entity" else (field.values or ())[0])
                for field in schema.fields
            }
        )

    return reply


def test_a_chat_model_teaches(
    distil: Distil,
    chat_server: Any,
    by_transcript: Callable[[dict[str, Any], int], str],
    tiny_data_file: Path,
    tmp_path: Path,
) -> None:
    chat_server.reply = by_transcript
    code, out, err = distil(*CHAT)
    assert code == 0, err
    assert "plans by chat openai:tiny" in out
    assert "psi, the executor and the knowledge base's texts stay as they were trained" in err
    plans = [json.loads(line) for line in (tmp_path / "taught" / PLANS).read_text("utf-8").splitlines()]
    assert [plan["split"] for plan in plans] == ["train"] * 48 + ["valid"] * 16
    assert {plan["prompt_sha256"] for plan in plans} == {load_prompt().sha256}
    from omg_graph.data.reader import read_data_file

    data = read_data_file(tiny_data_file)
    texts = [text or "" for name in ("train", "valid") for text in data.splits[name].raw_text or ()]
    assert [plan["constraints"]["Entity"] for plan in plans] == [
        "story" if "story" in text else "music" for text in texts
    ]
    assert len(chat_server.requests) <= 64
    report = json.loads((tmp_path / "taught" / REPORT).read_text("utf-8"))
    assert report["valid"] == 1.0
    assert report["teacher"]["name"] == "chat openai:tiny"
    assert report["teacher"]["validation rows compared"] == 16
    assert "Teacher: name chat openai:tiny" in (tmp_path / "taught" / PAGE).read_text("utf-8")
    # nothing that the labels say was sent
    assert {frozenset(json.loads(body["messages"][-1]["content"])) for body in chat_server.requests} == {
        frozenset({"observed", "missing", "transcript"})
    }


@pytest.mark.usefixtures("unmeasured")
def test_nothing_is_paid_for_twice(
    distil: Distil, chat_server: Any, by_transcript: Callable[[dict[str, Any], int], str], tmp_path: Path
) -> None:
    chat_server.reply = by_transcript
    code, _, err = distil(*CHAT, "--max-planner-calls", "20")
    assert code == 2
    assert "the bound of 20 calls is used up" in err
    assert len(chat_server.requests) == 20
    kept = (tmp_path / "taught.distilling" / PLANS).read_text("utf-8").splitlines()
    assert len(kept) >= 16
    for other in (("--planner-language", "zh"), ("--planner-model", "openai:other")):
        code, _, err = distil(*CHAT, *other)
        assert code == 2
        assert err.count("\n") == 1
        assert "begun with another" in err
        assert "--restart" in err
    code, out, err = distil(*CHAT, "--json")
    assert code == 0, err
    facts = json.loads(out)["distillation"]
    assert facts["written_now"] == 64 - len(kept)
    asked = [body["messages"][-1]["content"] for body in chat_server.requests]
    assert facts["calls"] == len(asked) - 20
    # samples that look alike to the model are one request, and so is what was asked before the cut
    assert len(asked) == len(set(asked))
    code, _, err = distil(*CHAT, "--overwrite")
    assert code == 0, err
    assert len(chat_server.requests) == len(asked)
    # without the cache of answers, plans that were written are kept all the same
    code, _, _ = distil(*CHAT, "--overwrite", "--no-planner-cache", "--max-planner-calls", "20")
    assert code == 2
    kept = (tmp_path / "taught.distilling" / PLANS).read_text("utf-8").splitlines()
    code, out, _ = distil(*CHAT, "--overwrite", "--no-planner-cache", "--json")
    assert json.loads(out)["distillation"]["written_now"] == 64 - len(kept) <= 48


@pytest.mark.usefixtures("unmeasured")
def test_a_sample_that_is_declined(
    distil: Distil, chat_server: Any, by_transcript: Callable[[dict[str, Any], int], str], tmp_path: Path
) -> None:
    first: list[str] = []

    def reply(body: dict[str, Any], number: int) -> Any:
        content = body["messages"][-1]["content"]
        first.append(content)
        if content == first[0]:
            return {"content": "", "refusal": "no"}
        return by_transcript(body, number)

    chat_server.reply = reply
    code, _, err = distil(*CHAT)
    assert code == 2
    assert "it declined to answer: use another model, or --on-invalid-plan lexical or skip" in err
    code, out, err = distil(*CHAT, "--on-invalid-plan", "lexical")
    assert code == 0, err
    assert "the lexical annotator wrote theirs" in " ".join(out.split())
    plans = [json.loads(line) for line in (tmp_path / "taught" / PLANS).read_text("utf-8").splitlines()]
    (one,) = {plan["reason"] for plan in plans if plan["teacher"] == "lexical (fallback)"}
    assert one == "chat openai:tiny gave no valid plan: it declined to answer"


@pytest.mark.usefixtures("unmeasured")
def test_train_on_the_plans_that_distill_wrote(
    distil: Distil, tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    code, _, err = distil("--teacher", "lexical")
    assert code == 0, err
    import yaml

    plans, config = tmp_path / "taught" / PLANS, tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump({"base": "default"} | tiny_settings), "utf-8")
    output = tmp_path / "trained"
    command = ["train", "--data", str(tiny_data_file), "--output", str(output), "--config", str(config)]
    assert main([*command, "--plans", str(plans)]) == 0
    assert "written by lexical for 48 of 48 training rows" in " ".join(capsys.readouterr().err.split())
    model = load_model(output)
    assert model.manifest.training["plans"]["file"] == PLANS
    # beside the model and no part of it, since there are times in it
    assert (output / PAGE).is_file()
    assert {PAGE, REPORT}.isdisjoint(model.manifest.files)
    assert (output / TRAINING_PLANS).read_bytes() == plans.read_bytes()
    # a finished run knows its plans
    assert main([*command, "--plans", str(plans), "--resume"]) == 0
    assert "finished already" in capsys.readouterr().err
    plans.write_text(plans.read_text("utf-8").replace('"split"', '"split" '), "utf-8")
    assert main([*command, "--plans", str(plans), "--resume"]) == 2
    assert "holds a model already" in capsys.readouterr().err


def test_no_word_of_a_model_that_is_not_there(
    tmp_path: Path, tiny_data_file: Path, refused: Callable[..., str]
) -> None:
    command = ("distill", "--teacher", "lexical", "--data")
    assert "no such file" in refused(*command, tmp_path / "none.pkl")
    assert "the embedded default isn't written to" in refused(*command, tiny_data_file)
    assert "isn't a model" in refused(*command, tiny_data_file, "--model", tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
