"""The simulator itself: draws synthetic clips, each from random numbers of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import TEXT_MODALITY, FloatArray, IntArray, Labels, ModalitySpec, Split
from omg_graph.errors import ConfigError, DataError, EncoderError
from omg_graph.seeding import derived_seed
from omg_graph.simulator.channels import CHANNELS, Channel, build_channels, factor_count
from omg_graph.simulator.config import SimulatorConfig
from omg_graph.simulator.content import Content, Float64Array, enumerate_contents, enumerate_sentences

Embed = Callable[[list[str]], npt.NDArray[np.floating]]
"""Sentences to unit vectors, (sentences, width)."""

LABEL_NAME = "regression_labels"

PREFIX = "synthetic"
"""Default prefix of speakers' names; another one separates them from those of another data set."""


@dataclass(frozen=True)
class SimulatedSplit:
    """Synthetic clips with what each of them really says."""

    split: Split
    contents: IntArray
    """(samples,): rows of ``AffectSimulator.contents``."""
    sentences: IntArray
    """(samples,): rows of ``AffectSimulator.sentences``."""


class AffectSimulator:
    """A generator of synthetic affect clips whose posterior can be computed exactly.

    Made from a config and a text encoder; the parameters are the same wherever the config is.

    Attributes:
        config: what it was made from.
        contents: all contents with their prior.
        sentences: all sentences with p(sentence | content).
        channels: ``audio`` and ``vision``.
    """

    def __init__(self, config: SimulatorConfig, embed: Embed) -> None:
        self.config = config
        self.contents = enumerate_contents(config.entities, config.actions, config.details)
        self.sentences = enumerate_sentences(self.contents)
        self.channels: dict[str, Channel] = build_channels(config, self.contents)
        self._embed = embed

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities, in the order of the data."""
        return (TEXT_MODALITY, *CHANNELS)

    @property
    def feature_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the features of audio and vision; the text's embedding has none."""
        return {name: channel.names for name, channel in self.channels.items()}

    @property
    def feature_units(self) -> dict[str, tuple[str, ...]]:
        """Their units, ``1`` where there is none."""
        return {name: channel.units for name, channel in self.channels.items()}

    @cached_property
    def embeddings(self) -> Float64Array:
        """(sentences, width): every sentence's embedding, computed on first use.

        Raises:
            EncoderError: if the encoder doesn't give one finite unit vector per sentence, all different.
        """
        texts = list(self.sentences.texts)
        # Rounded as the samples are, so that a sample's text is found again exactly.
        vectors = np.asarray(self._embed(texts), dtype=np.float32).astype(np.float64)
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise EncoderError(
                f"expected one vector for each of {len(texts)} sentences, got an array of shape "
                f"{vectors.shape}: check the text encoder"
            )
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
            raise EncoderError("expected sentence vectors of length 1: normalise the text encoder's output")
        if len(np.unique(vectors.round(5), axis=0)) < len(vectors):
            raise EncoderError(
                "expected a different vector for each sentence, some are equal: use another text encoder"
            )
        return vectors

    @cached_property
    def moments(self) -> dict[str, tuple[Float64Array, Float64Array]]:
        """Exact mean and deviation of every modality's features over all clips, (features,) each."""
        marginal = self.contents.prior @ self.sentences.probabilities
        mean = marginal @ self.embeddings
        sd = np.sqrt(np.maximum(marginal @ (self.embeddings - mean) ** 2, 0.0))
        channels = {name: (channel.mean, channel.sd) for name, channel in self.channels.items()}
        return {TEXT_MODALITY: (mean, sd), **channels}

    def content(self, index: int) -> Content:
        """What row ``index`` of the contents says, in words."""
        return self.contents.items[index]

    def sample(
        self,
        groups: int,
        clips_per_group: int,
        seed: int,
        *,
        name: str = "train",
        first_group: int = 0,
        prior: Float64Array | None = None,
        prefix: str = PREFIX,
    ) -> SimulatedSplit:
        """Draws complete clips; every one depends on (seed, its id) and its speaker on (seed, group) alone.

        Args:
            groups: how many speakers.
            clips_per_group: clips of each speaker, ids ``<prefix>-<speaker>$_$<clip>``.
            seed: of the samples.
            name: of the split.
            first_group: number of the first speaker. Splits of one data set need different speakers.
            prior: another p(content) to draw from, (contents,), e.g. to leave some contents out of a split;
                the moments of the features stay those of the simulator's own prior.
            prefix: what the speakers' names begin with.

        Raises:
            ConfigError: if a number is out of range, or the prior is no distribution over the contents.
        """
        drawn_from = self.contents.prior if prior is None else prior
        if drawn_from.shape != self.contents.prior.shape or not np.isclose(drawn_from.sum(), 1.0):
            raise ConfigError(
                f"expected a prior over {len(self.contents)} contents that sums to 1, got one of shape "
                f"{drawn_from.shape} and sum {drawn_from.sum():g}: give a probability for each content"
            )
        if groups < 1 or clips_per_group < 1 or first_group < 0:
            raise ConfigError(
                "expected at least 1 group, 1 clip a group and a first_group of 0 or more, got "
                f"{groups}, {clips_per_group} and {first_group}: give larger numbers"
            )
        factors = factor_count(self.config)
        ids: list[str] = []
        speakers, chosen, recordings = [], [], []
        noise: dict[str, list[Float64Array]] = {channel: [] for channel in CHANNELS}
        for number in range(first_group, first_group + groups):
            group = f"{prefix}-{number:04d}"
            speaker = _rng(seed, "speaker", group).standard_normal(factors)
            for clip in range(clips_per_group):
                ids.append(f"{group}$_${clip}")
                rng = _rng(seed, "clip", ids[-1])
                chosen.append(rng.random(2))
                recordings.append(rng.standard_normal(factors))
                for channel in CHANNELS:
                    width = len(self.channels[channel].names)
                    noise[channel].append(rng.standard_normal(width))
                speakers.append(speaker)
        uniform = np.stack(chosen)
        contents = _inverse_cdf(drawn_from[None, :], uniform[:, 0])
        sentences = _inverse_cdf(self.sentences.probabilities[contents], uniform[:, 1])
        arrays: dict[str, FloatArray] = {TEXT_MODALITY: self.embeddings[sentences].astype(np.float32)}
        for channel, part in self.channels.items():
            values = (
                part.content_means[contents]
                + np.stack(speakers) @ part.speaker_loadings.T
                + np.stack(recordings) @ part.recording_loadings.T
                + part.noise_sd * np.stack(noise[channel])
            )
            arrays[channel] = values.astype(np.float32)
        split = Split(
            name=name,
            ids=tuple(ids),
            groups=tuple(sample_id.split("$_$")[0] for sample_id in ids),
            modalities=tuple(
                ModalitySpec(name=modality, kind="vector", shape=(arrays[modality].shape[1],))
                for modality in self.names
            ),
            arrays=arrays,
            observed={modality: np.ones(len(ids), dtype=np.bool_) for modality in self.names},
            raw_text=tuple(self.sentences.texts[i] for i in sentences),
            labels=Labels(LABEL_NAME, "regression", self.contents.degree[contents].astype(np.float64)),
        )
        return SimulatedSplit(split, contents, sentences)

    def corpus(
        self, groups: Mapping[str, int], clips_per_group: int, seed: int, *, prefix: str = PREFIX
    ) -> dict[str, SimulatedSplit]:
        """Several splits with different speakers, e.g. ``corpus({"train": 120, "valid": 20}, 10, 0)``."""
        splits: dict[str, SimulatedSplit] = {}
        first = 0
        for name, count in groups.items():
            splits[name] = self.sample(
                count, clips_per_group, seed, name=name, first_group=first, prefix=prefix
            )
            first += count
        return splits

    def sentence_indices(self, split: Split) -> IntArray:
        """(samples,): which sentence each row's text is, -1 where text is missing.

        Raises:
            DataError: if a text is none of the simulator's sentences, or the split has no text.
        """
        observed = split.observed.get(TEXT_MODALITY)
        if observed is None:
            raise DataError(f"expected a modality '{TEXT_MODALITY}': give clips of the simulator")
        indices = np.full(len(split), -1, dtype=np.int64)
        rows = np.flatnonzero(observed)
        if rows.size == 0:
            return indices
        similarity = split.arrays[TEXT_MODALITY][rows].astype(np.float64) @ self.embeddings.T
        best = similarity.argmax(axis=1)
        distance = np.abs(split.arrays[TEXT_MODALITY][rows] - self.embeddings[best]).max(axis=1)
        if (distance > 1e-5).any():
            stranger = split.ids[rows[int(distance.argmax())]]
            raise DataError(
                f"the text of '{stranger}' is none of the simulator's {len(self.sentences.texts)} sentences: "
                "give clips made by the same simulator and text encoder"
            )
        indices[rows] = best
        return indices


def _rng(*parts: str | int) -> np.random.Generator:
    return np.random.default_rng(derived_seed(*parts))


def _inverse_cdf(probabilities: Float64Array, uniform: Float64Array) -> IntArray:
    """One index a row from (rows or 1, outcomes), never one of probability zero."""
    cumulative = np.cumsum(probabilities, axis=1)
    target = uniform[:, None] * cumulative[:, -1:]
    return np.asarray((cumulative <= target).sum(axis=1), dtype=np.int64)
