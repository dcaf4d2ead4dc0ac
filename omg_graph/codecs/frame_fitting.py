"""Fitting of the frame filler: the factor model, its weights on held-out frames, and its coupling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from omg_graph.codecs.frames import NEAR, FrameFiller, Matrix, SequenceRows, as_frames
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.mixture import nonnegative_least_squares
from omg_graph.seeding import derived_seed

FACTORS = (0, 4, 16, 64)
"""Candidate numbers of factors, chosen on held-out frames."""
MOST_ROWS = 800
"""Rows used at most to fit the factor model."""
FOLDS, FEW_ROWS = 5, 400
"""Up to ``FEW_ROWS`` rows every fold is held out once; with more rows a single fold is."""
ROUNDS = 8
"""Rounds of filling and fitting in turn, since training rows differ in length and may have lost frames."""
FLOOR = 0.01
"""Least residual variance of a feature, in standard units, against overconfidence on new rows."""
RIDGES = (0.03, 0.3, 3.0)
"""Candidate ridges of the coupling, in units of the mean variance of the other modalities' latents."""
COUPLED = "frames"


def fit_frame_filler(
    spec: ModalitySpec,
    standard: FloatArray,
    lost: BoolArray | None,
    lengths: IntArray | None,
    groups: Sequence[str],
    seed: int,
) -> FrameFiller:
    """Fit on training rows that have the sequence, with or without lost frames.

    Args:
        spec: The modality, of two frames or more.
        standard: (samples, frames * features), zeros in lost and padded frames.
        lost: (samples, frames).
        lengths: (samples,).
        groups: Groups of the samples: whole groups are held out.
        seed: Decides which rows and frames are held out.
    """
    rng = np.random.default_rng(derived_seed(seed, "lost frames", spec.name))
    rows = np.sort(rng.permutation(len(standard))[:MOST_ROWS])
    data = SequenceRows.of(spec, standard, lost, lengths).take(rows)
    fold = _folds([groups[row] for row in rows], rng)
    gaps = data.with_gaps(rng)
    turns = range(FOLDS if len(rows) <= FEW_ROWS else 1)
    best, best_weights, least = 0, FrameFiller.interpolating(spec).weights, np.inf
    plain, spread = 0.0, 0.0
    for factors in FACTORS:
        if factors > min(spec.size, len(rows) // 4):
            break
        parts = []
        for turn in turns:
            held, kept = np.flatnonzero(fold == turn), np.flatnonzero(fold != turn)
            if len(held) and len(kept):
                model = _factor_model(spec, data.take(kept), factors)
                parts.append(_checked(model, data.take(held), gaps.take(held)))
        weights, error = _blend(parts)
        if not factors:
            # with no factors the interpolated residual is the interpolated sequence itself
            plain = sum(float(np.square(some.parts[..., 1] - some.truth).sum()) for some in parts)
            spread = sum(float(np.square(some.truth).sum()) for some in parts)
        # more factors must lower the error by 3 %
        if error < 0.97 * least:
            best, best_weights, least = factors, weights, error
    fitted = replace(_factor_model(spec, data, best), weights=best_weights)
    if not spread:
        return fitted
    return replace(fitted, error=least / spread, interpolation_error=plain / spread)


def couple(
    filler: FrameFiller,
    standard: FloatArray,
    lost: BoolArray | None,
    lengths: IntArray | None,
    latents: Mapping[str, FloatArray],
    observed: BoolArray,
    groups: Sequence[str],
    seed: int,
) -> FrameFiller:
    """The filler coupled to the other modalities' latents, calibrated on held-out rows.

    Args:
        filler: The filler fitted on the sequence alone.
        standard: (samples, frames * features), training rows that have the sequence.
        lost: (samples, frames).
        lengths: (samples,).
        latents: The other modalities' latents, (samples, latent), zeros where missing.
        observed: (samples, other modalities).
        groups: Of the samples.
        seed: Decides what is held out.
    """
    if not filler.components.shape[1] or not latents:
        return filler
    rng = np.random.default_rng(derived_seed(seed, "coupling", filler.spec.name))
    held = _folds(groups, rng) == 0
    if held.all() or not held.any():
        return filler
    factors = filler.factors(SequenceRows.of(filler.spec, standard, lost, lengths), None)
    blocks = {COUPLED: factors.astype(np.float32)} | {
        f"{number}": rows for number, rows in enumerate(latents.values())
    }
    there = np.concatenate([np.ones((len(factors), 1), bool), observed], axis=1)
    best, least = filler, float(np.square(factors[held]).sum())
    fitted = _joint(filler, tuple(latents), blocks, there, np.flatnonzero(~held))
    start = factors.shape[1]
    scale = float(np.diag(fitted.covariance)[start:].mean())
    for ridge in RIDGES:
        model = replace(fitted, ridge=ridge * scale)
        prior = model.prior({name: rows[held] for name, rows in latents.items()}, observed[held])
        if prior is None:
            continue
        off = factors[held] - prior.mean
        error = float(np.square(off).sum())
        if error < least:
            tight = np.einsum("ni,nij,nj->n", off, np.linalg.inv(prior.covariance), off).mean()
            best, least = replace(model, spread=max(1.0, float(tight) / start)), error
    if not best.ridge:
        return filler
    return replace(
        _joint(filler, tuple(latents), blocks, there, np.arange(len(factors))),
        ridge=best.ridge,
        spread=best.spread,
    )


def _factor_model(spec: ModalitySpec, rows: SequenceRows, factors: int) -> FrameFiller:
    """Principal components, their variances and the residual variance, alternating with filling of gaps."""
    model = FrameFiller.interpolating(spec)
    there = np.repeat(rows.there, spec.shape[1], axis=1)
    vectors = np.random.default_rng(derived_seed("principal", spec.name)).standard_normal(
        (spec.size, factors)
    )
    for _ in range(ROUNDS):
        filled = np.where(there, rows.values, model.factors(rows, None) @ model.components.T)
        vectors, values = _principal(filled, vectors)
        left = np.square(filled - filled @ vectors @ vectors.T) * there
        noise = np.maximum(left.sum(axis=0) / np.maximum(there.sum(axis=0), 1), FLOOR)
        model = replace(model, components=vectors, variances=np.maximum(values, 1e-9), noise=noise)
        if not factors:
            break
    return model


def _principal(x: Matrix, start: Matrix, turns: int = 3) -> tuple[Matrix, Matrix]:
    """Principal directions, (features, factors), and the variances along them, by subspace iteration."""
    basis = start
    for _ in range(turns):
        basis = np.linalg.qr(x.T @ (x @ basis))[0]
    _, values, turn = np.linalg.svd(x @ basis / np.sqrt(len(x)), full_matrices=False)
    return basis @ turn.T, np.square(values)


def _joint(
    filler: FrameFiller,
    names: tuple[str, ...],
    blocks: Mapping[str, FloatArray],
    observed: BoolArray,
    rows: IntArray,
) -> FrameFiller:
    """The filler with the joint Gaussian of its factors and the other modalities' latents."""
    joint = GaussianConditional.of(
        {name: torch.from_numpy(part[rows]) for name, part in blocks.items()},
        torch.from_numpy(observed[rows]),
    )
    return replace(
        filler,
        names=names,
        widths=tuple(part.shape[1] for part in list(blocks.values())[1:]),
        mean=joint.mean.double().numpy(),
        covariance=joint.covariance.double().numpy(),
    )


def _folds(groups: Sequence[str], rng: np.random.Generator) -> IntArray:
    """(rows,): the fold of each row; groups stay whole if there is more than one."""
    owners = groups if len(set(groups)) > 1 else [str(row) for row in range(len(groups))]
    names = sorted(set(owners))
    fold = {names[place]: turn % FOLDS for turn, place in enumerate(rng.permutation(len(names)))}
    return np.array([fold[owner] for owner in owners], np.int64)


@dataclass(frozen=True)
class _Checked:
    """A model's predictions of held-out frames."""

    parts: Matrix
    """(frames, features, 2): conditional mean and interpolated residual."""
    truth: Matrix
    """(frames, features)."""
    distance: IntArray
    """(frames,): index of the distance class, each with its own weights."""


def _checked(model: FrameFiller, rows: SequenceRows, gaps: SequenceRows) -> _Checked:
    conditional, remainder, distance = model.parts(gaps)
    scored = gaps.lost & ~rows.lost
    parts = np.stack([as_frames(part, model.spec)[scored] for part in (conditional, remainder)], axis=-1)
    return _Checked(
        parts, as_frames(rows.values, model.spec)[scored], np.searchsorted(NEAR, distance[scored])
    )


def _blend(checked: Sequence[_Checked]) -> tuple[Matrix, float]:
    """Weights for each distance by non-negative least squares, at most 1, and the remaining error."""
    weights, error = np.tile([0.0, 1.0], (len(NEAR) + 1, 1)), 0.0
    for number in range(len(weights)):
        chosen = [some.distance == number for some in checked]
        if not any(rows.any() for rows in chosen):
            # farther than any held-out frame: use the weights of the next shorter distance
            weights[number] = weights[max(number - 1, 0)]
            continue
        parts = np.concatenate(
            [c.parts[rows].reshape(-1, 2) for c, rows in zip(checked, chosen, strict=True)]
        )
        truth = np.concatenate([c.truth[rows].ravel() for c, rows in zip(checked, chosen, strict=True)])
        fitted = nonnegative_least_squares(torch.from_numpy(parts), torch.from_numpy(truth)).double()
        weights[number] = fitted.numpy().clip(max=1.0)
        error += float(np.square(parts @ weights[number] - truth).sum())
    return weights, error
