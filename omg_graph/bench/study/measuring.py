"""What each method makes of the test clips, measured against the truth and the exact posterior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from omg_graph import pipeline
from omg_graph.bench.study.exact import Exact
from omg_graph.bench.study.settings import TARGET
from omg_graph.bench.study.world import World
from omg_graph.data.dataset import FloatArray, IntArray, Split
from omg_graph.errors import ModelError
from omg_graph.metrics.features import energy_scores, normalised_squared_error
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation
from omg_graph.planner.schema import Plan
from omg_graph.record.trajectory import EvidenceEntry
from omg_graph.simulator import DEGREES
from omg_graph.simulator.content import Float64Array

POSITIVE, NEGATIVE = DEGREES > 0, DEGREES < 0


@dataclass(frozen=True)
class Answer:
    """What a method says of every clip, in the features' own units."""

    mean: Float64Array
    """(samples, features)."""
    draws: Float64Array
    """(samples, draws, features)."""
    degrees: Float64Array
    """(samples, 7): probabilities."""


@dataclass(frozen=True)
class Scores:
    """A method's results, clip by clip, (samples,) each."""

    squared_error: Float64Array
    squared_deviation: Float64Array
    energy: Float64Array
    degree_accuracy: Float64Array
    """Exact probability of the degree that it chose."""
    sign_accuracy: Float64Array
    """Exact probability of the sign that it chose, among those other than 0."""


@dataclass(frozen=True)
class Seen:
    """Test clips under one pattern, as a model sees them, with its own plans and evidence."""

    split: Split
    observation: Observation
    plans: list[Plan]
    evidence: dict[str, FloatArray]
    """E (Eq. 8) of each missing modality, the target among them, (samples, latent)."""
    entries: tuple[tuple[EvidenceEntry, ...], ...]
    """N_K of the target, best first; empty where nothing is looked up."""

    def take(self, rows: IntArray) -> Seen:
        """Some of the clips."""
        chosen = rows.tolist()
        return Seen(
            self.split.take(chosen),
            self.observation.take(rows),
            [self.plans[row] for row in chosen],
            {name: vectors[rows] for name, vectors in self.evidence.items()},
            tuple(self.entries[row] for row in chosen),
        )


def show(split: Split, observed: Sequence[str]) -> Split:
    """The clips with everything else hidden."""
    missing = np.array([name not in observed for name in split.names])
    return split.hide(np.tile(missing, (len(split), 1)))


def look(model: Model, shown: Split) -> Seen:
    """Plan and evidence, by the steps that the graph's nodes call."""
    run = pipeline.run(model, shown, draws=0)
    vectors = {name: found.aggregated for name, found in run.evidence.items()}
    return Seen(shown, run.observation, run.plans, vectors, run.evidence[TARGET].entries)


def answer(
    model: Model,
    seen: Seen,
    plans: Sequence[Plan] | None = None,
    evidence: Mapping[str, FloatArray] | None = None,
    draws: int = 0,
) -> Answer:
    """What the model makes of the clips, given its own plans and evidence or others.

    Args:
        model: the model.
        seen: the clips.
        plans: in place of its own.
        evidence: E of each missing modality, in place of its own.
        draws: how many samples; 0 for the mean and the label alone.
    """
    embedded = pipeline.embed_plans(model, seen.plans if plans is None else plans, seen.split.ids)
    vectors = seen.evidence if evidence is None else evidence
    made = pipeline.execute(model, seen.observation, embedded, vectors, draws=draws)
    if draws:
        samples = np.stack([_decoded(model, one) for one in made.draws[TARGET]], axis=1)
    else:
        samples = np.zeros((len(seen.split), 0, 0))
    return Answer(_decoded(model, made.estimates[TARGET]), samples, _probabilities(model, made.outputs))


def evidence_alone(model: Model, seen: Seen) -> Answer:
    """E itself, with the entries as draws and their labels' weights as probabilities."""
    return _from_entries(model, seen, model.config.retrieval.top_k)


def nearest_entry(model: Model, seen: Seen) -> Answer:
    """A copy of the nearest entry."""
    return _from_entries(model, seen, 1)


def exact_answer(exact: Exact, draws: int) -> Answer:
    """The exact posterior itself."""
    return Answer(exact.mixture.mean(), exact.mixture.sample(draws, 0), exact.degrees)


def mean_as_draw(made: Answer) -> Answer:
    """The same answer, its point estimate taken for the only draw: what a point estimate is worth as one."""
    return Answer(made.mean, np.repeat(made.mean[:, None], 2, axis=1), made.degrees)


def scores(world: World, made: Answer, exact: Exact) -> Scores:
    """Errors on features standardised by their exact moments, and accuracies expected under the posterior."""
    mean, sd = world.simulator.moments[TARGET]
    truth = (world.test.arrays[TARGET] - mean) / sd
    error = normalised_squared_error((made.mean - mean) / sd, truth)
    rows = np.arange(len(truth))
    positive = made.degrees[:, POSITIVE].sum(axis=1) > made.degrees[:, NEGATIVE].sum(axis=1)
    likely = exact.degrees[:, POSITIVE].sum(axis=1), exact.degrees[:, NEGATIVE].sum(axis=1)
    return Scores(
        error.numerator,
        error.denominator,
        energy_scores((made.draws - mean) / sd, truth),
        exact.degrees[rows, made.degrees.argmax(axis=1)],
        np.where(positive, likely[0], likely[1]) / np.maximum(likely[0] + likely[1], 1e-12),
    )


def plan_hits(plans: Sequence[Plan], truth: Sequence[Plan]) -> Float64Array:
    """(samples, fields): 1 where a plan says what the clip says, 0 where it says something else."""
    said = [
        [own == true for own, true in zip(plan, true_plan, strict=True)]
        for plan, true_plan in zip(plans, truth, strict=True)
    ]
    return np.array(said, dtype=np.float64)


def _from_entries(model: Model, seen: Seen, count: int) -> Answer:
    kb = model.knowledge_base
    # as many for each clip: all of them miss the target, and every entry has it
    index = np.array([[kb.row_of[entry.id] for entry in entries[:count]] for entries in seen.entries])
    weights = np.array([[entry.weight for entry in entries[:count]] for entries in seen.entries])
    weights /= weights.sum(axis=1, keepdims=True)
    values = _decoded_flat(model, kb.values[TARGET][index])
    labels = _degree_index(kb.labels or (), index)
    degrees = np.zeros((len(index), len(DEGREES)))
    np.add.at(degrees, (np.arange(len(index))[:, None], labels), weights)
    draws = values if values.shape[1] > 1 else np.repeat(values, 2, axis=1)
    return Answer((weights[:, :, None] * values).sum(axis=1), draws, degrees)


def _degree_index(labels: Sequence[str | None], index: IntArray) -> IntArray:
    numbers = [int(float(labels[row] or 0)) - int(DEGREES[0]) for row in index.ravel().tolist()]
    return np.array(numbers, dtype=np.int64).reshape(index.shape)


def _decoded(model: Model, latents: torch.Tensor) -> Float64Array:
    return model.latent_space.decode(TARGET, latents).astype(np.float64)


def _decoded_flat(model: Model, values: FloatArray) -> Float64Array:
    """(samples, entries, features) of latents (samples, entries, latent)."""
    flat = torch.from_numpy(np.ascontiguousarray(values.reshape(-1, values.shape[-1])))
    return _decoded(model, flat).reshape(*values.shape[:2], -1)


def _probabilities(model: Model, outputs: torch.Tensor | None) -> Float64Array:
    head = model.executor.task
    if head is None or outputs is None:
        raise ModelError("expected a model that predicts a label, this one has no task head")
    made = head.probabilities(outputs).double().cpu().numpy()
    return np.asarray(made[:, np.argsort(head.config.degrees)])
