"""Hidden states of a tiny random thinker: pooled by part, kept on disk, one sample like a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.data.recordings import Recording
from omg_graph.encoders.hidden_states import HiddenStates, ThinkerRecord, ThinkerTextEncoder, raw_states
from omg_graph.encoders.raw_parts import Content, raw_parts, shown
from omg_graph.errors import ConfigError, EncoderError
from omg_graph.model.thinkers import new_states, recorded_states
from omg_graph.omni.thinker import Message, load_thinker

WORDS = "the story praises the music"


def sound(seed: int, samples: int = 1600) -> Recording:
    rng = np.random.default_rng(seed)
    return Recording("audio", (0.1 * rng.standard_normal(samples)).astype(np.float32), 16_000.0)


def picture(seed: int) -> Recording:
    return Recording("image", np.random.default_rng(seed).integers(0, 255, (56, 84, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def record(tiny_thinker_folder: Path) -> ThinkerRecord:
    return new_states(str(tiny_thinker_folder), depth=0.75, four_bit=False, cuda=False).record


@pytest.fixture
def opened(record: ThinkerRecord, tiny_thinker_folder: Path, tmp_path: Path) -> Callable[..., HiddenStates]:
    """Hidden states with a cache of the test's own, opened anew at each call."""

    def open_states(**changes: object) -> HiddenStates:
        changed = record.model_copy(update=changes)
        return HiddenStates(changed, tiny_thinker_folder, tmp_path / "states", device="cpu")

    return open_states


CONTENTS: list[Content] = [
    (WORDS,),
    (sound(0), WORDS),
    (sound(1, 4000), picture(2), "no"),
    (picture(3),),
    (sound(4),),
]


def test_one_content_reads_as_it_does_in_a_batch(
    opened: Callable[..., HiddenStates], record: ThinkerRecord, tiny_thinker_folder: Path, tmp_path: Path
) -> None:
    together = opened().read(CONTENTS)
    assert together.shape == (5, record.width)
    for row, content in enumerate(CONTENTS):
        alone = HiddenStates(record, tiny_thinker_folder, tmp_path / str(row), device="cpu").read([content])
        np.testing.assert_allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_what_was_read_is_never_read_again(opened: Callable[..., HiddenStates]) -> None:
    first = opened()
    progress: list[tuple[int, int]] = []
    made = first.read([*CONTENTS, CONTENTS[0]], lambda done, of: progress.append((done, of)))
    assert first.passes == len(CONTENTS)
    assert progress == [(4, 5), (5, 5)]
    again = opened()
    # other objects of the same content are the same to the cache
    same: list[Content] = [(WORDS,), (sound(0), WORDS)]
    assert np.array_equal(again.read(same), made[:2])
    assert again.passes == 0
    again.read([(sound(0), WORDS + "!")])
    assert again.passes == 1


def test_a_damaged_file_is_made_again(opened: Callable[..., HiddenStates], tmp_path: Path) -> None:
    made = opened().read([(WORDS,)])
    (file,) = (tmp_path / "states").rglob("*.npy")
    for content in (b"", file.read_bytes()[:100], file.read_bytes()[:-8] + b"\xff" * 8):
        file.write_bytes(content)
        again = opened()
        assert np.array_equal(again.read([(WORDS,)]), made)
        assert again.passes == 1


def test_another_layer_or_thinker_has_files_of_its_own(opened: Callable[..., HiddenStates]) -> None:
    made = opened().read([(WORDS,)])
    deeper = opened(depth=0.5)
    assert not np.allclose(deeper.read([(WORDS,)]), made)
    assert deeper.passes == 1
    halved = opened(dtype="bfloat16")
    np.testing.assert_allclose(halved.read([(WORDS,)]), made, rtol=0.3, atol=0.3)
    assert halved.passes == 1
    assert opened(fingerprint="another").record.digest != opened().record.digest
    assert opened(name="/elsewhere").record.digest == opened().record.digest


def test_a_text_is_the_mean_over_its_own_tokens(
    opened: Callable[..., HiddenStates], tiny_thinker_folder: Path
) -> None:
    """By hand, from the model's own hidden states: the scaffolding of the chat format takes no part."""
    thinker = load_thinker(str(tiny_thinker_folder), device="cpu")
    inputs = thinker.inputs([[Message("user", (WORDS,))]], answer=False)
    with torch.inference_mode():
        layers = thinker.model(**inputs, output_hidden_states=True).hidden_states
    tokens, ids = thinker.encode(WORDS), inputs["input_ids"][0].tolist()
    start = next(place for place in range(len(ids)) if ids[place : place + len(tokens)] == tokens)
    expected = layers[2][0, start : start + len(tokens)].mean(dim=0).numpy()
    np.testing.assert_allclose(opened(depth=1.0).read([(WORDS,)])[0], expected, rtol=1e-4, atol=1e-5)


def test_parts_count_alike_however_long_they_are(
    opened: Callable[..., HiddenStates], tiny_thinker_folder: Path
) -> None:
    """Of a sound and a text: half of either, by the tokens that stand for them."""
    thinker = load_thinker(str(tiny_thinker_folder), device="cpu")
    content: Content = (sound(0, 8000), WORDS)
    inputs = thinker.inputs([[Message("user", content)]], answer=False)
    with torch.inference_mode():
        states = thinker.model(**inputs, output_hidden_states=True).hidden_states[2][0]
    ids = inputs["input_ids"][0]
    heard = ids == thinker.model.config.audio_token_id
    count = len(thinker.encode(WORDS))
    behind = int(heard.nonzero().max()) + 2  # the end of the sound has a token too
    expected = (states[heard].mean(dim=0) + states[behind : behind + count].mean(dim=0)) / 2
    np.testing.assert_allclose(opened(depth=1.0).read([content])[0], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_texts_are_measured_from_their_centre(opened: Callable[..., HiddenStates]) -> None:
    states = opened()
    texts = ["story praises", "music criticises", "story hesitates"]
    g = ThinkerTextEncoder.centred_on(states, texts)
    embedded = g.embed(texts)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1.0, rtol=1e-5)
    raw = states.read([(text,) for text in texts])
    np.testing.assert_allclose(
        embedded * np.linalg.norm(raw - raw.mean(axis=0), axis=1, keepdims=True),
        raw - raw.mean(axis=0),
        atol=1e-4,
    )
    assert g.name != ThinkerTextEncoder.centred_on(states, texts[:2]).name
    assert g.embed([]).shape == (0, states.width)


def split(text_modality: bool = True) -> Split:
    first = "text" if text_modality else "pose"
    specs = tuple(ModalitySpec(name=name, kind="vector", shape=(2,)) for name in (first, "audio", "vision"))
    return Split(
        name="test",
        ids=("a", "b"),
        groups=("a", "b"),
        modalities=specs,
        arrays={spec.name: np.ones((2, 2), np.float32) for spec in specs},
        observed={spec.name: np.ones(2, np.bool_) for spec in specs},
        raw_text=(WORDS, " "),
        recordings={"audio": (sound(0), None), "vision": (picture(1), None)},
    )


def test_the_parts_of_a_sample_are_what_is_observed_of_it() -> None:
    whole, blank = raw_parts(split())
    assert [part.column for part in whole] == [1, 2, 0]
    assert blank == ()
    hidden = split().hide(np.array([[False, True, False]] * 2))
    assert [part.column for part in raw_parts(hidden)[0]] == [2, 0]
    assert shown(whole, np.array([True, False, False])) == (WORDS,)
    # a transcript that no modality stands for is there whatever is hidden
    assert shown(raw_parts(split(False))[0], np.array([False, False, False])) == (WORDS,)


def test_a_hidden_recording_is_never_opened(
    opened: Callable[..., HiddenStates], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(recording: Recording, *_: object) -> None:
        raise AssertionError(f"{recording.kind} was opened")

    monkeypatch.setattr(Recording, "waveform", refuse)
    states = opened()
    hidden = split().hide(np.array([[False, True, False]] * 2))
    read = raw_states(states, hidden)
    assert read.there.tolist() == [True, False]
    assert not read.vectors[1].any()
    with pytest.raises(AssertionError, match="audio was opened"):
        raw_states(states, split())


def test_a_thinker_that_is_gone_or_another_is_refused_in_one_line(
    record: ThinkerRecord, tiny_thinker_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = record.model_copy(update={"name": str(tmp_path / "gone")})
    with pytest.raises(
        EncoderError, match=r"gone.* no such folder; say where it is now with --encoder-model"
    ) as refused:
        recorded_states(moved, None)
    assert "\n" not in str(refused.value)
    assert recorded_states(moved, tiny_thinker_folder).folder == tiny_thinker_folder
    monkeypatch.setenv("OMG_ENCODER_MODEL", str(tiny_thinker_folder))
    assert recorded_states(moved, None).folder == tiny_thinker_folder
    other = record.model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(EncoderError, match=r"fingerprint 000000000000\), another one is there"):
        recorded_states(other, tiny_thinker_folder)


def test_a_cache_that_cannot_be_written_is_said(
    record: ThinkerRecord, tiny_thinker_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"for hidden states, .*file isn't one: point OMG_CACHE"):
        HiddenStates(record, tiny_thinker_folder, tmp_path / "file")
