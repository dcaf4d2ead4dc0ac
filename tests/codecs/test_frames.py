"""Lost frames: filled better than by interpolation or the mean, never much worse where that is the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.codecs.frame_fitting import couple, fit_frame_filler
from omg_graph.codecs.frames import FrameFiller, FramePrior
from omg_graph.data.dataset import BoolArray, FloatArray, ModalitySpec
from omg_graph.seeding import derived_seed

FRAMES, FEATURES = 12, 4
SPEC = ModalitySpec(name="audio", kind="sequence", shape=(FRAMES, FEATURES))


def waves(rows: int, seed: int, noise: float = 0.2) -> tuple[FloatArray, FloatArray]:
    """Sequences of three hidden numbers each, too fast to be interpolated, and a noisy view of these."""
    random = np.random.default_rng(seed)
    time = np.arange(FRAMES) / FRAMES
    base = np.stack([np.sin(2 * np.pi * (turns * time + 0.1 * turns)) for turns in (2, 3, 4)])
    loadings = np.random.default_rng(derived_seed("loadings")).standard_normal((3, FEATURES))
    hidden = random.standard_normal((rows, 3))
    sequences = np.einsum("kt,kd,nk->ntd", base, loadings, hidden)
    sequences = sequences + noise * random.standard_normal(sequences.shape)
    other = hidden + 0.1 * random.standard_normal(hidden.shape)
    return (sequences / sequences.std()).astype(np.float32), other.astype(np.float32)


def hiding(rows: int, seed: int, share: float = 0.4) -> BoolArray:
    random = np.random.default_rng(seed)
    lost = random.random((rows, FRAMES)) < share
    lost[np.arange(rows), random.integers(0, FRAMES, rows)] = False
    return lost


def flat(sequences: FloatArray, lost: BoolArray | None = None) -> FloatArray:
    kept = sequences if lost is None else sequences * ~lost[..., None]
    return kept.reshape(len(kept), -1)


def fitted(sequences: FloatArray, lost: BoolArray | None = None) -> FrameFiller:
    groups = [f"speaker {row // 3}" for row in range(len(sequences))]
    return fit_frame_filler(SPEC, flat(sequences, lost), lost, None, groups, 0)


def error(filler: FrameFiller, truth: FloatArray, lost: BoolArray, prior: FramePrior | None = None) -> float:
    """Squared error over squared deviation from the mean, on lost frames: 1 for the mean."""
    filled = filler.fill(flat(truth, lost), lost, None, prior).reshape(truth.shape)
    return float(np.square(filled - truth)[lost].sum() / np.square(truth)[lost].sum())


def test_structured_sequences_are_filled_far_better_than_by_interpolation_or_the_mean() -> None:
    filler = fitted(waves(90, 0)[0])
    truth, lost = waves(60, 1)[0], hiding(60, 2)
    assert error(filler, truth, lost) < 0.15
    assert error(FrameFiller.interpolating(SPEC), truth, lost) > 0.9


def test_noise_is_filled_with_the_mean_and_a_random_walk_by_interpolation() -> None:
    """Held-out frames decide: what promises nothing there is not used."""
    random = np.random.default_rng(3)
    noise = random.standard_normal((190, FRAMES, FEATURES)).astype(np.float32)
    assert error(fitted(noise[:90]), noise[90:], hiding(100, 4)) < 1.02
    walks = noise.copy()
    for frame in range(1, FRAMES):
        walks[:, frame] = 0.95 * walks[:, frame - 1] + 0.3 * noise[:, frame]
    plain = error(FrameFiller.interpolating(SPEC), walks[90:], hiding(100, 5))
    assert error(fitted(walks[:90]), walks[90:], hiding(100, 5)) < 1.02 * plain


def test_training_rows_may_have_gaps_and_lengths_themselves() -> None:
    """Frames that aren't there teach nothing: neither zeros nor padding are data."""
    sequences, lost = waves(90, 0)[0], hiding(90, 6, share=0.2)
    lengths = np.random.default_rng(7).integers(FRAMES // 2, FRAMES + 1, 90)
    padded = ~(np.arange(FRAMES)[None] < lengths[:, None])
    lost[np.arange(90), 0] = False
    rows = flat(sequences, lost | padded)
    filler = fit_frame_filler(SPEC, rows, lost & ~padded, lengths, [str(row) for row in range(90)], 0)
    assert error(filler, waves(60, 1)[0], hiding(60, 2)) < 0.2


def test_other_modalities_help_where_little_of_the_sequence_is_left() -> None:
    sequences, other = waves(90, 0, noise=1.0)
    filler = fitted(sequences)
    groups = [str(row) for row in range(90)]
    seen = np.ones((90, 1), bool)
    coupled = couple(filler, flat(sequences), None, None, {"text": other}, seen, groups, 0)
    truth, view = waves(60, 1, noise=1.0)
    lost = np.ones((60, FRAMES), bool)
    lost[np.arange(60), np.random.default_rng(8).integers(0, FRAMES, 60)] = False
    prior = coupled.prior({"text": view}, np.ones((60, 1), bool))
    alone = error(coupled, truth, lost)
    assert error(coupled, truth, lost, prior) < 0.9 * alone
    unseen = coupled.prior({"text": np.zeros_like(view)}, np.zeros((60, 1), bool))
    assert error(coupled, truth, lost, unseen) == pytest.approx(alone, rel=0.05)


def test_the_factor_model_s_conditional_is_the_gaussian_s_own() -> None:
    """With the whole covariance V diag(variances) V' + diag(noise): E[lost | there], written out."""
    filler = fitted(waves(90, 0)[0])
    only = FrameFiller(
        SPEC, filler.components, filler.variances, filler.noise, np.tile([1.0, 0.0], (len(filler.weights), 1))
    )
    truth, lost = waves(1, 9)[0], hiding(1, 10)
    covariance = (only.components * only.variances) @ only.components.T + np.diag(only.noise)
    gone = np.repeat(lost[0], FEATURES)
    there = flat(truth)[0][~gone].astype(np.float64)
    expected = covariance[np.ix_(gone, ~gone)] @ np.linalg.solve(covariance[np.ix_(~gone, ~gone)], there)
    filled = only.fill(flat(truth, lost), lost, None)[0]
    np.testing.assert_allclose(filled[gone], expected, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000))
def test_what_is_there_stays_bit_by_bit_and_rows_don_t_matter_to_each_other(seed: int) -> None:
    filler = FrameFiller.interpolating(SPEC)
    truth, lost = waves(3, seed)[0], hiding(3, seed)
    filled = filler.fill(flat(truth, lost), lost, None)
    kept = ~np.repeat(lost, FEATURES, axis=1)
    assert np.array_equal(filled[kept], flat(truth)[kept])
    for row in range(3):
        alone = filler.fill(flat(truth, lost)[row : row + 1], lost[row : row + 1], None)
        np.testing.assert_array_equal(alone[0], filled[row])


def test_interpolation_by_hand() -> None:
    spec = ModalitySpec(name="s", kind="sequence", shape=(6, 1))
    values = np.array([[0.0, 1.0, 0.0, 0.0, 4.0, 0.0]], np.float32)
    lost = np.array([[True, False, True, True, False, False]])
    filled = FrameFiller.interpolating(spec).fill(values, lost, np.array([5]))
    np.testing.assert_allclose(filled[0], [1.0, 1.0, 2.0, 3.0, 4.0, 0.0])


def test_taken_apart_and_put_together_it_fills_the_same() -> None:
    sequences, other = waves(90, 0)
    groups = [str(row) for row in range(90)]
    filler = couple(
        fitted(sequences), flat(sequences), None, None, {"text": other}, np.ones((90, 1), bool), groups, 0
    )
    again = FrameFiller.of_tensors(SPEC, filler.tensors(), ["text"])
    truth, lost = waves(5, 1)[0], hiding(5, 2)
    view, seen = waves(5, 1)[1], np.ones((5, 1), bool)
    both = [
        model.fill(flat(truth, lost), lost, None, model.prior({"text": view}, seen))
        for model in (filler, again)
    ]
    np.testing.assert_allclose(both[0], both[1], atol=1e-4)
