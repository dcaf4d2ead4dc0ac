"""Each variant trains, and its component is really in place in the model that comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph import pipeline
from omg_graph.bench.ablation.components import JointDenoiser, mean_weights, no_weights
from omg_graph.bench.ablation.runs import AblationRequest
from omg_graph.bench.ablation.variants import DEFAULT, SWAPS, VARIANTS, choose
from omg_graph.bench.paper.tables import paper_tables
from omg_graph.data.dataset import Split
from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError, ModelError
from omg_graph.evaluation.evaluate import EvaluationRequest, evaluate
from omg_graph.model.components import Components
from omg_graph.model.folder import load_model, save_model
from omg_graph.model.model import Model
from omg_graph.training.config import load_config

Trained = Callable[[str], Model]


@pytest.fixture(scope="module")
def clips(finished: AblationRequest) -> Split:
    """Validation clips of which only the text is there."""
    split = read_data_file(finished.data).splits["valid"]
    hidden = np.array([name != "text" for name in split.names])
    return split.hide(np.broadcast_to(hidden, split.mask().shape)).without_labels()


class Workflow:
    """What the four steps make of a few samples."""

    def __init__(self, model: Model, split: Split) -> None:
        self.seen = pipeline.observe(model, split)
        self.candidates = pipeline.propose(model, split, self.seen)
        self.plans = [
            ranking.best.values for ranking in pipeline.rerank(model, self.candidates, self.seen.embedding)
        ]
        self.condition = pipeline.embed_plans(model, self.plans, split.ids)
        self.evidence = pipeline.retrieve(model, self.seen, self.plans, self.condition)
        vectors = {name: rows.aggregated for name, rows in self.evidence.items()}
        self.execution = pipeline.execute(model, self.seen, self.condition, vectors, draws=0)

    def weights(self) -> list[list[float]]:
        return [[entry.weight for entry in row] for rows in self.evidence.values() for row in rows.entries]


@pytest.fixture(scope="module")
def workflow(trained: Trained, clips: Split) -> Callable[[str], Workflow]:
    made: dict[str, Workflow] = {}

    def of(name: str) -> Workflow:
        return made.setdefault(name, Workflow(trained(name), clips))

    return of


def test_noise_stands_for_the_plan_another_for_each_sample_and_of_its_scale(
    workflow: Callable[[str], Workflow], trained: Trained, clips: Split
) -> None:
    noisy, planned = workflow("no-planner"), workflow(DEFAULT)
    assert noisy.condition.shape == planned.condition.shape
    vectors = noisy.condition.reshape(-1, noisy.condition.shape[-1])
    assert np.linalg.matrix_rank(vectors) == min(vectors.shape)  # no two alike, whatever their plans
    assert np.linalg.norm(vectors, axis=1).mean() == pytest.approx(1.0, abs=0.1)
    np.testing.assert_allclose(np.linalg.norm(planned.condition, axis=-1), 1.0, rtol=1e-3)
    # a sample's noise is its own, whoever is in the batch with it
    few = clips.take(np.array([3, 1]))
    again = pipeline.embed_plans(trained("no-planner"), [noisy.plans[3], noisy.plans[1]], few.ids)
    np.testing.assert_array_equal(again, noisy.condition[[3, 1]])


def test_without_re_ranking_there_is_one_drawn_plan(workflow: Callable[[str], Workflow]) -> None:
    assert {len(plans) for plans in workflow("no-rerank").candidates} == {1}
    assert not any(plans[0].greedy for plans in workflow("no-rerank").candidates)


def test_without_the_retriever_no_entry_counts_and_the_anchor_has_no_evidence(
    workflow: Callable[[str], Workflow], trained: Trained
) -> None:
    found = workflow("no-retriever")
    assert not any(weight for row in found.weights() for weight in row)
    assert all(not rows.alignment_cost.any() for rows in found.evidence.values())
    assert all(not rows.aggregated.any() for rows in found.evidence.values())
    executor = trained("no-retriever").executor
    assert not executor.anchor.weights[..., 0].any()


def test_plain_diffusion_is_told_neither_plan_nor_evidence_by_the_same_network(
    workflow: Callable[[str], Workflow], trained: Trained
) -> None:
    plain = workflow("no-planner-no-retriever")
    assert not plain.condition.any()
    assert all(not rows.aggregated.any() for rows in plain.evidence.values())
    shapes = [
        {name: value.shape for name, value in trained(name_).executor.denoiser.state_dict().items()}
        for name_ in ("no-planner-no-retriever", DEFAULT)
    ]
    assert shapes[0] == shapes[1]


def test_plain_diffusion_has_nothing_fitted_in_closed_form(trained: Trained) -> None:
    model = trained("plain-diffusion")
    assert model.label_regression is None
    assert not model.executor.anchor.priors
    assert float(model.executor.start) == 1.0
    default = trained(DEFAULT)
    assert default.label_regression is not None
    assert default.executor.anchor.weights.any()


def test_only_the_words_are_kept_from_the_features_reader(trained: Trained) -> None:
    read, unread = trained(DEFAULT).label_regression, trained("features-reader").label_regression
    assert read is not None
    assert unread is not None
    assert read.words.width > 0 == unread.words.width
    assert trained("no-label-reader").label_regression is None


def test_mean_pooling_weighs_every_entry_the_same(workflow: Callable[[str], Workflow]) -> None:
    pooled = workflow("mean-pooling").weights()
    assert any(len(row) > 1 for row in pooled)
    for row in pooled:
        np.testing.assert_allclose(row, [1 / len(row)] * len(row), rtol=1e-6)
    assert any(max(row) - min(row) > 1e-3 for row in workflow(DEFAULT).weights())


@pytest.mark.parametrize("entries", [1, 5])
def test_k_entries(workflow: Callable[[str], Workflow], entries: int) -> None:
    assert {len(row) for row in workflow(f"top-k-{entries}").weights()} == {entries}


def test_whose_plan_turns_the_query(trained: Trained, clips: Split) -> None:
    """Of the variants, only plan-driven retrieval depends on the sample's own plan."""

    def similarities(name: str, plan: np.ndarray) -> list[list[float]]:
        model = trained(name)
        assert model.config.retrieval.query_kept
        plans = [tuple(field.values[0] for field in model.schema.fields if field.values)] * len(clips)
        found = pipeline.retrieve(model, pipeline.observe(model, clips), plans, plan, top_k=3)
        return [[entry.similarity for entry in row] for row in found["audio"].entries]

    width = trained(DEFAULT).config.shared_width
    one = np.full((len(clips), 4, width), width**-0.5, np.float32)
    for name in ("content-only", "random-plan"):
        assert similarities(name, one) == similarities(name, -one)
    assert similarities("plan-driven", one) != similarities("plan-driven", -one)


def injected(model: Model) -> tuple[set[str], set[str], set[str]]:
    denoiser = model.executor.denoiser
    joints = denoiser.joints if isinstance(denoiser, JointDenoiser) else ()
    return set(denoiser.adapters), set(denoiser.cross), set(map(str, range(len(joints))))


def test_where_plan_and_evidence_enter(trained: Trained) -> None:
    shallow, deep = {"0", "1"}, {"2", "3"}
    assert injected(trained(DEFAULT)) == (shallow, deep, set())
    assert injected(trained("concat-injection")) == (set(), set(), shallow | deep)
    assert injected(trained("reversed-injection")) == (deep, shallow, set())
    assert injected(trained("single-stream")) == (shallow, set(), set())
    assert injected(trained("entangled")) == (set(), set(), set())


def changed(model: Model, split: Split, workflow: Workflow, **replaced: Any) -> float:
    """How far the estimates move when u_X, the plan or the evidence is another."""
    inputs = {
        "embedding": workflow.seen.embedding,
        "condition": workflow.condition,
        "evidence": {name: rows.aggregated for name, rows in workflow.evidence.items()},
    } | replaced
    seen = replace(workflow.seen, embedding=inputs["embedding"])
    made = pipeline.execute(model, seen, inputs["condition"], inputs["evidence"], draws=0)
    return max(
        float((made.estimates[name] - workflow.execution.estimates[name]).abs().max())
        for name in ("audio", "vision")
    )


def test_the_entangled_network_has_no_path_for_plan_evidence_or_u_x(
    trained: Trained, clips: Split, workflow: Callable[[str], Workflow]
) -> None:
    own = workflow("entangled")
    others = {
        "embedding": -own.seen.embedding,
        "condition": -own.condition,
        "evidence": {name: np.ones_like(rows.aggregated) for name, rows in own.evidence.items()},
    }
    assert changed(trained("entangled"), clips, own, **others) == 0.0
    assert not any(anchor.any() for anchor in own.execution.anchors.values())
    default = workflow(DEFAULT)
    assert all(changed(trained(DEFAULT), clips, default, **{name: v}) > 0 for name, v in others.items())


def test_concat_injection_reads_both(
    trained: Trained, clips: Split, workflow: Callable[[str], Workflow]
) -> None:
    model, own = trained("concat-injection"), workflow("concat-injection")
    assert changed(model, clips, own, condition=-own.condition) > 0
    evidence = {name: -rows.aggregated for name, rows in own.evidence.items()}
    assert changed(model, clips, own, evidence=evidence) > 0


def test_single_stream_is_deaf_to_the_plan(
    trained: Trained, clips: Split, workflow: Callable[[str], Workflow]
) -> None:
    model, own = trained("single-stream"), workflow("single-stream")
    assert changed(model, clips, own, condition=-own.condition) == 0.0


def test_settings_of_the_losses(finished: AblationRequest) -> None:
    def weights(name: str) -> dict[str, Any]:
        variant = next(variant for variant in VARIANTS if variant.name == name)
        config = load_config(finished.config, finished.overrides_of(variant))
        return config.objective.model_dump() | {"refit": config.task.refit}

    default = weights(DEFAULT)
    assert weights("no-plan-loss") == default | {"plan": 0.0}
    assert weights("no-evidence-loss") == default | {"evidence": 0.0}
    assert weights("no-plan-no-evidence-loss") == default | {"plan": 0.0, "evidence": 0.0}
    assert weights("no-task-loss") == default | {"task": 0.0}
    assert weights("noisy-state-classification") == default | {"refit": False}
    assert weights("task-weight-1") == default | {"task": 1.0}


def test_a_model_trained_with_other_components_is_never_used_without_them(
    finished: AblationRequest, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    model = trained("mean-pooling")
    save_model(model, folder)
    assert json.loads((folder / "model.json").read_text())["components"] == {"attention": "mean_weights"}
    with pytest.raises(ModelError, match=r"attention mean_weights\), got the method's own: give them"):
        load_model(folder)
    with pytest.raises(ModelError, match="got attention no_weights"):
        load_model(folder, components=Components(attention=no_weights))
    assert load_model(folder, components=model.components).components.attention is mean_weights
    request = EvaluationRequest(folder, finished.data, tmp_path / "results", split="valid", draws=0)
    with pytest.raises(ModelError, match="evaluate it with omg ablate"):
        evaluate(request, lambda *_: None)


def test_what_the_paper_prints_is_there_for_every_variant_that_names_it() -> None:
    paper = paper_tables()
    for variant in VARIANTS:
        if variant.printed is None:
            continue
        if variant.printed.table is None:
            assert variant.printed.method in paper.acc2_drops
        else:
            paper.tables[variant.printed.table].row("mosi", variant.printed.method, "0.7")
    named = {v.printed.method for v in VARIANTS if v.printed is not None}
    assert set(paper.acc2_drops) <= named
    for table in ("ablation", "retrieval", "injection"):
        assert set(paper.tables[table].methods("mosi")) <= named  # type: ignore[index]


def test_names() -> None:
    names = [entry.name for entry in (*VARIANTS, *SWAPS)]  # type: ignore[attr-defined]
    assert len(set(names)) == len(names)
    variants, swaps = choose(["top-k-5", "mean-pooling@inference"])
    assert [variant.name for variant in variants] == [DEFAULT, "top-k-5"]
    assert [swap.name for swap in swaps] == ["mean-pooling@inference"]
    with pytest.raises(ConfigError, match="no-planer"):
        choose(["no-planer"])


@pytest.mark.slow
def test_every_variant_trains(trained: Trained, finished: AblationRequest) -> None:
    digests = {finished.digest_of(variant): variant.name for variant in reversed(VARIANTS)}
    for name in digests.values():
        model = trained(name)
        assert model.config.name == name
        assert all(bool(torch.isfinite(p).all()) for p in model.executor.parameters())
