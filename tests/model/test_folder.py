"""A model's folder: what is saved is what is loaded, and nothing but a whole model loads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph import pipeline
from omg_graph.data.reader import read_data_file
from omg_graph.errors import DeviceError, KnowledgeBaseError, ModelError
from omg_graph.model.config import ModelConfig
from omg_graph.model.folder import load_model, read_manifest, save_model
from omg_graph.model.model import Model, choose_device, components_fingerprint


@pytest.fixture
def copied(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


@pytest.fixture
def rewritten(copied: Path, model: Model) -> Callable[..., Path]:
    """The model with other words in its manifest, sealed anew as whoever wrote them would have."""

    def change(**changes: Any) -> Path:
        content = model.manifest.model_dump(mode="json", exclude={"checksum"}) | changes
        sealed = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        content["checksum"] = sealed
        (copied / "manifest.json").write_text(json.dumps(content), encoding="utf-8")
        return copied

    return change


@pytest.mark.parametrize("fixture", ["tiny_model_folder", "tiny_views_folder", "tiny_plain_folder"])
def test_saved_again_it_is_the_same(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder = request.getfixturevalue(fixture)
    manifest = save_model(load_model(folder), tmp_path / "again")
    assert manifest.files == read_manifest(folder).files
    assert (manifest.fingerprint, manifest.components) == (
        read_manifest(folder).fingerprint,
        read_manifest(folder).components,
    )


def test_a_folder_may_be_moved(model: Model, copied: Path, tiny_data_file: Path) -> None:
    split = read_data_file(tiny_data_file).splits["test"].take([0])
    here, there = (pipeline.observe(each, split).embedding for each in (model, load_model(copied)))
    np.testing.assert_array_equal(here, there)
    files = [path for path in copied.rglob("*") if path.is_file()]
    assert not any(str(copied.parent).encode() in path.read_bytes() for path in files)


def test_the_fingerprint_leaves_out_when_and_where(rewritten: Callable[..., Path], model: Model) -> None:
    changed = load_model(rewritten(machine={"system": "another"}, training={"seconds": {"executor": 1e6}}))
    assert changed.manifest.fingerprint == model.manifest.fingerprint


def test_components_are_what_entries_are_made_with(model: Model) -> None:
    def digest(text_encoder: str) -> str:
        return components_fingerprint(model.latent_space, model.encoder, text_encoder)

    assert digest(model.config.text_encoder) == model.manifest.components
    assert digest("another") != model.manifest.components


def test_manifests_that_are_refused(rewritten: Callable[..., Path], model: Model) -> None:
    files = model.manifest.files
    for changes, culprit in (
        ({"format_version": 99}, "version 99"),
        ({"surprise": 1}, "can't be read"),
        ({"files": files | {"../outside.json": "0" * 64}}, "outside"),
        (
            {"files": {name: digest for name, digest in files.items() if name != "codecs.safetensors"}},
            "codecs",
        ),
    ):
        with pytest.raises(ModelError) as caught:
            load_model(rewritten(**changes))
        assert culprit in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_manifest_that_is_no_json(copied: Path) -> None:
    (copied / "manifest.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ModelError, match="can't be read"):
        load_model(copied)


def test_files_that_fit_their_hashes_but_not_each_other(
    copied: Path, tiny_views_folder: Path, rewritten: Callable[..., Path], model: Model
) -> None:
    """Someone's own doing, not damage: still one line."""
    shutil.copy(tiny_views_folder / "codecs.safetensors", copied)
    files = model.manifest.files | {
        "codecs.safetensors": read_manifest(tiny_views_folder).files["codecs.safetensors"]
    }
    with pytest.raises(ModelError, match="can't be loaded"):
        load_model(rewritten(files=files))


def test_a_model_of_0_1_0_has_its_ablations_switched_off(model: Model) -> None:
    today = model.config.model_dump(mode="json")
    old = today | {
        "planning": today["planning"] | {"condition": "plan"},
        "retrieval": today["retrieval"]
        | {"query_plan": "plan", "aggregation": "attention", "source": "entries"},
        "executor": today["executor"] | {"joint_layers": [], "observation": True},
    }
    assert ModelConfig.model_validate(old) == model.config
    old["retrieval"]["source"] = "none"
    with pytest.raises(ModelError, match=r"retrieval.source: none\): train it again with omg ablate"):
        ModelConfig.model_validate(old)


def test_entries_of_another_model(model: Model, tiny_views_folder: Path) -> None:
    with pytest.raises(KnowledgeBaseError):
        model.with_knowledge_base(load_model(tiny_views_folder).knowledge_base)
    assert model.with_knowledge_base(model.knowledge_base).knowledge_base is model.knowledge_base


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    for name in ("cuda", "mps", ""):
        with pytest.raises(DeviceError, match="cpu"):
            choose_device(name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
