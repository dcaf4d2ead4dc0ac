from __future__ import annotations

import numpy as np
import pytest

from omg_graph.errors import ConfigError
from omg_graph.simulator import Content
from omg_graph.study.settings import SETTINGS, TARGET, settings_named
from omg_graph.study.world import World


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


@pytest.mark.parametrize("name", ["rare-details", "compositions"])
def test_a_share_of_the_test_clips_says_what_no_training_clip_can(
    worlds: dict[str, World], name: str
) -> None:
    world = worlds[name]
    unseen = world.setting.unseen_contents(world.simulator.contents.items)
    assert 0.2 < world.unseen.mean() < 0.8
    np.testing.assert_allclose(world.test_prior[unseen].sum(), world.setting.unseen_share)
    np.testing.assert_array_equal(world.unseen, unseen[world.contents])


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
