"""Trajectories as they grow from node to node: what each step made, in words, numbers and references."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from omg_graph.errors import PlanError
from omg_graph.graph.gaps import NOTHING_MISSING, known_truths, with_gaps
from omg_graph.graph.pictures import emerging
from omg_graph.graph.state import Batch, Settings
from omg_graph.metrics.features import normalised_squared_error
from omg_graph.model.model import Model
from omg_graph.model.steps import Execution
from omg_graph.planner.interface import CandidatePlan
from omg_graph.planner.rerank import Reranking
from omg_graph.planner.schema import Plan as PlanValues
from omg_graph.retriever.evidence import Evidence
from omg_graph.retriever.retriever import ChromaRetriever
from omg_graph.samples.dataset import FloatArray, Split
from omg_graph.trajectory.artifacts import ArtifactStore
from omg_graph.trajectory.trajectory import (
    Constraint,
    DenoisingStep,
    EvidenceEntry,
    Plan,
    PlanCandidate,
    PlanOrigin,
    Prediction,
    ReconstructionError,
    Trajectory,
)
from omg_graph.trajectory.utility import path_cost, utility

Trajectories = list[Trajectory]


def opened(
    model: Model,
    batch: Batch,
    split: Split,
    candidates: Sequence[Sequence[CandidatePlan]],
    seed: int,
    notes: tuple[str, ...],
) -> Trajectories:
    """New trajectories, with the plans that were drawn."""
    if model.config.synthetic:
        notes = (*notes, "the model was trained on synthetic data")
    mask, names = split.mask(), split.names
    origins = [plans[0].origin if plans else None for plans in candidates]
    return [
        Trajectory(
            id=split.ids[row],
            group=split.groups[row],
            observed=tuple(name for name, there in zip(names, mask[row], strict=True) if there),
            missing=tuple(name for name, there in zip(names, mask[row], strict=True) if not there),
            hidden=tuple(name for name, rows in batch.hidden.items() if rows[row]),
            raw_text=None if split.raw_text is None else split.raw_text[row],
            candidates=tuple(drawn_candidate(model, plan) for plan in plans),
            plan_origin=origins[row],
            seed=seed,
            model=model.manifest.fingerprint,
            notes=notes if (origin := origins[row]) is None or origin.note is None else (*notes, origin.note),
        )
        for row, plans in enumerate(candidates)
    ]


def drawn_candidate(model: Model, plan: CandidatePlan) -> PlanCandidate:
    """A plan that the planner drew, before re-ranking."""
    fields = model.schema.field_names
    total = sum(plan.log_probabilities)
    violations = model.schema.violations(plan.constraints)
    return PlanCandidate(
        text="; ".join(plan.constraints) if violations else model.schema.text(plan.constraints),
        constraints=tuple(
            Constraint(
                field=fields[place] if place < len(fields) else f"field {place + 1}",
                value=value,
                log_probability=log_probability,
                tokens=tokens,
            )
            for place, (value, log_probability, tokens) in enumerate(
                zip(plan.constraints, plan.log_probabilities, plan.token_counts, strict=True)
            )
        ),
        log_probability=total,
        log_probability_per_token=total / max(1, sum(plan.token_counts)),
        greedy=plan.greedy,
        violations=violations,
    )


def drawn_plans(trajectory: Trajectory) -> list[CandidatePlan]:
    """The candidates that wait for re-ranking, as the planner drew them."""
    return [
        CandidatePlan(
            tuple(link.value for link in candidate.constraints),
            tuple(
                math.nan if link.log_probability is None else link.log_probability
                for link in candidate.constraints
            ),
            tuple(link.tokens for link in candidate.constraints),
            candidate.greedy,
        )
        for candidate in trajectory.candidates
    ]


def planned(model: Model, trajectories: Trajectories, ranked: Sequence[Reranking]) -> Trajectories:
    """The chosen plan, and every term of every candidate's score."""
    out = []
    for trajectory, ranking in zip(trajectories, ranked, strict=True):
        scored = tuple(
            candidate.model_copy(
                update={
                    "semantic_cost": term.semantic_cost if term.valid else None,
                    "violations": term.violations,
                    "score": term.score if term.valid else None,
                }
            )
            for candidate, term in zip(trajectory.candidates, ranking.candidates, strict=True)
        )
        winner = scored[ranking.chosen]
        origin = trajectory.plan_origin or PlanOrigin(planner=model.planner.name)
        plan = Plan(
            schema_name=model.schema.name,
            planner=origin.planner,
            text=winner.text,
            constraints=winner.constraints,
            chosen=ranking.chosen,
            semantic_weight=ranking.semantic_weight,
            candidates=scored,
            prompt_version=origin.prompt_version,
            prompt_sha256=origin.prompt_sha256,
            confidence=origin.confidence,
        )
        out.append(trajectory.model_copy(update={"plan": plan, "candidates": (), "plan_origin": None}))
    return out


def plans_of(trajectories: Trajectories) -> list[PlanValues]:
    """The values of the chosen plans.

    Raises:
        PlanError: if a trajectory has no plan yet.
    """
    plans = []
    for trajectory in trajectories:
        if trajectory.plan is None:
            raise PlanError(f"sample {trajectory.id!r} has no plan: run the re-rank node first")
        plans.append(tuple(constraint.value for constraint in trajectory.plan.constraints))
    return plans


def grounded(
    model: Model,
    trajectories: Trajectories,
    evidence: Mapping[str, Evidence],
    plan_embeddings: FloatArray,
    store: ArtifactStore,
    *,
    keep_nearest: bool,
) -> Trajectories:
    """The evidence of every missing modality, traceable to its sources.

    Args:
        model: Which decodes the nearest entry.
        trajectories: So far.
        evidence: What was found, by modality.
        plan_embeddings: c_S, (samples, constraints + 1, shared).
        store: Where arrays go.
        keep_nearest: Whether to keep the nearest entry's value, in the input's units.
    """
    retriever = model.retriever
    degraded = retriever.index.degraded if isinstance(retriever, ChromaRetriever) else None
    out = []
    for row, trajectory in enumerate(trajectories):
        notes = trajectory.notes if degraded is None else (*trajectory.notes, degraded)
        entries, costs, left_out = {}, {}, {}
        arrays = trajectory.arrays | {"plan_embedding": store.put(plan_embeddings[row])}
        for name in trajectory.missing:
            if name not in evidence:
                continue
            found = evidence[name]
            entries[name] = tuple(
                EvidenceEntry(
                    id=entry.id,
                    weight=entry.weight,
                    similarity=entry.similarity,
                    text=entry.text,
                    source=entry.source,
                )
                for entry in found.entries[row]
            )
            left_out[name] = int(found.excluded[row])
            arrays[f"evidence/{name}"] = store.put(found.aggregated[row])
            if entries[name]:
                costs[name] = float(found.alignment_cost[row])
                if keep_nearest and found.nearest is not None:
                    value = torch.from_numpy(found.nearest[row : row + 1])
                    arrays[f"nearest/{name}"] = store.put(model.latent_space.decode(name, value)[0])
            else:
                notes = (*notes, f"no evidence was found for {name}")
        out.append(
            trajectory.model_copy(
                update={
                    "evidence": entries,
                    "evidence_cost": costs,
                    "left_out": left_out,
                    "arrays": arrays,
                    "notes": notes,
                }
            )
        )
    return out


def reconstructed(
    model: Model,
    store: ArtifactStore,
    trajectories: Trajectories,
    batch: Batch,
    split: Split,
    execution: Execution,
    settings: Settings,
) -> Trajectories:
    """Reconstruction, draws and path, and the error where the truth was hidden."""
    lengths, told = reconstructed_lengths(model, split)
    points = {
        name: _masked(model.latent_space.decode(name, execution.estimates[name]), lengths.get(name))
        for name in model.names
        if not split.observed[name].all()
    }
    drawn = {
        name: np.stack(
            [
                _masked(model.latent_space.decode(name, latents), lengths.get(name))
                for latents in execution.draws[name]
            ],
            axis=1,
        )
        for name in points
        if settings.draws > 1 and name in execution.draws
    }
    errors = _errors(model, store, batch, points)
    shaping = emerging(model, execution, lengths) if settings.keep_path else {}
    truths = known_truths(batch, store) if settings.keep_path else {}
    out = []
    for row, trajectory in enumerate(trajectories):
        arrays, denoising = dict(trajectory.arrays), {}
        for name in trajectory.missing:
            denoising[name] = path_steps(execution, name, row)
            if settings.keep_path:
                path = execution.paths[name]
                arrays[f"path/{name}"] = store.put(torch.stack([z[row] for z in path.states]).numpy())
                arrays[f"clean/{name}"] = store.put(torch.stack([z[row] for z in path.clean]).numpy())
                arrays[f"steps/{name}"] = store.put(shaping[name][row])
                if name in trajectory.hidden:
                    arrays[f"truth/{name}"] = store.put(truths[name][row])
            if name in drawn:
                arrays[f"draws/{name}"] = store.put(drawn[name][row])
        if settings.keep_path:  # with its input a run can be forked later
            for name in trajectory.observed:
                length = split.lengths[name][row] if name in split.lengths else None
                arrays[f"observed/{name}"] = store.put(with_gaps(split, name, row)[:length])
        notes = trajectory.notes
        if not trajectory.missing:
            notes = (*notes, NOTHING_MISSING)
        out.append(
            trajectory.model_copy(
                update={
                    "reconstruction": {name: store.put(points[name][row]) for name in trajectory.missing},
                    "lengths": {
                        name: int(lengths[name][row]) for name in trajectory.missing if name in lengths
                    },
                    "length_source": {
                        name: told[name][row] for name in trajectory.missing if name in lengths
                    },
                    "errors": {name: rows[row] for name, rows in errors.items() if row in rows},
                    "denoising": denoising,
                    "arrays": arrays,
                    "notes": notes,
                }
            )
        )
    return out


def predicted(model: Model, trajectories: Trajectories, execution: Execution) -> Trajectories:
    """Prediction and utility."""
    predictions = _predictions(model, execution.outputs)
    without = _predictions(model, execution.outputs_without)
    out = []
    for row, trajectory in enumerate(trajectories):
        losses = [error.nmse for error in trajectory.errors.values()]
        plan = trajectory.plan
        chosen = None if plan is None else plan.candidates[plan.chosen].semantic_cost
        notes = trajectory.notes
        if predictions is None:
            notes = (*notes, "the model was trained without labels: there is no prediction")
        out.append(
            trajectory.model_copy(
                update={
                    "prediction": None if predictions is None else predictions[row],
                    "prediction_without": without[row] if without and trajectory.missing else None,
                    "utility": utility(
                        reconstruction_loss=float(np.mean(losses)) if losses else None,
                        semantic_cost=chosen,
                        evidence_costs=list(trajectory.evidence_cost.values()),
                        path_costs=[
                            path_cost([step.clean_change for step in steps])
                            for steps in trajectory.denoising.values()
                        ],
                        weights=model.config.utility,
                    ),
                    "notes": notes,
                }
            )
        )
    return out


def path_steps(execution: Execution, name: str, row: int) -> tuple[DenoisingStep, ...]:
    """The denoising path of draw 0 in numbers."""
    path = execution.paths[name]
    steps: list[DenoisingStep] = []
    previous = None
    for index, timestep in enumerate(path.timesteps):
        clean, state = path.clean[index][row], path.states[index + 1][row]
        change = 0.0 if previous is None else float((clean - previous).square().mean().sqrt())
        steps.append(
            DenoisingStep(
                step=index + 1,
                timestep=timestep,
                state_norm=float(state.square().mean().sqrt()),
                clean_norm=float(clean.square().mean().sqrt()),
                clean_change=change,
            )
        )
        previous = clean
    return tuple(steps)


def reconstructed_lengths(
    model: Model, split: Split
) -> tuple[dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]], dict[str, list[str]]]:
    """Frames of each padded sequence: its own where known, an aligned one's, else the training median."""
    lengths, told = {}, {}
    frames = {spec.name: spec.shape[0] for spec in split.modalities if spec.kind == "sequence"}
    for name, median in model.config.median_lengths.items():
        rows = np.full(len(split), min(median, frames[name]), dtype=np.int64)
        words = ["training median"] * len(split)
        for row in range(len(split)):
            if split.observed[name][row] and name in split.lengths:
                rows[row], words[row] = split.lengths[name][row], "input"
                continue
            for other, given in split.lengths.items():
                if other != name and split.observed[other][row] and frames[other] == frames[name]:
                    rows[row], words[row] = given[row], f"aligned with {other}"
                    break
        lengths[name], told[name] = rows, words
    return lengths, told


def _masked(array: FloatArray, lengths: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> FloatArray:
    """Zeros past a sequence's length."""
    if lengths is None:
        return array
    inside = np.arange(array.shape[1])[None] < lengths[:, None]
    return np.asarray(array * inside[..., None], dtype=np.float32)


def _errors(
    model: Model,
    store: ArtifactStore,
    batch: Batch,
    points: Mapping[str, FloatArray],
) -> dict[str, dict[int, ReconstructionError]]:
    """Modality to row to error, where the truth was hidden."""
    out: dict[str, dict[int, ReconstructionError]] = {}
    for name, ref in batch.truth.items():
        truth, standardiser = store.get(ref), model.latent_space.codecs[name].standardiser
        rows = np.flatnonzero(np.array(batch.hidden[name]))
        length = np.array(batch.lengths[name]) if name in batch.lengths else None
        lost = store.get(batch.lost[name]) if name in batch.lost else None
        mask = standardiser.scored(len(truth), length, lost)
        standard_truth = standardiser.standard(truth, length)
        standard_guess = standardiser.standard(points[name], length)
        out[name] = {}
        for row in rows.tolist():
            scored = mask[row]
            ratio = normalised_squared_error(
                standard_guess[row : row + 1], standard_truth[row : row + 1], scored[None]
            )
            if ratio.value is None:  # none of its features varies in training: there is nothing to score
                continue
            difference = (truth[row] - points[name][row]).reshape(-1)[scored].astype(np.float64)
            out[name][row] = ReconstructionError(
                squared_error=float(ratio.numerator[0]),
                squared_deviation=float(ratio.denominator[0]),
                nmse=ratio.value,
                mse=float(np.mean(difference**2)),
            )
    return out


def _predictions(model: Model, outputs: torch.Tensor | None) -> list[Prediction] | None:
    """What the task head says, in the label's own words and units."""
    head = model.executor.task
    if head is None or outputs is None:
        return None
    config = head.config
    with torch.inference_mode():
        probabilities = head.probabilities(outputs).cpu().double().numpy()
        values = head.value(outputs).cpu().double().numpy() if config.kind != "classes" else None
    predictions = []
    for row in range(len(outputs)):
        value = None if values is None else float(values[row])
        if config.kind == "number":
            predictions.append(Prediction(value=value, label=None))
            continue
        shares = {word: float(share) for word, share in zip(config.names, probabilities[row], strict=True)}
        label = max(shares, key=shares.__getitem__) if value is None else model.schema.nearest_value(value)
        predictions.append(Prediction(value=value, label=label, probabilities=shares))
    return predictions


def timed(trajectories: Trajectories, node: str, started: float) -> Trajectories:
    """Note how long a node took for the batch, in seconds; the steps of one node are added up.

    A fork runs a node again: what it had to say before isn't said twice.
    """
    seconds = time.perf_counter() - started
    return [
        trajectory.model_copy(
            update={
                "timings": trajectory.timings | {node: round(trajectory.timings.get(node, 0.0) + seconds, 6)},
                "notes": tuple(dict.fromkeys(trajectory.notes)),
            }
        )
        for trajectory in trajectories
    ]
