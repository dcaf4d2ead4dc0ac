"""The exact posterior, and what it reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.errors import DataError
from omg_graph.simulator import (
    DEGREES,
    AffectSimulator,
    content_posterior,
    every_pattern,
    measure_bounds,
    missing_mixture,
    missing_sentences,
    normalised_squared_error,
    posterior_mean,
)
from omg_graph.simulator.channels import factor_count


def show(split: Split, *observed: str) -> Split:
    missing = np.array([name not in observed for name in split.names])
    return split.hide(np.tile(missing, (len(split), 1)))


def test_weights_sum_to_one_for_every_pattern(simulator: AffectSimulator) -> None:
    split = simulator.sample(5, 2, seed=0).split
    for observed in every_pattern(simulator):
        posterior = content_posterior(simulator, show(split, *observed))
        for table in (
            posterior.weights,
            posterior.degree_probabilities(),
        ):
            assert table.min() >= 0
            np.testing.assert_allclose(table.sum(axis=1), 1.0)
        np.testing.assert_allclose(posterior.expected_label(), posterior.weights @ simulator.contents.degree)


def test_with_nothing_observed_the_prior_and_the_marginal_come_back(simulator: AffectSimulator) -> None:
    split = show(simulator.sample(2, 1, seed=0).split)
    np.testing.assert_allclose(content_posterior(simulator, split).weights[0], simulator.contents.prior)
    for name, (mean, sd) in simulator.moments.items():
        np.testing.assert_allclose(posterior_mean(simulator, split, name)[1], mean, atol=1e-9)
        if name != "text":
            np.testing.assert_allclose(np.sqrt(missing_mixture(simulator, split, name).variance()[0]), sd)


def test_with_everything_observed_it_is_bayes_rule(small_simulator: AffectSimulator) -> None:
    drawn = small_simulator.sample(6, 1, seed=1)
    weights = content_posterior(small_simulator, drawn.split).weights
    audio, vision = (small_simulator.channels[name] for name in ("audio", "vision"))
    speaker = np.concatenate([audio.speaker_loadings, vision.speaker_loadings])
    recording = np.concatenate([audio.recording_loadings, vision.recording_loadings])
    noise = np.concatenate([audio.noise_sd, vision.noise_sd])
    covariance = speaker @ speaker.T + recording @ recording.T + np.diag(noise**2)
    means = np.concatenate([audio.content_means, vision.content_means], axis=1)
    for row, sentence in enumerate(drawn.sentences):
        x = np.concatenate([drawn.split.arrays["audio"][row], drawn.split.arrays["vision"][row]])
        scores = np.array([-0.5 * (x - m) @ np.linalg.inv(covariance) @ (x - m) for m in means])
        joint = (
            small_simulator.contents.prior
            * small_simulator.sentences.probabilities[:, sentence]
            * np.exp(scores)
        )
        np.testing.assert_allclose(weights[row], joint / joint.sum(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("with_text", [True, False])
def test_it_agrees_with_monte_carlo_over_speakers_and_recordings(
    small_simulator: AffectSimulator, with_text: bool
) -> None:
    split = small_simulator.sample(1, 3, seed=2).split
    split = show(split, *(("text", "audio") if with_text else ("audio",)))
    posterior = content_posterior(small_simulator, split).weights
    mean = posterior_mean(small_simulator, split, "vision")
    variance = missing_mixture(small_simulator, split, "vision").variance()

    rng = np.random.default_rng(0)
    draws, prior = 200_000, small_simulator.contents.prior
    content = rng.choice(len(prior), size=draws, p=prior)
    speaker, recording = rng.standard_normal((2, draws, factor_count(small_simulator.config)))
    expected = {
        name: channel.content_means[content]
        + speaker @ channel.speaker_loadings.T
        + recording @ channel.recording_loadings.T
        for name, channel in small_simulator.channels.items()
    }
    sentences = small_simulator.sentence_indices(split)
    for row in range(3):
        scaled = (split.arrays["audio"][row] - expected["audio"]) / small_simulator.channels["audio"].noise_sd
        likelihood = np.exp(-0.5 * (scaled**2).sum(axis=1))
        if with_text:
            likelihood *= small_simulator.sentences.probabilities[content, sentences[row]]
        weight = likelihood / likelihood.sum()
        effective = 1 / (weight**2).sum()
        assert effective > 500
        found = np.bincount(content, weights=weight, minlength=len(prior))
        assert np.abs(found - posterior[row]).max() < 4 * 0.5 / np.sqrt(effective)
        error = np.abs(weight @ expected["vision"] - mean[row])
        assert (error < 5 * np.sqrt(variance[row] / effective)).all()
        spread = (
            weight @ (expected["vision"] - mean[row]) ** 2 + small_simulator.channels["vision"].noise_sd ** 2
        )
        np.testing.assert_allclose(spread, variance[row], rtol=8 / np.sqrt(effective))


def test_each_row_is_taken_alone_whatever_is_observed_beside_it(simulator: AffectSimulator) -> None:
    split = simulator.sample(7, 1, seed=3).split
    patterns = np.array(
        [[name not in observed for name in split.names] for observed in every_pattern(simulator)]
    )
    mixed = split.hide(patterns)
    together = content_posterior(simulator, mixed).weights
    for row in range(7):
        np.testing.assert_allclose(
            content_posterior(simulator, mixed.take([row])).weights[0], together[row], rtol=1e-6, atol=1e-12
        )
    rows = np.flatnonzero(~mixed.observed["audio"])
    mixture = missing_mixture(simulator, mixed.take(rows), "audio")
    draws = mixture.sample(2, seed=0)
    for place, row in enumerate(rows):
        alone = missing_mixture(simulator, mixed.take([row]), "audio")
        np.testing.assert_allclose(alone.mean()[0], mixture.mean()[place], rtol=1e-6)
        np.testing.assert_allclose(alone.sample(3, seed=0)[0, :2], draws[place], rtol=1e-6)


def test_the_posterior_does_not_depend_on_hidden_values(simulator: AffectSimulator) -> None:
    split = show(simulator.sample(3, 1, seed=4).split, "text", "vision")
    other = replace(split, arrays={**split.arrays, "audio": split.arrays["audio"] + 5})
    np.testing.assert_array_equal(
        posterior_mean(simulator, split, "audio"), posterior_mean(simulator, other, "audio")
    )


def test_both_channels_together_have_the_marginals_of_each(simulator: AffectSimulator) -> None:
    split = show(simulator.sample(4, 1, seed=5).split, "text")
    joint = missing_mixture(simulator, split, "vision", "audio")
    vision, audio = (missing_mixture(simulator, split, name) for name in ("vision", "audio"))
    np.testing.assert_allclose(joint.mean(), np.concatenate([vision.mean(), audio.mean()], axis=1))
    np.testing.assert_allclose(
        joint.variance(), np.concatenate([vision.variance(), audio.variance()], axis=1)
    )
    assert np.abs(joint.covariance(0)[:35, 35:]).max() > 0


def test_draws_follow_the_mixture(small_simulator: AffectSimulator) -> None:
    split = show(small_simulator.sample(1, 1, seed=6).split, "audio")
    mixture = missing_mixture(small_simulator, split, "vision")
    draws = mixture.sample(4000, seed=0)[0]
    sd = np.sqrt(mixture.variance()[0])
    assert (np.abs(draws.mean(axis=0) - mixture.mean()[0]) < 4.5 * sd / np.sqrt(4000)).all()
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.08)
    sentences = missing_sentences(small_simulator, split)
    drawn = small_simulator.embeddings[sentences.sample(4000, seed=0)[0]].mean(axis=0)
    np.testing.assert_allclose(drawn, sentences.mean()[0], atol=0.01)


def test_the_truth_is_exchangeable_with_draws(simulator: AffectSimulator) -> None:
    split = simulator.sample(300, 1, seed=7).split
    draws = missing_mixture(simulator, show(split, "text", "audio"), "vision").sample(19, seed=0)
    truth = split.arrays["vision"]
    inside = (truth > draws.min(axis=1)) & (truth < draws.max(axis=1))
    assert inside.mean() == pytest.approx(18 / 20, abs=0.02)


@pytest.mark.parametrize("observed", [("text",), ("audio",), ("vision",), ("audio", "vision")])
def test_probabilities_are_calibrated(simulator: AffectSimulator, observed: tuple[str, ...]) -> None:
    drawn = simulator.sample(3000, 1, seed=8)
    assert drawn.split.labels is not None
    probabilities = content_posterior(simulator, show(drawn.split, *observed)).degree_probabilities()
    happened = drawn.split.labels.values[:, None] == DEGREES
    for low in np.arange(0, 1, 0.1):
        chosen = (probabilities >= low) & (probabilities < low + 0.1)
        p = probabilities[chosen]
        deviation = np.sqrt((p * (1 - p)).sum())
        assert abs(happened[chosen].sum() - p.sum()) < 4.5 * deviation + 1


@pytest.mark.parametrize("target", ["audio", "vision"])
def test_no_ridge_regression_beats_the_posterior_mean(simulator: AffectSimulator, target: str) -> None:
    other = "vision" if target == "audio" else "audio"
    splits = simulator.corpus({"train": 3000, "test": 1000}, 1, seed=9)
    train, test = splits["train"].split, splits["test"].split
    inputs = []
    for split in (train, test):
        mean, sd = simulator.moments[other]
        features = [np.ones((len(split), 1)), split.arrays["text"] * 20, (split.arrays[other] - mean) / sd]
        inputs.append(np.concatenate(features, axis=1))
    x, x_test = inputs
    exact = posterior_mean(simulator, show(test, "text", other), target)
    best = normalised_squared_error(simulator, target, exact, test.arrays[target])
    for strength in (100.0, 1000.0):
        gram = x.T @ x + strength * np.eye(x.shape[1])
        solution = np.linalg.solve(gram, x.T @ (train.arrays[target] - simulator.moments[target][0]))
        ridge = x_test @ solution + simulator.moments[target][0]
        assert best < normalised_squared_error(simulator, target, ridge, test.arrays[target])
    assert 0.4 < best < 0.75


def test_what_is_observed_cannot_be_reconstructed(simulator: AffectSimulator) -> None:
    split = show(simulator.sample(1, 2, seed=0).split, "text", "audio")
    with pytest.raises(DataError, match="that miss 'audio', 'synthetic-0000"):
        missing_mixture(simulator, split, "audio")
    with pytest.raises(DataError, match="that miss 'text'"):
        missing_sentences(simulator, split)
    with pytest.raises(DataError, match="use missing_sentences for text"):
        missing_mixture(simulator, split, "text")


def test_clips_of_another_kind_are_refused(
    simulator: AffectSimulator, small_simulator: AffectSimulator
) -> None:
    split = small_simulator.sample(1, 1, seed=0).split
    with pytest.raises(DataError, match="expected 'audio' with 74 features"):
        content_posterior(simulator, split)
    with pytest.raises(DataError, match="expected the simulator's modalities text, audio, vision"):
        content_posterior(simulator, replace(split, modalities=split.modalities[:2]))


def test_more_is_never_worse_and_each_modality_tells_its_part(simulator: AffectSimulator) -> None:
    split = simulator.sample(1500, 1, seed=0).split
    found = {bounds.observed: bounds for bounds in measure_bounds(simulator, split)}
    assert len(found) == 7
    text, audio, vision = found[("text",)], found[("audio",)], found[("vision",)]
    everything = found[("text", "audio", "vision")]
    assert text.accuracy2 == pytest.approx(0.86, abs=0.04)
    assert audio.strength_explained > vision.strength_explained
    assert vision.polarity_explained > audio.polarity_explained
    assert all(everything.accuracy2 > bounds.accuracy2 - 0.01 for bounds in found.values())
    assert everything.mae < min(text.mae, audio.mae, vision.mae)
    assert everything.nmse == {}
    for name, other in (("audio", "vision"), ("vision", "audio")):
        both, alone = found[("text", other) if other == "audio" else ("text", "vision")], found[(other,)]
        assert 0.4 < both.nmse[name] < alone.nmse[name] < 0.8
    assert all(error < 1 for bounds in found.values() for error in bounds.nmse.values())


def test_predicting_the_mean_has_error_one(simulator: AffectSimulator) -> None:
    truth = simulator.sample(3, 1, seed=0).split.arrays["audio"]
    constant = np.tile(simulator.moments["audio"][0], (3, 1))
    assert normalised_squared_error(simulator, "audio", constant, truth) == pytest.approx(1.0)
    assert normalised_squared_error(simulator, "audio", truth.astype(np.float64), truth) == 0.0


def test_incomplete_clips_are_refused(simulator: AffectSimulator) -> None:
    split = simulator.sample(1, 2, seed=0).split
    with pytest.raises(DataError, match="complete clips with labels"):
        measure_bounds(simulator, split.without_labels())
    with pytest.raises(DataError, match="complete clips with labels"):
        measure_bounds(simulator, split.hide(np.array([[True, False, False], [False, False, False]])))
