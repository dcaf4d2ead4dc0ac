"""reconstruct(): one sample, one result, whoever comes along."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.api import prepare, reconstruct
from omg_graph.codecs.codec import VectorCodec
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.data.reader import read_data_file
from omg_graph.errors import DataError
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.record.view import pooled_errors
from omg_graph.state import Settings

FOLDERS = {
    "tiny_model_folder": "tiny_data_file",
    "tiny_views_folder": "tiny_views_file",
    "tiny_plain_folder": "tiny_plain_file",
}


@pytest.fixture(scope="module", params=FOLDERS)
def case(request: pytest.FixtureRequest) -> tuple[Model, Path]:
    """A model and the data that it was trained on."""
    return load_model(request.getfixturevalue(request.param)), request.getfixturevalue(FOLDERS[request.param])


@pytest.fixture(scope="module")
def model(case: tuple[Model, Path]) -> Model:
    return case[0]


@pytest.fixture(scope="module")
def data(case: tuple[Model, Path]) -> Path:
    return case[1]


@pytest.fixture(scope="module")
def clips(tiny_model_folder: Path) -> Model:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def split(data: Path, model: Model) -> Split:
    splits = read_data_file(data, specs=model.config.modalities).splits
    whole = splits["valid"]
    # rows that miss different things, none of them everything
    mask = np.random.default_rng(0).random(whole.mask().shape) < 0.4
    mask[np.arange(len(whole)), np.argmax(whole.mask(), axis=1)] = False
    return whole.hide(mask)


def values(store: MemoryArtifactStore, trajectory: Trajectory) -> dict[str, np.ndarray]:
    return {name: store.get(ref) for name, ref in trajectory.reconstruction.items()}


def same(one: Trajectory, other: Trajectory, stores: tuple[MemoryArtifactStore, MemoryArtifactStore]) -> None:
    assert one.id == other.id
    assert (one.observed, one.missing) == (other.observed, other.missing)
    assert one.plan is not None
    assert other.plan is not None
    assert one.plan.text == other.plan.text
    assert [c.text for c in one.plan.candidates] == [c.text for c in other.plan.candidates]
    for candidate, twin in zip(one.plan.candidates, other.plan.candidates, strict=True):
        assert candidate.score == pytest.approx(twin.score, rel=1e-4, abs=1e-4)
    for name, entries in one.evidence.items():
        twins = other.evidence[name]
        assert [entry.id for entry in entries] == [twin.id for twin in twins]
        np.testing.assert_allclose(
            [e.weight for e in entries], [t.weight for t in twins], rtol=1e-4, atol=1e-4
        )
    mine, theirs = values(stores[0], one), values(stores[1], other)
    assert set(mine) == set(theirs) == set(one.missing)
    for name, array in mine.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-4)
    for key, ref in one.arrays.items():
        np.testing.assert_allclose(stores[0].get(ref), stores[1].get(other.arrays[key]), rtol=1e-4, atol=1e-4)
    if one.prediction is None or other.prediction is None:
        assert one.prediction is other.prediction is None
        return
    assert one.prediction.label == other.prediction.label
    if one.prediction.value is None:  # of classes
        assert other.prediction.value is None
    else:
        assert one.prediction.value == pytest.approx(other.prediction.value, rel=1e-4, abs=1e-4)
    assert one.prediction.probabilities == pytest.approx(other.prediction.probabilities, rel=1e-4, abs=1e-4)


SETTINGS = Settings(draws=2, seed=5)
CLIP: dict[str, Any] = {"split": "test", "missing": ["vision"], "limit": 1}


def test_a_sample_s_result_is_its_own(model: Model, split: Split) -> None:
    """Alone, in a batch, in another order or first of a few: (seed, id, modality, draw) decide."""
    whole = MemoryArtifactStore()
    together = reconstruct(model, split, settings=SETTINGS, artifacts=whole)
    assert [trajectory.id for trajectory in together] == list(split.ids)
    for trajectory, mask in zip(together, split.mask(), strict=True):
        assert trajectory.observed == tuple(
            name for name, seen in zip(split.names, mask, strict=True) if seen
        )
        gone = set(split.names) - set(trajectory.observed)
        assert set(trajectory.missing) == gone
        assert set(trajectory.reconstruction) == set(trajectory.evidence) == set(trajectory.denoising) == gone
        for name, array in values(whole, trajectory).items():
            assert array.shape == model.latent_space.codecs[name].spec.shape
            assert np.isfinite(array).all()
    backwards = split.take(np.arange(len(split))[::-1])
    store = MemoryArtifactStore()
    turned = reconstruct(model, backwards, settings=SETTINGS, artifacts=store)
    for one, other in zip(together, reversed(turned), strict=True):
        same(one, other, (whole, store))
    store = MemoryArtifactStore()
    few = reconstruct(model, split, limit=3, settings=SETTINGS, artifacts=store)
    assert len(few) == 3
    for one, other in zip(few, together, strict=False):
        same(one, other, (store, whole))
    for row in (0, len(split) - 1):
        store = MemoryArtifactStore()
        (alone,) = reconstruct(model, split.take([row]), settings=SETTINGS, artifacts=store)
        same(alone, together[row], (store, whole))


def test_evidence_adds_up_and_leaves_out_one_s_own(clips: Model, tiny_data_file: Path) -> None:
    """Training clips are in the knowledge base: neither they nor clips of their speaker are evidence."""
    for trajectory in reconstruct(clips, tiny_data_file, split="train", missing=["audio"], limit=8):
        entries = trajectory.evidence["audio"]
        assert len(entries) == clips.config.retrieval.top_k
        assert sum(entry.weight for entry in entries) == pytest.approx(1.0, abs=1e-5)
        assert not any(entry.id.split("$_$")[0] == trajectory.group for entry in entries)
        assert trajectory.left_out["audio"] == 4
        assert all(entry.source == "clips.pkl · train" for entry in entries)


def test_own_group_on_request_but_never_oneself(clips: Model, tiny_data_file: Path) -> None:
    many = Settings(allow_own_group=True, top_k=40)
    (trajectory,) = reconstruct(
        clips, tiny_data_file, split="train", missing=["audio"], limit=1, settings=many
    )
    ids = [entry.id for entry in trajectory.evidence["audio"]]
    assert trajectory.id not in ids
    assert trajectory.left_out["audio"] == 1


def test_every_way_of_giving_samples(clips: Model, tiny_data_file: Path, tmp_path: Path) -> None:
    split = (
        read_data_file(tiny_data_file).splits["test"].hide(np.tile(np.array([False, True, False]), (12, 1)))
    )
    assert split.raw_text is not None
    rows = [
        {
            "id": split.ids[row],
            "raw_text": split.raw_text[row],
            "audio": None,
            "text": split.arrays["text"][row],
            "vision": split.arrays["vision"][row].tolist(),
        }
        for row in range(2)
    ]
    (tmp_path / "one.pkl").write_bytes(pickle.dumps(rows[0]))
    store = MemoryArtifactStore()
    first, second = reconstruct(clips, split, limit=2, artifacts=store)
    for source, expected in (
        (rows[0], [first]),
        (rows, [first, second]),
        (tmp_path / "one.pkl", [first]),
        (str(tmp_path / "one.pkl"), [first]),
    ):
        came = reconstruct(clips, source, artifacts=store)
        assert len(came) == len(expected)
        for one, other in zip(came, expected, strict=True):
            same(one, other, (store, store))


@pytest.mark.parametrize("fixture", list(FOLDERS))
def test_labels_are_never_seen(fixture: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model = load_model(request.getfixturevalue(fixture))
    source = pickle.loads(request.getfixturevalue(FOLDERS[fixture]).read_bytes())["valid"]  # our own file
    rows = len(source["id"])
    bare = {key: value for key, value in source.items() if "label" not in key}
    store = MemoryArtifactStore()
    results = []
    for labels in (
        {},
        {"regression_labels": np.arange(rows) - 2.0},
        {"classification_labels": ["zzz"] * rows},
    ):
        (tmp_path / "data.pkl").write_bytes(pickle.dumps({"valid": bare | labels}))
        results.append(
            reconstruct(model, tmp_path / "data.pkl", missing=[model.names[0]], limit=4, artifacts=store)
        )
    for other in results[1:]:
        assert [untimed(t) for t in other] == [untimed(t) for t in results[0]]


def untimed(trajectory: Trajectory) -> Trajectory:
    return trajectory.model_copy(update={"timings": {}})


def test_nothing_missing(clips: Model, tiny_data_file: Path) -> None:
    (trajectory,) = reconstruct(clips, tiny_data_file, split="test", limit=1)
    assert trajectory.missing == ()
    assert not trajectory.reconstruction
    assert not trajectory.denoising
    assert not trajectory.evidence
    assert trajectory.prediction is not None
    assert trajectory.prediction.value is not None
    assert trajectory.plan is not None
    assert any("nothing was reconstructed" in note for note in trajectory.notes)


def test_everything_missing(clips: Model) -> None:
    with pytest.raises(DataError):
        reconstruct(clips, {"id": "a", "text": None, "audio": None, "vision": None})
    with pytest.raises(DataError, match="nothing"):
        reconstruct(clips, {"id": "a", "text": np.ones(12)}, missing=["text"])
    with pytest.raises(DataError, match="nothing"):
        reconstruct(clips, [{"text": np.ones(12)}, {"text": np.zeros(12)}], missing=["text"])


def test_some_rows_with_nothing_are_told_and_done(clips: Model) -> None:
    samples = [
        {"id": "full", "text": np.ones(12), "audio": None},
        {"id": "none", "text": None, "audio": None},
    ]
    full, none = reconstruct(clips, samples)
    assert set(none.reconstruction) == {"text", "audio", "vision"}
    assert any("nothing observed" in note for note in none.notes)
    (alone,) = reconstruct(clips, samples[0])
    assert full.reconstruction["audio"].preview == pytest.approx(
        alone.reconstruction["audio"].preview, rel=1e-4
    )
    # as when --missing takes the last thing that a row has
    hidden = [{"id": "both", "text": np.ones(12), "audio": np.ones(5)}, {"id": "one", "text": np.ones(12)}]
    both, one = reconstruct(clips, hidden, missing=["text"])
    assert both.observed == ("audio",)
    assert one.observed == ()


def test_an_unknown_modality_is_refused(clips: Model, tiny_data_file: Path) -> None:
    with pytest.raises(DataError, match=r"text, audio, vision.*'video'"):
        reconstruct(clips, tiny_data_file, missing=["video"])


def test_a_transcript_is_hidden_with_its_text(clips: Model, tiny_data_file: Path) -> None:
    (trajectory,) = reconstruct(clips, tiny_data_file, split="test", missing=["text"], limit=1)
    assert trajectory.raw_text is None


def test_a_lost_number_takes_the_training_mean_whoever_comes_along(
    clips: Model, tiny_data_file: Path
) -> None:
    """The mean of the rows beside it would give one sample several results."""
    content = pickle.loads(tiny_data_file.read_bytes())["test"]  # our own file
    content["audio"][0, 1] = np.nan
    alone = {name: value[:1] for name, value in content.items() if name != "observed"}
    many, one = (prepare(clips, given, fill_nonfinite="mean").observed for given in (content, alone))
    filled = clips.latent_space.feature_means["audio"].reshape(-1)[1]
    assert many.arrays["audio"].reshape(len(many), -1)[0, 1] == pytest.approx(filled)
    np.testing.assert_array_equal(many.arrays["audio"][:1], one.arrays["audio"])


def test_what_never_varied_in_training_has_no_error(clips: Model, tiny_data_file: Path) -> None:
    """An error of 0 would say that it was reconstructed perfectly."""
    codec = clips.latent_space.codecs["audio"]
    assert isinstance(codec, VectorCodec)
    constant = replace(codec, varies=np.zeros_like(codec.varies))
    codecs = clips.latent_space.codecs | {"audio": constant}
    model = replace(clips, latent_space=LatentSpace(codecs))
    found = reconstruct(model, tiny_data_file, split="test", missing=["audio", "vision"])
    assert all(set(trajectory.errors) == {"vision"} for trajectory in found)
    assert set(pooled_errors(found)) == {"vision"}


def test_draws_and_paths(clips: Model, tiny_data_file: Path) -> None:
    store = MemoryArtifactStore()
    settings = Settings(draws=3, steps=4)

    def one_by(settings: Settings) -> Trajectory:
        (made,) = reconstruct(clips, tiny_data_file, settings=settings, artifacts=store, **CLIP)
        return made

    one = one_by(settings)
    drawn = store.get(one.arrays["draws/vision"])
    assert drawn.shape == (3, 4)
    assert len(np.unique(drawn.round(6), axis=0)) == 3
    assert [step.step for step in one.denoising["vision"]] == [1, 2, 3, 4]
    paths = [store.get(ref) for key, ref in one.arrays.items() if "path" in key]
    assert any(path.shape[0] == 5 for path in paths)
    bare = one_by(settings.model_copy(update={"keep_path": False}))
    assert not any("path" in key for key in bare.arrays)
    assert bare.denoising == one.denoising
    # the point estimate is the same whatever the draws
    assert bare.reconstruction == one.reconstruction == one_by(Settings(steps=4)).reconstruction


def test_padded_sequences_get_lengths(tiny_plain_folder: Path, tiny_plain_file: Path) -> None:
    model, store = load_model(tiny_plain_folder), MemoryArtifactStore()
    assert model.config.median_lengths.keys() == {"a.b"}
    (one, *_) = reconstruct(model, tiny_plain_file, split="test", missing=["a.b"], artifacts=store)
    length = model.config.median_lengths["a.b"]
    assert one.lengths == {"a.b": length}
    assert one.length_source == {"a.b": "training median"}
    made = store.get(one.reconstruction["a.b"])
    assert made.shape == (5, 2)
    assert not made[length:].any()
    assert made[:length].any()
