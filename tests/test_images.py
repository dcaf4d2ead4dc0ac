"""Images end to end, several modalities of one sample missing at once, sequences with lengths beside them."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.api import reconstruct
from omg_graph.errors import DataError
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.record.artifacts import MemoryArtifactStore

SHAPES = {"photo": (2, 3, 4), "grey": (3, 3), "a.b": (5, 2)}


def rows(name: str, count: int, seed: int) -> dict[str, Any]:
    """Everything follows two hidden numbers; the pictures are a ramp each way, grey ones of whole numbers."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((count, 2))
    down, across = np.meshgrid(np.linspace(-1, 1, 3), np.linspace(-1, 1, 4), indexing="ij")
    photo = hidden[:, :, None, None] * np.stack([down, across])
    grey = 128 + 40 * (hidden[:, :1, None] * down[:, :3] + hidden[:, 1:, None] * across[:, :3])
    lengths = random.integers(2, 6, count)
    sequence = hidden[:, None] + 0.1 * random.standard_normal((count, 5, 2))
    sequence[np.arange(5)[None] >= lengths[:, None]] = 0.0
    return {
        "id": [f"{name}-{row}" for row in range(count)],
        "keys": hidden + 0.1 * random.standard_normal((count, 2)),
        "a.b": sequence,
        "a.b_lengths": lengths,
        "photo": photo + 0.05 * random.standard_normal(photo.shape),
        "grey": np.clip(grey + random.standard_normal(grey.shape), 0, 255).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    return rows("test", 6, 2)


@pytest.fixture(scope="module")
def model(train_tiny: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("images") / "images.pkl"
    path.write_bytes(pickle.dumps({"train": rows("train", 48, 0), "valid": rows("valid", 12, 1)}))
    return load_model(train_tiny(path, "images-model"))


def test_all_but_one_modality_at_once(model: Model, given: dict[str, Any]) -> None:
    """Two kinds of images and a padded sequence, told from a vector; in the input's shapes and units."""
    store = MemoryArtifactStore()
    made = reconstruct(model, given, missing=["a.b", "photo", "grey"], artifacts=store)
    error = dict.fromkeys(SHAPES, 0.0)
    spread = dict.fromkeys(SHAPES, 0.0)
    for trajectory in made:
        assert set(trajectory.errors) == set(SHAPES)
        for name, shape in SHAPES.items():
            assert store.get(trajectory.reconstruction[name]).shape == shape
            error[name] += trajectory.errors[name].squared_error
            spread[name] += trajectory.errors[name].squared_deviation
    for name in SHAPES:
        assert error[name] < 0.5 * spread[name]
    grey = np.stack([store.get(trajectory.reconstruction["grey"]) for trajectory in made])
    assert np.abs(grey - given["grey"].astype(np.float64)).mean() < 20


def test_what_is_missing_together_depends_on_what_is_observed(model: Model, given: dict[str, Any]) -> None:
    """An image alone tells the other modalities; each sample misses what it misses."""
    content = {name: list(values) for name, values in given.items()}
    for row in range(len(content["id"])):
        for place, name in enumerate(("keys", "photo", "a.b")):
            if (row + place) % 2:
                content[name][row] = None
    made = reconstruct(model, content)
    for row, trajectory in enumerate(made):
        gone = {name for place, name in enumerate(("keys", "photo", "a.b")) if (row + place) % 2}
        assert set(trajectory.missing) == set(trajectory.reconstruction) == gone
        assert set(trajectory.denoising) == gone


def test_an_image_that_is_partly_nan_is_an_error(model: Model, given: dict[str, Any]) -> None:
    photo = np.array(given["photo"])
    photo[0, 0] = np.nan
    with pytest.raises(DataError, match=r"photo.*expected finite numbers, 12 of 24"):
        reconstruct(model, given | {"photo": photo})


def test_a_learned_image_is_a_draw_of_a_few_tokens(
    train_tiny: Callable[..., Path], tiny_settings: dict[str, Any], tmp_path: Path, given: dict[str, Any]
) -> None:
    """With rows enough a convolutional VAE encodes images, in training, in the folder and in a run."""
    path = tmp_path / "learned.pkl"
    path.write_bytes(pickle.dumps({"train": rows("train", 48, 0), "valid": rows("valid", 12, 1)}))
    grid = {"rows": 40, "epochs": 3, "image_width": 6, "tokens": 2}
    settings = tiny_settings | {"autoencoder": {"grid": grid}}
    model = load_model(train_tiny(path, "learned-images", overrides=settings))
    assert model.latent_space.tokens == {"keys": 1, "a.b": 1, "photo": 2, "grey": 2}
    assert model.latent_space.codecs["grey"].estimate == "sample"
    assert not [note for note in model.manifest.notes if "encoded by PCA" in note]
    store = MemoryArtifactStore()
    made = reconstruct(model, given, missing=["grey"], artifacts=store)
    for trajectory in made:
        grey = store.get(trajectory.reconstruction["grey"])
        assert grey.shape == SHAPES["grey"]
        assert grey.min() >= 0
        assert grey.max() <= 255
        assert trajectory.errors["grey"].nmse > 0


def test_a_model_of_few_images_says_how_they_are_encoded(model: Model) -> None:
    assert [note.split(" is ")[0] for note in model.manifest.notes if "encoded by PCA" in note] == [
        "photo",
        "grey",
    ]
