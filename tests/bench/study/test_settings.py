from __future__ import annotations

import numpy as np
import pytest

from omg_graph.bench.study.settings import SETTINGS, TARGET, TRAINING, settings_named
from omg_graph.bench.study.world import World
from omg_graph.errors import ConfigError
from omg_graph.simulator import Content
from omg_graph.simulator.content import enumerate_contents
from omg_graph.training.config import TrainingConfig, load_config


def said(world: World, split_contents: np.ndarray) -> set[Content]:
    return {world.simulator.content(k) for k in split_contents.tolist()}


@pytest.mark.parametrize("name", ["modes", "rare-details", "compositions"])
def test_the_target_is_never_observed_and_speakers_are_in_one_split_only(
    worlds: dict[str, World], name: str
) -> None:
    world = worlds[name]
    assert all(TARGET not in pattern and pattern for pattern in world.setting.patterns)
    assert world.train is not None
    splits = [split for split in (world.train, world.valid, world.later, world.test) if split is not None]
    groups = [group for split in splits for group in set(split.groups)]
    assert len(groups) == len(set(groups))


@pytest.mark.parametrize("name", ["modes", "rare-details", "compositions"])
def test_test_clips_are_the_worlds_own_and_training_clips_lack_what_is_unseen(
    worlds: dict[str, World], name: str
) -> None:
    world = worlds[name]
    speakers = world.setting.speakers
    before = sum(count for split, count in speakers.items() if split != "test")
    own = world.simulator.sample(speakers["test"], world.setting.clips, 0, name="test", first_group=before)
    assert own.split.ids == world.test.ids
    np.testing.assert_array_equal(own.contents, world.contents)
    unseen = world.setting.unseen_contents(world.simulator.contents.items)
    np.testing.assert_array_equal(world.unseen, unseen[world.contents])
    assert not unseen[world.trained].any()
    assert world.unseen.any() == (name != "modes")


def test_unseen_contents_are_a_share_of_the_world_that_can_be_measured() -> None:
    """A third of the details, and about a quarter of the combinations."""
    shares = {}
    for name in ("rare-details", "compositions"):
        config = SETTINGS[name].simulator
        contents = enumerate_contents(config.entities, config.actions, config.details)
        shares[name] = float(contents.prior[SETTINGS[name].unseen_contents(contents.items)].sum())
    assert shares == pytest.approx({"rare-details": 1 / 3, "compositions": 0.25}, abs=0.06)


def test_psi_and_the_planner_train_as_long_as_they_do_elsewhere() -> None:
    config, default = load_config(None, dict(TRAINING)), TrainingConfig()
    assert config.encoder.epochs == default.encoder.epochs
    assert config.planner.epochs == default.planner.epochs


def test_rare_details_reach_the_knowledge_base_and_nothing_before_it(worlds: dict[str, World]) -> None:
    world = worlds["rare-details"]
    assert world.later is not None
    assert world.train is not None
    contents = world.simulator.contents
    unseen = world.setting.unseen_contents(contents.items)
    channel = world.simulator.channels[TARGET]
    # the noise of one clip is far below what tells details apart: the nearest content is the one it has
    means, noise = channel.content_means, np.sqrt(channel.noise_sd**2 + (channel.speaker_loadings**2).sum(1))
    for split, wanted in ((world.train, False), (world.later, True)):
        away = ((split.arrays[TARGET][:, None] - means[None]) / noise) ** 2
        found = unseen[away.sum(axis=2).argmin(axis=1)]
        assert (found == wanted).mean() > 0.9


def test_every_part_of_a_new_combination_is_known(worlds: dict[str, World]) -> None:
    world = worlds["compositions"]
    assert world.later is None
    items = world.simulator.contents.items
    unseen = world.setting.unseen_contents(items)
    known = [item for item, new in zip(items, unseen, strict=True) if not new]
    for item in (item for item, new in zip(items, unseen, strict=True) if new):
        assert any((other.entity, other.degree) == (item.entity, item.degree) for other in known)
        assert any((other.action, other.degree) == (item.action, item.degree) for other in known)
        assert not any((other.entity, other.action) == (item.entity, item.action) for other in known)


def test_settings_go_by_name() -> None:
    assert [setting.name for setting in settings_named(())] == list(SETTINGS)
    assert [setting.name for setting in settings_named(("compositions",))] == ["compositions"]
    with pytest.raises(
        ConfigError, match="--only takes modes, rare-details, compositions, embedded; 'all' came"
    ):
        settings_named(("all",))
