"""Eq. 2 at inference: whole trajectories ranked by their utility."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.api import reconstruct
from omg_graph.executor.diffusion import DenoisingPath, chosen_paths, path_costs
from omg_graph.model.model import Model
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.state import Settings


def ranked(
    model: Model, data: Path, draws: int, store: MemoryArtifactStore | None = None
) -> list[Trajectory]:
    return reconstruct(
        model,
        data,
        split="test",
        missing=["audio"],
        limit=4,
        settings=Settings(select="utility", draws=draws, candidates=8),
        artifacts=store,
    )


@pytest.mark.parametrize("draws", [1, 3])
def test_the_winner_has_the_greatest_utility_and_the_record_adds_up(
    model: Model, tiny_data_file: Path, draws: int
) -> None:
    weights = model.config.utility
    rivals = 0
    for trajectory in ranked(model, tiny_data_file, draws):
        assert trajectory.selection is not None
        assert trajectory.plan is not None
        assert trajectory.utility is not None
        entries = trajectory.selection.ranked
        plans = {entry.plan for entry in entries}
        rivals += len(plans) - 1
        assert len(entries) == draws * len(plans)
        assert len({trajectory.plan.candidates[index].text for index in plans}) == len(plans)
        for entry in entries:
            assert entry.utility == pytest.approx(
                -weights.semantic * (entry.semantic or 0.0)
                - weights.evidence * (entry.evidence or 0.0)
                - weights.path * entry.path,
                abs=1e-6,
            )
        assert [entry.utility for entry in entries] == sorted((e.utility for e in entries), reverse=True)
        best = entries[0]
        assert trajectory.plan.chosen == best.plan
        assert trajectory.plan.text == trajectory.plan.candidates[best.plan].text
        assert trajectory.utility.path == pytest.approx(best.path, rel=1e-4)
        assert trajectory.utility.semantic == best.semantic
        # L_rec is known here, for the truth was hidden, and takes no part
        assert trajectory.utility.reconstruction is not None
        assert "L_rec left out" in trajectory.selection.note
    assert rivals > 0


def test_of_several_draws_the_winning_one_is_the_reconstruction(model: Model, tiny_data_file: Path) -> None:
    store = MemoryArtifactStore()
    later = 0
    for trajectory in ranked(model, tiny_data_file, 4, store):
        assert trajectory.selection is not None
        draw = trajectory.selection.ranked[0].draw
        later += draw > 0
        drawn = store.get(trajectory.arrays["draws/audio"])
        np.testing.assert_array_equal(store.get(trajectory.reconstruction["audio"]), drawn[draw])
        # the path that is kept is the winner's: it ends where the draw does
        costs = store.get(trajectory.arrays["path_costs"])
        assert costs[draw] == costs.min()
    assert later > 0


def test_of_one_draw_a_winner_is_what_its_plan_alone_would_give(model: Model, tiny_data_file: Path) -> None:
    """The rest of the batch is nothing to it, and a sample that misses nothing is left alone."""
    plain = reconstruct(
        model, tiny_data_file, split="test", missing=["audio"], limit=4, settings=Settings(candidates=8)
    )
    chosen = ranked(model, tiny_data_file, 1)
    for first, second in zip(plain, chosen, strict=True):
        assert first.plan is not None
        assert second.plan is not None
        if first.plan.chosen == second.plan.chosen:
            assert first.errors["audio"].nmse == pytest.approx(second.errors["audio"].nmse, rel=1e-4)
            assert second.plan.chosen_by == "rerank"
        else:
            assert second.plan.chosen_by == "utility"
    complete = reconstruct(model, tiny_data_file, split="test", limit=2, settings=Settings(select="utility"))
    assert all(trajectory.selection is None and not trajectory.missing for trajectory in complete)


def test_path_costs_by_hand() -> None:
    """Two modalities, two steps; the second sample misses only one of them."""
    one = DenoisingPath(clean=[torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [2.0, 0.0]])])
    two = DenoisingPath(clean=[torch.zeros(2, 1), torch.tensor([[3.0], [9.0]])])
    observed = torch.tensor([[False, False], [False, True]])
    np.testing.assert_allclose(path_costs({"a": one, "b": two}, observed), [(0.5 + 4.5) / 2, 1.0])


def test_better_paths_take_the_place_of_their_sample_s_alone() -> None:
    kept = {"a": DenoisingPath([0], [torch.zeros(2, 1)], [torch.zeros(2, 1)])}
    made = {"a": DenoisingPath([0], [torch.ones(2, 1)], [torch.ones(2, 1)])}
    mixed = chosen_paths(kept, made, torch.tensor([False, True]))["a"]
    assert mixed.states[0].tolist() == mixed.clean[0].tolist() == [[0.0], [1.0]]
