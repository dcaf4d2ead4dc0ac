from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from omg_graph.data.dataset import Labels, ModalitySpec, Split
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.predictor.task import TaskHeadConfig, label_width
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.training.patterns import pattern_pool
from omg_graph.training.reading import fit_reader, reading_pairs

ROWS, WIDTHS = 60, {"text": 3, "audio": 2}
IDS = tuple(f"row{row}" for row in range(ROWS))
GROUPS = tuple(f"group{row // 3}" for row in range(ROWS))
SCORES = np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], ROWS // 5)
WORDS = {
    -2.0: "a terrible film",
    -1.0: "a dull film",
    0.0: "a film",
    1.0: "a nice film",
    2.0: "a superb film",
}


def split(words: bool = True, labels: np.ndarray = SCORES) -> Split:
    random = np.random.default_rng(0)
    return Split(
        name="train",
        ids=IDS,
        groups=GROUPS,
        modalities=tuple(
            ModalitySpec(name=name, kind="vector", shape=(width,)) for name, width in WIDTHS.items()
        ),
        arrays={
            name: random.standard_normal((ROWS, width)).astype(np.float32) for name, width in WIDTHS.items()
        },
        observed={name: np.ones(ROWS, dtype=np.bool_) for name in WIDTHS},
        raw_text=tuple(WORDS[score] for score in SCORES) if words else None,
        labels=Labels(name="label", kind="number", values=labels.astype(np.float64)),
    )


def latents(data: Split) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in data.arrays.items()}


TASK = TaskHeadConfig(
    kind="degrees",
    names=("bad", "poor", "fair", "good", "fine"),
    degrees=(-2.0, -1.0, 0.0, 1.0, 2.0),
    target_deviation=1.5,
    widths=WIDTHS,
    scales=dict.fromkeys(WIDTHS, 1.0),
)
TASK = TASK.model_copy(update={"reading": label_width(TASK)})


def fitted(data: Split, words: bool = True) -> LabelRegression:
    known = torch.from_numpy(data.mask())
    gaussian = GaussianConditional.fit(latents(data), known)
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    return fit_reader(latents(data), data, gaussian, TASK, pool, words=words, rows=ROWS, seed=0)


def read(reader: LabelRegression, data: Split, shown: tuple[bool, bool], texts: bool) -> Tensor:
    """Of new samples with the same features and words."""
    new = tuple(f"new{row}" for row in range(ROWS))
    words = data.raw_text if texts else None
    return reader.predict(latents(data), torch.tensor([shown] * ROWS), words, new, new)


def test_words_tell_the_label_where_features_are_noise() -> None:
    data = split()
    value = read(fitted(data), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((value - torch.from_numpy(SCORES)).abs().mean()) < 0.5
    unread = read(fitted(data, words=False), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((unread - torch.from_numpy(SCORES)).abs().mean()) > 0.8


def test_hidden_text_is_not_read() -> None:
    data = split()
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    reader = fitted(data)
    pairs = reading_pairs(reader, latents(data), data, pool)
    other = replace(data, raw_text=tuple("a superb film" for _ in IDS))
    changed = reading_pairs(reader, latents(data), other, pool)
    hidden = ~pool.visible[:, 0]
    assert torch.equal(pairs[hidden], changed[hidden])
    assert not torch.allclose(pairs[~hidden], changed[~hidden], atol=0.1)


def test_a_row_s_own_group_has_no_say() -> None:
    """Labels that no other group explains can't be read off a training row."""
    random = np.random.default_rng(1)
    data = split(words=False, labels=random.permutation(SCORES))
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    reader = fitted(data)
    value = reading_pairs(reader, latents(data), data, pool)[:, 0].numpy()
    truth = np.asarray(data.labels.values)[pool.rows]  # type: ignore[union-attr]
    assert abs(np.corrcoef(value, truth)[0, 1]) < 0.35


def test_rows_without_a_label_teach_nothing() -> None:
    labels = SCORES.copy()
    labels[::4] = np.nan
    data = split(labels=labels)
    reader = fitted(data)
    assert int(reader.kernel.known[:, -1].sum()) == ROWS - ROWS // 4
    assert bool(read(reader, data, (True, True), texts=True).isfinite().all())


def test_a_split_without_labels_is_refused() -> None:
    data = replace(split(), labels=None)
    with pytest.raises(ValueError, match="nothing to learn from"):
        fitted(data)


def test_nobody_reads_what_is_wholly_missing() -> None:
    data = split()
    assert not read(fitted(data), data, (False, False), texts=False).any()
