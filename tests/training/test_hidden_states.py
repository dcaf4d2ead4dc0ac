"""A model whose g and psi read through a (tiny, random) Qwen2.5-Omni thinker, from training to a run."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph import pipeline
from omg_graph.api import reconstruct
from omg_graph.cli import main
from omg_graph.data.dataset import Split
from omg_graph.data.patterns import pattern_pool
from omg_graph.data.reader import read_data_file
from omg_graph.data.recordings import Recording
from omg_graph.encoders.hidden_states import HiddenStates, ThinkerRecord, ThinkerTextEncoder
from omg_graph.encoders.observation import ObservationEncoderConfig
from omg_graph.encoders.raw_parts import Content
from omg_graph.errors import ConfigError, EncoderError
from omg_graph.knowledge.entries import EntrySource, build_knowledge_base
from omg_graph.model.folder import load_model, read_manifest
from omg_graph.seeding import derived_seed, generator
from omg_graph.training.config import EncoderSettings, load_config
from omg_graph.training.observation_encoder import embed_pairs, fit_observation_encoder
from omg_graph.training.raw_states import PairStates, pair_states, states_notes
from omg_graph.training.rows import PlannedRows

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def recorded_file(tiny_data_file: Path, tiny_folder: Path) -> Path:
    """The simulated clips with sound, which every fifth lacks, and none with a picture."""
    content = pickle.loads(tiny_data_file.read_bytes())
    for fields in content.values():
        fields["raw_audio"] = [
            None if row % 5 == 4 else noise(sample) for row, sample in enumerate(fields["id"])
        ]
        fields["raw_audio_rate"] = 16_000
    path = tiny_folder / "recorded.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def noise(sample: str) -> np.ndarray:
    rng = np.random.default_rng(derived_seed("noise", sample))
    return (0.1 * rng.standard_normal(800)).astype(np.float32)


@pytest.fixture(scope="module")
def all_patterns(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    """Every pattern of every clip is read in training: nothing is left to read of a training row later."""
    return tiny_settings | {"planner": tiny_settings["planner"] | {"patterns": 7}}


@pytest.fixture(scope="module")
def reading_model(
    recorded_file: Path, all_patterns: dict[str, Any], tiny_folder: Path, tiny_thinker_folder: Path
) -> Path:
    """Trained by the command, which finds the thinker through a link."""
    config, model, link = tiny_folder / "tiny.json", tiny_folder / "reading", tiny_folder / "thinker"
    config.write_text(json.dumps(all_patterns))
    link.symlink_to(tiny_thinker_folder, target_is_directory=True)
    command = ["train", "--data", str(recorded_file), "--output", str(model), "--config", str(config)]
    encoder = ["--encoder", "qwen-omni", "--encoder-model", str(link)]
    assert main([*command, *encoder, "--no-planner-report"]) == 0
    return model


@pytest.fixture(scope="module")
def clips(recorded_file: Path) -> Split:
    return read_data_file(recorded_file).splits["test"]


def test_a_model_says_which_thinker_it_reads_through(
    reading_model: Path, tiny_thinker_folder: Path, clips: Split
) -> None:
    model, manifest = load_model(reading_model), read_manifest(reading_model)
    record = model.config.thinker
    assert record is not None
    assert record.name == str(tiny_thinker_folder)
    assert len(record.fingerprint) == 64
    assert record.width == model.config.shared_width == model.config.encoder.raw_width == 32
    notes = "\n".join(manifest.notes)
    assert "distinct observations in 448 pairs of a row and a pattern" in notes
    assert "no training row has a recording of vision: psi has the features alone" in notes
    seen = pipeline.observe(model, clips)
    np.testing.assert_allclose(np.linalg.norm(seen.embedding, axis=1), 1.0, rtol=1e-5)


def test_the_thinker_goes_where_the_model_goes(reading_model: Path) -> None:
    model = load_model(reading_model)
    assert model.hidden_states is not None
    assert model.hidden_states.device == "auto"
    on_cpu = model.to(torch.device("cpu"))
    assert on_cpu.hidden_states is not None
    assert on_cpu.hidden_states.device == "cpu"
    assert isinstance(on_cpu.text_encoder.encoder, ThinkerTextEncoder)
    assert on_cpu.text_encoder.encoder.states is on_cpu.hidden_states
    assert on_cpu.text_encoder.name == model.text_encoder.name
    assert on_cpu.to(torch.device("cpu")) is on_cpu
    assert model.hidden_states.device == "auto"
    assert model.hidden_states.on(torch.device("cuda")) is model.hidden_states


def test_what_is_said_and_heard_moves_the_embedding(reading_model: Path, clips: Split) -> None:
    model = load_model(reading_model)
    before = pipeline.observe(model, clips).embedding
    assert clips.raw_text is not None
    retold = replace(clips, raw_text=("nothing of the kind", *clips.raw_text[1:]))
    after = pipeline.observe(model, retold).embedding
    assert not np.allclose(after[0], before[0], atol=1e-5)
    np.testing.assert_allclose(after[1:], before[1:], rtol=1e-4, atol=1e-5)
    silent = replace(clips, recordings={"audio": (None,) * len(clips)})
    moved = ~np.isclose(pipeline.observe(model, silent).embedding, before, atol=1e-5).all(axis=1)
    heard = [recording is not None for recording in clips.recordings["audio"]]
    assert moved.tolist() == heard


def test_a_sample_is_embedded_alone_as_in_its_batch(reading_model: Path, clips: Split) -> None:
    model = load_model(reading_model)
    together = pipeline.observe(model, clips).embedding
    alone = np.concatenate(
        [pipeline.observe(model, clips.take([row])).embedding for row in range(len(clips))]
    )
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


def test_what_is_hidden_is_never_read(
    reading_model: Path, recorded_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Content] = []
    whole = HiddenStates.read

    def listened(self: HiddenStates, contents: Any, told: Any = None) -> Any:
        read.extend(contents)
        return whole(self, contents, told)

    monkeypatch.setattr(HiddenStates, "read", listened)
    made = reconstruct(load_model(reading_model), recorded_file, split="test", missing=["audio", "text"])
    assert len(made) == 12
    samples = [part for content in read for part in content if not isinstance(part, str)]
    spoken = set(read_data_file(recorded_file).splits["test"].raw_text or ())
    assert samples == []
    assert not spoken & {part for content in read for part in content if isinstance(part, str)}


def test_each_distinct_observation_is_one_row(reading_model: Path, clips: Split) -> None:
    states = load_model(reading_model).hidden_states
    assert states is not None
    pool = pattern_pool(clips.mask(), clips.ids, 7, seed=0)
    made = pair_states(states, clips, pool)
    with_sound = sum(recording is not None for recording in clips.recordings["audio"])
    texts = len(set(clips.raw_text or ()))
    assert len(made.table) == texts + 2 * with_sound  # alone, with sound, and sound alone
    vision_alone = ~pool.visible[:, :2].any(axis=1)
    assert torch.equal(
        made.index < 0, torch.from_numpy(vision_alone | silent(clips, pool.rows, pool.visible))
    )
    pairs = np.array([0, 3, 5])
    raw = made.of(pairs)
    assert raw.there.tolist() == (made.index[pairs] >= 0).tolist()
    for place, pair in enumerate(pairs):
        one = clips.take([pool.rows[pair]]).hide(~pool.visible[pair : pair + 1])
        contents = pipeline.raw_states(states, one)
        np.testing.assert_allclose(raw.vectors[place], contents.vectors[0], rtol=1e-4, atol=1e-5)


def silent(clips: Split, rows: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Pairs that show audio alone, or with vision, of clips without a sound."""
    none = np.array([recording is None for recording in clips.recordings["audio"]])
    return none[rows] & ~visible[:, 0]


def test_the_literal_query_has_keys_in_the_same_space(
    recorded_file: Path,
    all_patterns: dict[str, Any],
    train_tiny: Callable[..., Path],
    reading_model: Path,
    tiny_thinker_folder: Path,
    clips: Split,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Entries of the training split and of one's own are u_X of what was recorded, as queries are.

    The training before this one has read all of it: nothing goes through the thinker once more.
    """

    def refuse(self: HiddenStates, contents: Any) -> None:
        raise AssertionError(f"{len(contents)} contents went through the thinker again")

    literal = all_patterns | {
        "encoder": all_patterns["encoder"] | {"kind": "qwen-omni"},
        "retriever": all_patterns["retriever"] | {"query": "literal"},
    }
    with monkeypatch.context() as patch:
        patch.setattr(HiddenStates, "_pass", refuse)
        folder = train_tiny(
            recorded_file, "literal", overrides=literal, text_encoder=str(tiny_thinker_folder)
        )
    assert any("0 texts and observations read anew" in note for note in read_manifest(folder).notes)
    model, before = load_model(folder), load_model(reading_model)
    psi = before.encoder.state_dict()
    assert all(torch.equal(value, psi[name]) for name, value in model.encoder.state_dict().items())

    train = read_data_file(recorded_file).splits["train"]
    for base, split in (
        (model.knowledge_base, train),
        (build_knowledge_base(model, [EntrySource(clips, "clips")], name="own"), clips),
    ):
        assert base.ids == split.ids
        expected = pipeline.observe(model, split).embedding
        np.testing.assert_allclose(base.keys, expected, rtol=1e-4, atol=1e-5)
    found = reconstruct(model, recorded_file, split="test", missing=["vision"])
    assert all(trajectory.evidence["vision"] for trajectory in found)


def test_a_command_without_a_thinker(recorded_file: Path, tmp_path: Path, capsys: Capture) -> None:
    command = ["train", "--data", str(recorded_file), "--output", str(tmp_path / "model")]
    assert main([*command, "--encoder", "qwen-omni"]) == 2
    assert "--encoder qwen-omni needs the checkpoint that encodes" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_without_its_thinker_a_model_does_not_load(
    reading_model: Path, recorded_file: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never another encoder in its place."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match="got 'bert'"):
        load_model(reading_model, other)
    monkeypatch.setenv("OMG_ENCODER_MODEL", str(tmp_path / "gone"))
    assert main(["run", "--input", str(recorded_file), "--model", str(reading_model)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert "the model reads through a Qwen2.5-Omni thinker" in line
    assert "say where it is now with --encoder-model" in line
    assert main(["doctor", "--model", str(reading_model)]) == 1


def test_data_with_nothing_to_read_are_refused(
    tiny_data_file: Path, tmp_path: Path, tiny_thinker_folder: Path, capsys: Capture
) -> None:
    content = pickle.loads(tiny_data_file.read_bytes())
    for fields in content.values():
        del fields["raw_text"]
    path = tmp_path / "mute.pkl"
    path.write_bytes(pickle.dumps(content))
    command = ["train", "--data", str(path), "--output", str(tmp_path / "model"), "--encoder", "qwen-omni"]
    assert main([*command, "--encoder-model", str(tiny_thinker_folder)]) == 2
    assert "transcripts or recordings were expected in the training rows" in capsys.readouterr().err


@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_psi_learns_from_hidden_states_however_far_off_they_lie(offset: float) -> None:
    """The plan is told by the hidden states of text and by the features of audio, and by nothing else."""
    count, shared, source = 240, 6, generator("hidden states")
    plan = torch.randint(2, (count,), generator=source)
    plans = torch.nn.functional.normalize(torch.randn(2, shared, generator=source), dim=1)
    latents = {name: torch.randn(count, 4, generator=source) for name in ("text", "audio")}
    latents["audio"][:, 0] += 4.0 * (plan - 0.5)
    vectors = offset + torch.randn(count, 5, generator=source)
    vectors[:, 2] += 4.0 * (plan - 0.5)
    pool = pattern_pool(np.ones((count, 2), bool), tuple(map(str, range(count))), 3, seed=0)
    read = torch.from_numpy(np.where(pool.visible[:, 0], pool.rows, -1))
    rows = PlannedRows(latents, pool, [("x",)] * count, plans[plan], plan, states=PairStates(vectors, read))
    config = ObservationEncoderConfig(
        widths={"text": 4, "audio": 4},
        scales={"text": 1.0, "audio": 1.0},
        shared_width=shared,
        hidden=32,
        raw_width=5,
    )
    settings = EncoderSettings(epochs=40)
    encoder, _ = fit_observation_encoder(config, rows, settings, seed=0, allowed=np.arange(count) < 160)
    held_out = np.flatnonzero((pool.rows >= 160) & (pool.visible.sum(axis=1) == 1))
    closest = (embed_pairs(encoder, rows, held_out) @ plans.T).argmax(dim=1)
    right = (closest == plan[pool.rows[held_out]]).float()
    alone = torch.from_numpy(pool.visible[held_out, 0])
    assert right[alone].mean() > 0.85  # text, by what was read of it
    assert right[~alone].mean() > 0.85  # audio, which has features alone, as a reconstruction has


def test_settings_of_the_thinker_are_checked() -> None:
    for wrong in ({"kind": "qwen"}, {"kind": "qwen-omni", "depth": 0}, {"dropout": 1.0}):
        with pytest.raises(ConfigError, match="encoder"):
            load_config(None, {"encoder": wrong})


def test_it_is_said_where_a_recording_is_read_in_part(tiny_data_file: Path, tmp_path: Path) -> None:
    states = HiddenStates(ThinkerRecord(name="x", fingerprint="x", width=4), tmp_path, tmp_path / "cache")
    some = read_data_file(tiny_data_file).splits["train"].take(range(3))
    videos = tuple(Recording("video", np.zeros((frames, 2, 2, 3), np.uint8)) for frames in (16, 17, 40))
    notes = states_notes(states, replace(some, recordings={"vision": videos}))
    assert any(note.startswith("of 2 of 3 recordings a part is read") for note in notes)
    whole = states_notes(states, replace(some, recordings={"vision": (videos[0], None, None)}))
    assert not any("a part is read" in note for note in whole)
