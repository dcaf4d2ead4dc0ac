from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from omg_graph.bench.study import measuring
from omg_graph.bench.study.exact import exact_posterior
from omg_graph.bench.study.measuring import Answer, Seen
from omg_graph.bench.study.world import World
from omg_graph.data.reader import read_data_file
from omg_graph.metrics.features import energy_scores
from omg_graph.model.model import Model
from omg_graph.simulator import DEGREES


@pytest.fixture(scope="module")
def seen(model: Model, tiny_data_file: Path) -> Seen:
    clips = read_data_file(tiny_data_file).splits["test"]
    return measuring.look(model, measuring.show(clips, ("text", "audio")))


def test_only_the_target_is_missing(seen: Seen) -> None:
    np.testing.assert_array_equal(seen.split.mask(), [[True, True, False]] * len(seen.split))
    assert all(seen.entries)


def test_the_nearest_entry_is_copied_with_its_label(model: Model, seen: Seen) -> None:
    copied = measuring.nearest_entry(model, seen)
    kb = model.knowledge_base
    for row, entries in enumerate(seen.entries):
        index = model.knowledge_base.row_of[entries[0].id]
        assert index is not None
        value = model.latent_space.decode("vision", _tensor(kb.values["vision"][index][None]))[0]
        np.testing.assert_allclose(copied.mean[row], value, rtol=1e-5)
        np.testing.assert_allclose(copied.draws[row], np.tile(value, (2, 1)), rtol=1e-5)
        assert kb.labels is not None
        assert DEGREES[copied.degrees[row].argmax()] == float(kb.labels[index] or "nan")
        assert copied.degrees[row].sum() == pytest.approx(1.0)


def test_evidence_alone_is_what_the_executor_is_given(model: Model, seen: Seen) -> None:
    alone = measuring.evidence_alone(model, seen)
    decoded = model.latent_space.decode("vision", _tensor(seen.evidence["vision"]))
    np.testing.assert_allclose(alone.mean, decoded, rtol=1e-4, atol=1e-5)
    assert alone.draws.shape[1] == model.config.retrieval.top_k
    np.testing.assert_allclose(alone.degrees.sum(axis=1), 1.0)


def test_whatever_is_missing_beside_the_target_has_its_evidence_too(
    model: Model, tiny_data_file: Path
) -> None:
    clips = read_data_file(tiny_data_file).splits["test"]
    seen = measuring.look(model, measuring.show(clips, ("audio",)))
    assert set(seen.evidence) == {"text", "vision"}
    assert set(seen.take(np.array([0])).evidence) == {"text", "vision"}


def test_a_part_of_the_clips_gets_the_same_answers(model: Model, seen: Seen) -> None:
    whole = measuring.answer(model, seen, draws=2)
    rows = np.array([1, 3])
    part = measuring.answer(model, seen.take(rows), draws=2)
    np.testing.assert_allclose(part.mean, whole.mean[rows], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(part.draws, whole.draws[rows], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(part.degrees, whole.degrees[rows], rtol=1e-4)


def test_other_evidence_changes_the_answer_and_the_same_doesnt(model: Model, seen: Seen) -> None:
    own = measuring.answer(model, seen, draws=1)
    same = measuring.answer(model, seen, plans=seen.plans, evidence=seen.evidence, draws=1)
    np.testing.assert_array_equal(own.draws, same.draws)
    shifted = {name: vectors + 5.0 for name, vectors in seen.evidence.items()}
    other = measuring.answer(model, seen, evidence=shifted, draws=1)
    assert (other.draws != own.draws).any(axis=(1, 2)).all()


def test_a_plan_is_right_field_by_field() -> None:
    truth = [("story", "praises", "positive"), ("music", "criticises", "negative")]
    plans = [("story", "praises", "negative"), ("something", "criticises", "negative")]
    np.testing.assert_array_equal(measuring.plan_hits(plans, truth), [[1, 1, 0], [0, 1, 1]])


def test_a_point_estimate_as_a_draw_scores_its_distance(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    exact = exact_posterior(world, measuring.show(world.test, ("audio",)))
    answered = measuring.mean_as_draw(measuring.exact_answer(exact, 3))
    mean, sd = world.simulator.moments["vision"]
    truth = (world.test.arrays["vision"] - mean) / sd
    distance = np.linalg.norm((answered.mean - mean) / sd - truth, axis=1)
    found = measuring.scores(world, answered, exact)
    np.testing.assert_allclose(found.energy, distance)
    np.testing.assert_allclose(found.squared_error, distance**2)
    np.testing.assert_allclose(energy_scores((answered.draws - mean) / sd, truth), distance)


def test_the_most_probable_degree_and_sign_are_the_best_guess(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    exact = exact_posterior(world, measuring.show(world.test, ("text", "audio")))
    best = measuring.scores(world, measuring.exact_answer(exact, 2), exact)
    np.testing.assert_allclose(best.degree_accuracy, exact.degrees.max(axis=1))
    # a clip that is neutral for sure has no sign to get right
    signed = exact.degrees[:, DEGREES != 0].sum(axis=1) > 1e-9
    assert (best.sign_accuracy[signed] >= 0.5).all()
    assert (best.sign_accuracy[~signed] < 1e-9).all()
    worst = Answer(exact.mixture.mean(), exact.mixture.sample(2, 0), 1 - exact.degrees)
    found = measuring.scores(world, worst, exact)
    np.testing.assert_allclose(found.degree_accuracy, exact.degrees.min(axis=1))
    assert (found.sign_accuracy <= 0.5 + 1e-9).all()


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
