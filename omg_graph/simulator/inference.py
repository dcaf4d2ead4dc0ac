"""The exact posterior of what a clip says and of what it misses, by enumeration and Gaussian conditioning.

Each clip is taken alone: its speaker and its recording are integrated out, other clips of the same speaker
are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import TEXT_MODALITY, IntArray, Split
from omg_graph.errors import DataError
from omg_graph.seeding import derived_seed
from omg_graph.simulator.channels import CHANNELS
from omg_graph.simulator.content import DEGREES, Contents, Float64Array
from omg_graph.simulator.process import AffectSimulator


@dataclass(frozen=True)
class ContentPosterior:
    """p(content | what is observed), one row a sample."""

    contents: Contents
    weights: Float64Array
    """(samples, contents), rows sum to 1."""

    def degree_probabilities(self) -> Float64Array:
        """(samples, 7), from strongly negative to strongly positive."""
        return self.weights @ self.contents.degree_indicator

    def expected_label(self) -> Float64Array:
        """(samples,): the mean degree, which has the least squared error of all predictions."""
        return self.degree_probabilities() @ DEGREES


@dataclass(frozen=True)
class GaussianMixture:
    """The exact posterior of missing audio or vision: a Gaussian for each content, all of one covariance.

    Component k of row n has mean ``components[p, k] + shifts[n]`` and covariance ``covariances[p]``, where
    p = ``patterns[n]`` numbers the sets of channels that are observed.
    """

    modalities: tuple[str, ...]
    """Whose features these are, side by side."""
    ids: tuple[str, ...]
    weights: Float64Array
    """(samples, contents)."""
    patterns: IntArray
    """(samples,)."""
    components: Float64Array
    """(patterns, contents, features)."""
    shifts: Float64Array
    """(samples, features)."""
    covariances: Float64Array
    """(patterns, features, features)."""

    def mean(self) -> Float64Array:
        """(samples, features): the posterior mean, which no estimate beats in squared error."""
        return self._averaged(self.components) + self.shifts

    def variance(self) -> Float64Array:
        """(samples, features): the posterior variance of each feature."""
        between = self._averaged(self.components**2) - self._averaged(self.components) ** 2
        within = np.diagonal(self.covariances, axis1=1, axis2=2)[self.patterns]
        return np.maximum(between, 0.0) + within

    def means(self, row: int) -> Float64Array:
        """(contents, features): the components' means for one sample."""
        return np.asarray(self.components[self.patterns[row]] + self.shifts[row])

    def covariance(self, row: int) -> Float64Array:
        """(features, features): the covariance that all components of one sample share."""
        return np.asarray(self.covariances[self.patterns[row]])

    def sample(self, draws: int, seed: int) -> Float64Array:
        """(samples, draws, features); each draw depends on (seed, id, modalities, draw) alone."""
        what = "+".join(self.modalities)
        roots = np.linalg.cholesky(self.covariances)
        drawn = np.empty((len(self.ids), draws, self.shifts.shape[1]))
        for row, sample_id in enumerate(self.ids):
            means, root = self.means(row), roots[self.patterns[row]]
            cumulative = np.cumsum(self.weights[row])
            for draw in range(draws):
                rng = np.random.default_rng(derived_seed(seed, sample_id, what, draw))
                k = _pick(cumulative, rng.random())
                drawn[row, draw] = means[k] + root @ rng.standard_normal(root.shape[1])
        return drawn

    def _averaged(self, values: Float64Array) -> Float64Array:
        """(samples, features): (patterns, contents, features) averaged by each sample's weights."""
        result = np.empty_like(self.shifts)
        for pattern in range(len(values)):
            rows = self.patterns == pattern
            result[rows] = self.weights[rows] @ values[pattern]
        return result


@dataclass(frozen=True)
class SentencePosterior:
    """The exact posterior of a missing text: a distribution over the sentences."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    probabilities: Float64Array
    """(samples, sentences), rows sum to 1."""
    embeddings: Float64Array
    """(sentences, width)."""

    def mean(self) -> Float64Array:
        """(samples, width): the posterior mean of the embedding (shorter than 1 where unsure)."""
        return self.probabilities @ self.embeddings

    def sample(self, draws: int, seed: int) -> IntArray:
        """(samples, draws): sentences drawn; each depends on (seed, id, text, draw) alone."""
        drawn = np.empty((len(self.ids), draws), dtype=np.int64)
        for row, sample_id in enumerate(self.ids):
            cumulative = np.cumsum(self.probabilities[row])
            for draw in range(draws):
                rng = np.random.default_rng(derived_seed(seed, sample_id, TEXT_MODALITY, draw))
                drawn[row, draw] = _pick(cumulative, rng.random())
        return drawn


def content_posterior(
    simulator: AffectSimulator, split: Split, prior: Float64Array | None = None
) -> ContentPosterior:
    """p(content | observed), with speaker and recording integrated out.

    A sample in which nothing is observed gets the prior.

    Args:
        simulator: which made the clips.
        split: the clips.
        prior: what the clips were drawn from if not from the simulator's own p(content): (contents,), or
            (samples, contents) for one that knows something of each clip, such as its plan. It need not be
            normalised.

    Raises:
        DataError: if the split's modalities aren't the simulator's, or a clip is impossible under the prior.
    """
    _check(simulator, split)
    with np.errstate(divide="ignore"):
        log_prior = np.log(simulator.contents.prior if prior is None else prior)
        log_sentences = np.log(simulator.sentences.probabilities)
    scores = np.array(np.broadcast_to(log_prior, (len(split), len(simulator.contents))))
    indices = simulator.sentence_indices(split)
    known = indices >= 0
    scores[known] += log_sentences[:, indices[known]].T
    for observed, rows in _observed_channels(split):
        if observed:
            means, covariance = _joint(simulator, observed)
            root = np.linalg.cholesky(covariance)
            # log N(x; m_k, C) up to what is the same for every content, x and m_k whitened by the root of C.
            x = np.linalg.solve(root, _values(split, observed, rows).T - means.mean(axis=0)[:, None]).T
            m = np.linalg.solve(root, (means - means.mean(axis=0)).T).T
            scores[rows] += x @ m.T - 0.5 * (m**2).sum(axis=1)
    if np.isneginf(scores).all(axis=1).any():
        stranger = split.ids[int(np.isneginf(scores).all(axis=1).argmax())]
        raise DataError(
            f"'{stranger}' is impossible under the prior: give the prior that the clips were drawn from"
        )
    scores -= scores.max(axis=1, keepdims=True)
    weights = np.exp(scores)
    return ContentPosterior(simulator.contents, weights / weights.sum(axis=1, keepdims=True))


def missing_mixture(
    simulator: AffectSimulator, split: Split, *modalities: str, prior: Float64Array | None = None
) -> GaussianMixture:
    """The exact posterior of missing channels, jointly where both are named.

    Args:
        simulator: which made the clips.
        split: clips that all miss the named modalities; what else each of them observes may differ.
        modalities: ``"audio"``, ``"vision"`` or both.
        prior: as for ``content_posterior``.

    Raises:
        DataError: if another modality is named, or one that some row observes.
    """
    _check(simulator, split)
    if not modalities or len(set(modalities)) < len(modalities) or not set(modalities) <= set(CHANNELS):
        raise DataError(
            f"expected {' or '.join(CHANNELS)} or both, got {', '.join(modalities) or 'nothing'}: "
            "name these, and use missing_sentences for text"
        )
    _check_missing(split, modalities)
    parts: list[tuple[Float64Array, Float64Array]] = []
    width = sum(len(simulator.channels[name].names) for name in modalities)
    patterns = np.zeros(len(split), dtype=np.int64)
    shifts = np.zeros((len(split), width))
    for observed, rows in _observed_channels(split):
        means, covariance = _joint(simulator, (*modalities, *observed))
        m_y, m_x = means[:, :width], means[:, width:]
        c_yy, c_yx, c_xx = covariance[:width, :width], covariance[:width, width:], covariance[width:, width:]
        gain = np.linalg.solve(c_xx, c_yx.T).T
        residual = c_yy - gain @ c_yx.T
        patterns[rows] = len(parts)
        parts.append((m_y - m_x @ gain.T, (residual + residual.T) / 2))
        shifts[rows] = _values(split, observed, rows) @ gain.T
    return GaussianMixture(
        modalities=tuple(modalities),
        ids=split.ids,
        weights=content_posterior(simulator, split, prior).weights,
        patterns=patterns,
        components=np.stack([components for components, _ in parts]),
        shifts=shifts,
        covariances=np.stack([covariance for _, covariance in parts]),
    )


def missing_sentences(simulator: AffectSimulator, split: Split) -> SentencePosterior:
    """The exact posterior of a missing text, given the voice and the face.

    Raises:
        DataError: if some row observes its text.
    """
    _check(simulator, split)
    _check_missing(split, (TEXT_MODALITY,))
    weights = content_posterior(simulator, split).weights
    return SentencePosterior(
        split.ids,
        simulator.sentences.texts,
        weights @ simulator.sentences.probabilities,
        simulator.embeddings,
    )


def posterior_mean(simulator: AffectSimulator, split: Split, modality: str) -> Float64Array:
    """(samples, features): the best reconstruction of a missing modality in squared error.

    Raises:
        DataError: if some row observes it, or the simulator has no such modality.
    """
    if modality == TEXT_MODALITY:
        return missing_sentences(simulator, split).mean()
    return missing_mixture(simulator, split, modality).mean()


def _joint(simulator: AffectSimulator, names: Sequence[str]) -> tuple[Float64Array, Float64Array]:
    """Means (contents, features) and covariance of channels side by side, given the content."""
    channels = [simulator.channels[name] for name in names]
    means = np.concatenate([channel.content_means for channel in channels], axis=1)
    B = np.concatenate([channel.speaker_loadings for channel in channels])
    C = np.concatenate([channel.recording_loadings for channel in channels])
    noise = np.concatenate([channel.noise_sd for channel in channels])
    return means, B @ B.T + C @ C.T + np.diag(noise**2)


def _observed_channels(split: Split) -> list[tuple[tuple[str, ...], IntArray]]:
    """The sets of channels that rows observe, each with its rows."""
    code = sum(split.observed[name].astype(np.int64) << bit for bit, name in enumerate(CHANNELS))
    return [
        (
            tuple(name for bit, name in enumerate(CHANNELS) if value >> bit & 1),
            np.flatnonzero(code == value),
        )
        for value in np.unique(code)
    ]


def _values(split: Split, names: Sequence[str], rows: IntArray) -> Float64Array:
    """(rows, features) of the named channels side by side; no columns where none is named."""
    parts: list[npt.NDArray[np.float64]] = [split.arrays[name][rows].astype(np.float64) for name in names]
    return np.concatenate([np.zeros((len(rows), 0)), *parts], axis=1)


def _pick(cumulative: Float64Array, uniform: float) -> int:
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def _check(simulator: AffectSimulator, split: Split) -> None:
    if set(split.names) != set(simulator.names):
        raise DataError(
            f"expected the simulator's modalities {', '.join(simulator.names)}, got "
            f"{', '.join(split.names) or 'none'}: give clips of the simulator"
        )
    for name, channel in simulator.channels.items():
        if split.arrays[name].shape[1:] != (len(channel.names),):
            raise DataError(
                f"expected '{name}' with {len(channel.names)} features, got shape "
                f"{split.arrays[name].shape[1:]}: give clips of the same simulator"
            )


def _check_missing(split: Split, modalities: Sequence[str]) -> None:
    for name in modalities:
        if split.observed[name].any():
            stranger = split.ids[int(split.observed[name].argmax())]
            raise DataError(
                f"expected clips that miss '{name}', '{stranger}' has it: hide it or take other rows"
            )


@dataclass(frozen=True)
class PatternBounds:
    """The exact posterior's figures where ``observed`` is seen and the rest is hidden."""

    observed: tuple[str, ...]
    accuracy2: float
    """Share of right signs, over clips with a label other than 0."""
    accuracy7: float
    """Share of right degrees."""
    mae: float
    """Mean absolute error of the posterior median degree."""
    polarity_explained: float
    """Share of the variance of the label that its posterior mean explains."""
    strength_explained: float
    """Share of the variance of the label's absolute value that its posterior mean explains."""
    nmse: dict[str, float]
    """Hidden modality to the normalised squared error of its posterior mean; predicting the mean gives 1."""


def every_pattern(simulator: AffectSimulator) -> list[tuple[str, ...]]:
    """All non-empty sets of observed modalities, the smallest first."""
    names = simulator.names
    return [observed for size in range(1, len(names) + 1) for observed in combinations(names, size)]


def measure_bounds(simulator: AffectSimulator, split: Split) -> list[PatternBounds]:
    """Measures the exact posterior on complete clips, one entry a pattern.

    Raises:
        DataError: if the clips have no labels or miss something.
    """
    if split.labels is None or not split.mask().all():
        raise DataError(
            "expected complete clips with labels: give a split as AffectSimulator.sample makes it"
        )
    truth = split.labels.values
    return [_pattern(simulator, split, truth, observed) for observed in every_pattern(simulator)]


def _pattern(
    simulator: AffectSimulator, split: Split, truth: Float64Array, observed: Sequence[str]
) -> PatternBounds:
    missing = np.array([name not in observed for name in split.names])
    hidden = split.hide(np.tile(missing, (len(split), 1)))
    probabilities = content_posterior(simulator, hidden).degree_probabilities()
    positive = probabilities[:, DEGREES > 0].sum(axis=1) > probabilities[:, DEGREES < 0].sum(axis=1)
    signed = truth != 0
    median = DEGREES[(np.cumsum(probabilities, axis=1) < 0.5).sum(axis=1)]
    return PatternBounds(
        observed=tuple(observed),
        accuracy2=float((positive == (truth > 0))[signed].mean()),
        accuracy7=float((DEGREES[probabilities.argmax(axis=1)] == truth).mean()),
        mae=float(np.abs(median - truth).mean()),
        polarity_explained=_explained(probabilities @ DEGREES, truth),
        strength_explained=_explained(probabilities @ np.abs(DEGREES), np.abs(truth)),
        nmse={
            name: normalised_squared_error(
                simulator, name, posterior_mean(simulator, hidden, name), split.arrays[name]
            )
            for name in split.names
            if name not in observed
        },
    )


def normalised_squared_error(
    simulator: AffectSimulator,
    modality: str,
    estimate: Float64Array,
    truth: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
) -> float:
    """Squared error over squared deviation from the mean, on features standardised by their exact moments.

    Args:
        simulator: which made the clips, for the moments.
        modality: whose features these are.
        estimate: (samples, features).
        truth: (samples, features).
    """
    mean, sd = simulator.moments[modality]
    varies = sd > 0
    error = ((estimate - truth)[:, varies] / sd[varies]) ** 2
    deviation = ((truth - mean)[:, varies] / sd[varies]) ** 2
    return float(error.sum() / deviation.sum())


def _explained(estimate: Float64Array, truth: Float64Array) -> float:
    return float(1 - ((estimate - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
