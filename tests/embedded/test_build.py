"""``python -m omg_graph.embedded.build`` in a small world: the same recipe, the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from omg_graph.data.reader import read_data_file
from omg_graph.embedded import build, recipe
from omg_graph.errors import ConfigError
from omg_graph.model.folder import load_model, read_manifest


@pytest.fixture
def small(tmp_path: Path, tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "simulator": {
            "entities": ["story", "music"],
            "actions": ["praises", "criticises"],
            "audio_features": 5,
            "vision_features": 4,
        },
        "clips_seed": 3,
        "clips": 3,
        "speakers": {"train": 8, "valid": 3},
        "source": "little corpus",
        "sample": {"speaker": 20, "clip": 1, "missing": ["audio"]},
        "seed": 5,
        "threads": 1,
        "training": tiny_settings
        | {"retriever": tiny_settings["retriever"] | {"entries": 10}, "task": {"epochs": 2}},
    }


def _written(content: dict[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_the_same_recipe_gives_the_same_model_and_sample(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MEASURED_SPEAKERS", 2)
    path = _written(small, tmp_path)
    for turn in ("one", "two"):
        folder = tmp_path / turn
        command = [
            "--recipe",
            str(path),
            "--output",
            str(folder / "model"),
            "--sample",
            str(folder / "s.pkl"),
        ]
        assert build.main(command) == 0
    one, two = (read_manifest(tmp_path / turn / "model") for turn in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    assert one.data == two.data
    assert (tmp_path / "one" / "s.pkl").read_bytes() == (tmp_path / "two" / "s.pkl").read_bytes()

    model = load_model(tmp_path / "one" / "model")
    assert model.config.synthetic
    assert model.config.feature_names["audio"][0].islower()
    assert len(model.config.feature_names["vision"]) == 4
    assert len(model.knowledge_base.ids) == 10
    assert set(model.knowledge_base.sources) == {"synthetic little corpus · train"}
    (sample,) = read_data_file(tmp_path / "one" / "s.pkl").splits.values()
    assert sample.ids == ("synthetic-0020$_$1",)
    assert sample.names == ("text", "vision")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": {"speaker": 10, "clip": 0, "missing": ["audio"]}}, "in no split, which have 0 to 10"),
        ({"simulator": {"warmth": 1}}, "simulator.warmth"),
        ({"clips": 0}, "clips: .* greater than or equal to 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    small: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.load_recipe(_written(small | change, tmp_path))


def test_a_recipe_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--recipe", str(tmp_path / "none.yaml")]) == 2
    assert "run this in a checkout of the repository" in capsys.readouterr().err
