"""Details, which voice and face show and words never tell, and posteriors under another prior."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.errors import ConfigError, DataError
from omg_graph.simulator import (
    AffectSimulator,
    ChannelGains,
    Embed,
    SimulatorConfig,
    content_posterior,
    missing_mixture,
)
from omg_graph.simulator.channels import factor_count
from omg_graph.simulator.content import enumerate_contents


def gains(**changes: float) -> ChannelGains:
    quiet = dict.fromkeys(ChannelGains.model_fields, 0.3)
    return ChannelGains(**(quiet | {"noise": 1.0} | changes))


@pytest.fixture(scope="module")
def detailed(hashed_embed: Embed) -> AffectSimulator:
    config = SimulatorConfig(
        entities=("story", "music"),
        actions=("praises", "criticises"),
        details=4,
        audio_features=3,
        vision_features=2,
        audio=gains(detail=0.6),
        vision=gains(detail=1.0, polarity=0.8),
    )
    return AffectSimulator(config, hashed_embed)


def show(split: Split, *observed: str) -> Split:
    missing = np.array([name not in observed for name in split.names])
    return split.hide(np.tile(missing, (len(split), 1)))


def only(simulator: AffectSimulator, *details: int) -> np.ndarray:
    wanted = np.array([item.detail in details for item in simulator.contents.items])
    prior = np.where(wanted, simulator.contents.prior, 0.0)
    return np.asarray(prior / prior.sum())


def test_details_multiply_the_contents_and_change_nothing_else_about_them() -> None:
    plain, detailed = enumerate_contents(), enumerate_contents(details=3)
    assert len(detailed) == 3 * len(plain)
    np.testing.assert_allclose(detailed.prior.reshape(-1, 3).sum(axis=1), plain.prior)
    np.testing.assert_allclose(detailed.prior @ detailed.detail_indicator, 1 / 3)
    assert plain.detail_indicator.shape == (len(plain), 0)
    assert {item.detail for item in plain.items} == {None}


def test_words_tell_no_detail_and_voice_does(detailed: AffectSimulator) -> None:
    drawn = detailed.sample(20, 5, seed=0)
    told = content_posterior(detailed, show(drawn.split, "text")).weights
    np.testing.assert_allclose(told @ detailed.contents.detail_indicator, 1 / 4)
    heard = content_posterior(detailed, show(drawn.split, "audio")).weights
    truth = detailed.contents.detail_indicator[drawn.contents].argmax(axis=1)
    found = (heard @ detailed.contents.detail_indicator).argmax(axis=1)
    assert (found == truth).mean() > 0.4


def test_moments_are_those_of_the_features_details_included(detailed: AffectSimulator) -> None:
    channel, prior = detailed.channels["vision"], detailed.contents.prior
    mean = prior @ channel.content_means
    np.testing.assert_allclose(mean, channel.mean)
    variance = (
        prior @ (channel.content_means - mean) ** 2
        + (channel.speaker_loadings**2).sum(axis=1)
        + (channel.recording_loadings**2).sum(axis=1)
        + channel.noise_sd**2
    )
    np.testing.assert_allclose(np.sqrt(variance), channel.sd)


def test_another_prior_decides_what_is_drawn_and_leaves_the_rest_of_a_clip_alone(
    detailed: AffectSimulator,
) -> None:
    prior = only(detailed, 1, 2)
    drawn = detailed.sample(30, 5, seed=3, prior=prior)
    assert {detailed.content(k).detail for k in drawn.contents.tolist()} == {1, 2}
    free = detailed.sample(30, 5, seed=3)
    same = free.contents == drawn.contents
    assert 0 < same.sum() < len(same)
    np.testing.assert_allclose(drawn.split.arrays["audio"][same], free.split.arrays["audio"][same], rtol=1e-6)
    np.testing.assert_array_equal(
        detailed.sample(2, 2, seed=3, prior=detailed.contents.prior).split.arrays["vision"],
        detailed.sample(2, 2, seed=3).split.arrays["vision"],
    )


def test_a_prior_that_is_none_is_refused(detailed: AffectSimulator) -> None:
    with pytest.raises(ConfigError, match="a prior over 48 contents that sums to 1"):
        detailed.sample(1, 1, seed=0, prior=detailed.contents.prior * 2)
    with pytest.raises(ConfigError, match="of shape"):
        detailed.sample(1, 1, seed=0, prior=np.ones(1))


def test_a_prior_for_each_clip_rules_contents_out(detailed: AffectSimulator) -> None:
    drawn = detailed.sample(3, 4, seed=1)
    split = show(drawn.split, "audio")
    degree = detailed.contents.degree[drawn.contents]
    told = np.where(detailed.contents.degree[None, :] == degree[:, None], detailed.contents.prior, 0.0)
    weights = content_posterior(detailed, split, told).weights
    free = content_posterior(detailed, split).weights
    assert (weights[told == 0] == 0).all()
    kept = np.where(told > 0, free, 0.0)
    np.testing.assert_allclose(weights, kept / kept.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_array_equal(missing_mixture(detailed, split, "vision", prior=told).weights, weights)


def test_a_clip_that_the_prior_rules_out_is_refused(detailed: AffectSimulator) -> None:
    drawn = detailed.sample(4, 5, seed=1)
    sentence = drawn.sentences[0]
    impossible = np.where(detailed.sentences.probabilities[:, sentence] > 0, 0.0, 1.0)
    with pytest.raises(DataError, match=r"'synthetic-0000\$_\$0' is impossible under the prior"):
        content_posterior(detailed, show(drawn.split.take([0]), "text"), impossible)


def test_the_posterior_with_details_agrees_with_importance_sampling(detailed: AffectSimulator) -> None:
    """All drawn from a prior of two details, and weighed by how well it fits the voice."""
    prior = only(detailed, 0, 3)
    split = show(detailed.sample(1, 3, seed=2, prior=prior).split, "audio")
    exact = missing_mixture(detailed, split, "vision", prior=prior)
    rng = np.random.default_rng(0)
    draws = 200_000
    content = rng.choice(len(prior), size=draws, p=prior)
    speaker, recording = rng.standard_normal((2, draws, factor_count(detailed.config)))
    expected = {
        name: channel.content_means[content]
        + speaker @ channel.speaker_loadings.T
        + recording @ channel.recording_loadings.T
        for name, channel in detailed.channels.items()
    }
    audio, vision = detailed.channels["audio"], detailed.channels["vision"]
    for row in range(3):
        scaled = (split.arrays["audio"][row] - expected["audio"]) / audio.noise_sd
        weight = np.exp(-0.5 * (scaled**2).sum(axis=1))
        weight /= weight.sum()
        effective = 1 / (weight**2).sum()
        assert effective > 500
        found = np.bincount(content, weights=weight, minlength=len(prior))
        assert np.abs(found - exact.weights[row]).max() < 4 * 0.5 / np.sqrt(effective)
        deviation = np.sqrt(exact.variance()[row] / effective)
        assert (np.abs(weight @ expected["vision"] - exact.mean()[row]) < 5 * deviation).all()
        spread = weight @ (expected["vision"] - exact.mean()[row]) ** 2 + vision.noise_sd**2
        np.testing.assert_allclose(spread, exact.variance()[row], rtol=8 / np.sqrt(effective))


def test_the_posterior_mean_agrees_with_a_grid_where_one_feature_is_seen_and_one_is_missing(
    hashed_embed: Embed,
) -> None:
    """Brute force: p(vision | audio) on a grid, by the density of both under every content."""
    config = SimulatorConfig(
        entities=("story",),
        actions=("praises", "criticises"),
        details=2,
        audio_features=1,
        vision_features=1,
        audio=gains(detail=1.0),
        vision=gains(detail=1.0, polarity=1.0),
    )
    simulator = AffectSimulator(config, hashed_embed)
    split = show(simulator.sample(2, 2, seed=5).split, "audio")
    exact = missing_mixture(simulator, split, "vision")
    audio, vision = simulator.channels["audio"], simulator.channels["vision"]
    loadings = np.concatenate(
        [
            np.concatenate([audio.speaker_loadings, vision.speaker_loadings]),
            np.concatenate([audio.recording_loadings, vision.recording_loadings]),
        ],
        axis=1,
    )
    covariance = loadings @ loadings.T + np.diag([audio.noise_sd[0] ** 2, vision.noise_sd[0] ** 2])
    precision = np.linalg.inv(covariance)
    grid = np.linspace(vision.mean[0] - 8 * vision.sd[0], vision.mean[0] + 8 * vision.sd[0], 4001)
    for row in range(len(split)):
        density = np.zeros(len(grid))
        for k, p in enumerate(simulator.contents.prior):
            away = np.stack(
                [
                    np.full(len(grid), split.arrays["audio"][row, 0] - audio.content_means[k, 0]),
                    grid - vision.content_means[k, 0],
                ]
            )
            density += p * np.exp(-0.5 * np.einsum("ig,ij,jg->g", away, precision, away))
        density /= density.sum()
        mean = density @ grid
        np.testing.assert_allclose(exact.mean()[row, 0], mean, rtol=1e-6)
        np.testing.assert_allclose(exact.variance()[row, 0], density @ (grid - mean) ** 2, rtol=1e-5)
