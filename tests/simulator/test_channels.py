from __future__ import annotations

import numpy as np
import pytest

from omg_graph.errors import ConfigError
from omg_graph.simulator import AffectSimulator, SimulatorConfig
from omg_graph.simulator.channels import build_channels
from omg_graph.simulator.content import enumerate_contents


def test_features_are_named_and_counted(simulator: AffectSimulator) -> None:
    assert {name: len(features) for name, features in simulator.feature_names.items()} == {
        "audio": 74,
        "vision": 35,
    }
    for name, features in simulator.feature_names.items():
        assert len(set(features)) == len(features) == len(simulator.feature_units[name])
    assert "AU12 lip corner puller" in simulator.feature_names["vision"]


@pytest.mark.parametrize("name", ["audio", "vision"])
def test_the_stated_moments_follow_from_the_parameters(simulator: AffectSimulator, name: str) -> None:
    channel, prior = simulator.channels[name], simulator.contents.prior
    mean = prior @ channel.content_means
    variance = (
        prior @ (channel.content_means - mean) ** 2
        + (channel.speaker_loadings**2).sum(axis=1)
        + (channel.recording_loadings**2).sum(axis=1)
        + channel.noise_sd**2
    )
    np.testing.assert_allclose(mean, channel.mean, atol=1e-12)
    np.testing.assert_allclose(np.sqrt(variance), channel.sd)


def test_smiles_go_with_praise_and_a_wide_pitch_with_strength(simulator: AffectSimulator) -> None:
    degree = simulator.contents.degree

    def effect(channel: str, feature: str) -> np.ndarray:
        part = simulator.channels[channel]
        column = part.names.index(feature)
        return np.array([part.content_means[degree == d, column].mean() for d in range(-3, 4)])

    assert (np.diff(effect("vision", "AU12 lip corner puller")) > 0).all()
    assert (np.diff(effect("vision", "AU04 brow lowerer")) < 0).all()
    pitch = effect("audio", "pitch range")
    assert pitch[0] > pitch[3] < pitch[6]


def test_voice_and_face_share_some_nuisance_but_not_all(simulator: AffectSimulator) -> None:
    audio, vision = simulator.channels["audio"], simulator.channels["vision"]
    used = [np.abs(channel.speaker_loadings).sum(axis=0) > 0 for channel in (audio, vision)]
    assert (used[0] & used[1]).any()
    assert (used[0] & ~used[1]).any()
    assert (~used[0] & used[1]).any()


def test_parameters_belong_to_the_seed() -> None:
    contents = enumerate_contents()
    first, again, other = (build_channels(SimulatorConfig(seed=seed), contents) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first["audio"].content_means, again["audio"].content_means)
    assert not np.allclose(first["audio"].speaker_loadings, other["audio"].speaker_loadings)


def test_more_features_than_there_are_names_for_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 35, got 36"):
        build_channels(SimulatorConfig(vision_features=36), enumerate_contents())
