"""The runner against the graph that ``omg run`` uses: the same samples, the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omg_graph.api import reconstruct
from omg_graph.codecs.codec import Rows
from omg_graph.data.dataset import Labels, Split
from omg_graph.data.reader import read_data_file
from omg_graph.data.splits import conform
from omg_graph.evaluation.outcomes import Pairs
from omg_graph.evaluation.protocols import conditions_of
from omg_graph.evaluation.runner import ModelRunner
from omg_graph.evaluation.tables import LabelTarget, choose_target
from omg_graph.metrics.features import energy_scores
from omg_graph.metrics.labels import scores_of
from omg_graph.model.model import Model
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.state import Settings

MISSING = "audio"


@pytest.fixture(scope="module")
def split(tiny_data_file: Path, model: Model) -> Split:
    return conform(read_data_file(tiny_data_file).splits["test"], model.config.modalities, "clips")[0]


def test_the_runner_and_the_graph_agree(model: Model, split: Split) -> None:
    target = choose_target(model, split.labels, "auto")
    pairs = Pairs.of(conditions_of(split, "fixed", patterns=[["text", "vision"]]))
    run = ModelRunner(model, split, target, draws=4).run(pairs)
    made = run.outcomes
    store = MemoryArtifactStore()
    trajectories = reconstruct(model, split, missing=[MISSING], settings=Settings(draws=4), artifacts=store)
    assert split.labels is not None
    codec = model.latent_space.codecs[MISSING]
    labels = dict(zip(model.knowledge_base.ids, model.knowledge_base.labels or (), strict=True))
    for place, row in enumerate(pairs.rows):
        trajectory, truth = trajectories[row], split.labels.values[row]
        assert trajectory.id == split.ids[row]
        assert trajectory.prediction is not None
        assert made.value is not None
        assert made.value[place] == pytest.approx(trajectory.prediction.value, rel=1e-4)
        assert made.errors[MISSING].numerator[place] / made.errors[MISSING].denominator[
            place
        ] == pytest.approx(trajectory.errors[MISSING].nmse, rel=1e-4)
        assert made.evidence_cost is not None
        assert made.evidence_cost[place] == pytest.approx(trajectory.evidence_cost[MISSING], rel=1e-4)
        assert trajectory.plan is not None
        chosen = trajectory.plan.candidates[trajectory.plan.chosen]
        assert made.semantic_cost is not None
        assert made.semantic_cost[place] == pytest.approx(chosen.semantic_cost, rel=1e-4)
        agreeing = sum(
            entry.weight
            for entry in trajectory.evidence[MISSING]
            if np.sign(float(labels[entry.id] or "nan")) == np.sign(truth)
        )
        assert made.same_polarity is not None
        assert made.same_polarity[place] == pytest.approx(agreeing, abs=1e-4)
        drawn = store.get(trajectory.arrays[f"draws/{MISSING}"])
        scores = energy_scores(
            codec.standard(Rows(drawn))[None], codec.standard(Rows(split.arrays[MISSING][row : row + 1]))
        )
        assert made.energy[MISSING][place] == pytest.approx(scores[0], rel=1e-4)


def test_what_is_visible_has_no_error_and_no_evidence(model: Model, split: Split) -> None:
    pairs = Pairs.of(conditions_of(split, "fixed", patterns=[["text", "vision"]]))
    run = ModelRunner(model, split, choose_target(model, split.labels, "auto"), draws=0).run(pairs)
    for name in ("text", "vision"):
        assert not run.outcomes.errors[name].denominator.any()
        assert not run.evidence[name].any()
    assert run.outcomes.energy == {}
    assert run.evidence[MISSING].any(dim=1).all()


def test_classes_are_counted_in_the_models_order() -> None:
    target = LabelTarget("classes", names=("bee", "ant", "cat"))
    labels = Labels("label", "classes", np.array([0.0, 1.0, np.nan, 2.0]), ("ant", "bee", "wasp"))
    assert np.array_equal(target.numbers(labels), [1.0, 0.0, np.nan, np.nan], equal_nan=True)


def test_a_class_that_the_model_never_met_is_a_miss_and_no_error() -> None:
    target = LabelTarget("classes", names=("ant", "bee", "wasp"))
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    predictions = target.predictions(np.array([0.0, 2.0]), None, None, probabilities)
    found = scores_of(predictions, "classes")
    assert found["accuracy"] == 0.5
    assert found["nll"] is not None
    assert found["nll"] > 10
